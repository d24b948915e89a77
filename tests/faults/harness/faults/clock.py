"""The database's clock jumps, for good: ``hostler_now()`` is the one clock of all deadlines."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import psycopg

from tests.faults.harness.faults.base import Hit
from tests.faults.harness.stack import FaultyStack


class ShiftClock:
    weight = 3

    def draw(self, rng: random.Random) -> Mapping[str, Any]:
        return {"by_s": rng.choice((-5, -2, 3, 10, 60))}

    def inject(self, stack: FaultyStack, arguments: Mapping[str, Any]) -> Hit:
        try:
            with stack.sql() as connection:
                connection.execute(
                    "UPDATE clock SET shift = shift + make_interval(secs => %s)", (float(arguments["by_s"]),)
                )
        except psycopg.Error as error:
            return {"shifted": False, "why": str(error)}
        return {"shifted": True}

    def heal(self, stack: FaultyStack, arguments: Mapping[str, Any], hit: Hit) -> None:
        """Time goes on from where it is."""
