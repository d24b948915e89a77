"""Every process of the control plane dies at once, engines too or not, and somebody types ``hostler up`` again."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Mapping
from typing import Any

from app.stack.roles import ENGINE, SHIM, SUPERVISOR
from tests.faults.harness.faults.base import Hit
from tests.faults.harness.stack import FaultyStack

#: Another fault may hit what has just come up.
_TRIES = 3


class PowerCut:
    weight = 2

    def draw(self, rng: random.Random) -> Mapping[str, Any]:
        return {"engines": rng.random() < 0.5, "for_s": round(rng.uniform(0.2, 1.5), 2)}

    def inject(self, stack: FaultyStack, arguments: Mapping[str, Any]) -> Hit:
        found = stack.processes()
        # who starts the others anew goes first
        found.sort(key=lambda one: one.role != SUPERVISOR)
        spared = () if arguments["engines"] else (ENGINE, SHIM)
        pids = [one.process.pid for one in found if one.role not in spared]
        return {"pids": stack.send(pids, signal.SIGKILL)}

    def heal(self, stack: FaultyStack, arguments: Mapping[str, Any], hit: Hit) -> None:
        for left in reversed(range(_TRIES)):
            try:
                stack.up()
            except AssertionError:
                if not left:
                    raise
                time.sleep(1)
            else:
                return
