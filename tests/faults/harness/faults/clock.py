"""The database's clock jumps, for good: ``hostler_now()`` is the one clock of all deadlines."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from tests.faults.harness.faults.base import Hit
from tests.faults.harness.stack import FaultyStack

STEPS_S = (-5, -2, 3, 10, 60)
#: As a host that is set right by hand. Back no further than all must converge in, for deadlines stay the times that
#: were promised; on by less than the day for which an Idempotency-Key is remembered.
LEAPS_S = (-20, 120, 600, 7200)


class ShiftClock:
    def __init__(self, by_s: Sequence[int] = STEPS_S, weight: int = 3) -> None:
        self.weight = weight
        self._by_s = by_s

    def draw(self, rng: random.Random) -> Mapping[str, Any]:
        return {"by_s": rng.choice(self._by_s)}

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
