"""Postgres ends in the middle of everything, or stands still."""

from __future__ import annotations

import random
import signal
from collections.abc import Mapping
from typing import Any

from tests.faults.harness.faults.base import Hit
from tests.faults.harness.stack import FaultyStack

#: fast: disconnect all; immediate: as in a crash, but told; crash: the server process is gone
_MODES = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT, "crash": signal.SIGKILL}


class RestartPostgres:
    weight = 4

    def draw(self, rng: random.Random) -> Mapping[str, Any]:
        return {"mode": rng.choice(sorted(_MODES))}

    def inject(self, stack: FaultyStack, arguments: Mapping[str, Any]) -> Hit:
        return {"pids": stack.send(stack.pids("postgres", "parent"), _MODES[arguments["mode"]])}

    def heal(self, stack: FaultyStack, arguments: Mapping[str, Any], hit: Hit) -> None:
        """Supervisor starts it anew."""


class FreezePostgres:
    """All of its processes stand still: no answer, and no closed connection either."""

    weight = 2

    def draw(self, rng: random.Random) -> Mapping[str, Any]:
        return {"for_s": round(rng.uniform(0.5, 3.5), 2)}

    def inject(self, stack: FaultyStack, arguments: Mapping[str, Any]) -> Hit:
        return {"pids": stack.send(stack.pids("postgres"), signal.SIGSTOP)}

    def heal(self, stack: FaultyStack, arguments: Mapping[str, Any], hit: Hit) -> None:
        stack.send(list(hit["pids"]), signal.SIGCONT)
