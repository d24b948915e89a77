"""Connections that end in the middle of a statement or a message."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import psycopg
import redis

from tests.faults.harness.faults.base import Hit
from tests.faults.harness.stack import FaultyStack

_CUT = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    " AND datname = current_database() AND application_name LIKE 'hostler%%'"
)


class CutDatabase:
    weight = 4

    def draw(self, rng: random.Random) -> Mapping[str, Any]:
        return {}

    def inject(self, stack: FaultyStack, arguments: Mapping[str, Any]) -> Hit:
        try:
            with stack.sql() as connection:
                found = connection.execute(_CUT).fetchone()
        except psycopg.Error as error:
            return {"cut": 0, "why": str(error)}
        return {"cut": found[0] if found else 0}

    def heal(self, stack: FaultyStack, arguments: Mapping[str, Any], hit: Hit) -> None:
        """New connections are made."""


class CutBroker:
    weight = 3

    def draw(self, rng: random.Random) -> Mapping[str, Any]:
        return {}

    def inject(self, stack: FaultyStack, arguments: Mapping[str, Any]) -> Hit:
        try:
            return {"cut": stack.broker().client_kill_filter(_type="normal", skipme=True)}
        except redis.RedisError as error:
            return {"cut": 0, "why": str(error)}

    def heal(self, stack: FaultyStack, arguments: Mapping[str, Any], hit: Hit) -> None:
        """New connections are made."""
