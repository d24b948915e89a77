"""Somebody else takes every connection that Postgres has left."""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import psycopg

from tests.faults.harness.faults.base import Hit
from tests.faults.harness.stack import FaultyStack

#: More than it allows (200).
_MOST = 250


class CrowdDatabase:
    weight = 2

    def __init__(self) -> None:
        self._held: list[psycopg.Connection[Any]] = []

    def draw(self, rng: random.Random) -> Mapping[str, Any]:
        return {"for_s": round(rng.uniform(1.0, 3.0), 2)}

    def inject(self, stack: FaultyStack, arguments: Mapping[str, Any]) -> Hit:
        try:
            for _ in range(_MOST):
                self._held.append(psycopg.connect(stack.facts.database_url, connect_timeout=2))
        except psycopg.OperationalError as error:
            return {"held": len(self._held), "why": str(error)}
        return {"held": len(self._held)}

    def heal(self, stack: FaultyStack, arguments: Mapping[str, Any], hit: Hit) -> None:
        while self._held:
            with suppress(psycopg.Error):
                self._held.pop().close()
