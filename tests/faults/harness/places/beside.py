"""What is asked on another host of the stack (``worker_host.py``), and how that breaks; in every second seed, drawn by
chances of its own."""

from __future__ import annotations

import random
import signal
from collections.abc import Mapping
from typing import Any

from tests.faults.harness.acts import plain_stop, restart
from tests.faults.harness.faults.base import Fault, Hit
from tests.faults.harness.places import FIRST_SEED
from tests.faults.harness.places.acts import Drawn
from tests.faults.harness.places.talking import talker
from tests.faults.harness.places.worker_host import POOL
from tests.faults.harness.stack import FaultyStack

NAME = "talks-beside"
#: Whose process dies there, and how often.
_KILLED = (("agent", 4), ("worker", 3), ("worker-control", 3), ("engine", 2), ("shim", 2), ("tunnels", 1))


def is_beside(seed: int) -> bool:
    """Whether that seed needs it."""
    return seed >= FIRST_SEED and (seed - FIRST_SEED) % 2 == 1


class KillThere:
    """One of its processes dies."""

    weight = 3

    def draw(self, rng: random.Random) -> Mapping[str, Any]:
        role = rng.choices([role for role, _ in _KILLED], [weight for _, weight in _KILLED])[0]
        return {"role": role, "pick": rng.randrange(1000)}

    def inject(self, stack: FaultyStack, arguments: Mapping[str, Any]) -> Hit:
        if stack.beside is None:
            return {}
        pids = stack.beside.pids(arguments["role"])
        return {"pids": stack.send(pids[arguments["pick"] % len(pids) :][:1], signal.SIGKILL) if pids else []}

    def heal(self, stack: FaultyStack, arguments: Mapping[str, Any], hit: Hit) -> None:
        """Its supervisor starts it anew."""


class FreezeThere:
    """All of it but its engines stands still, as a host does that is cut off."""

    weight = 3

    def draw(self, rng: random.Random) -> Mapping[str, Any]:
        return {"for_s": round(rng.uniform(1.5, 5.0), 2)}

    def inject(self, stack: FaultyStack, arguments: Mapping[str, Any]) -> Hit:
        if stack.beside is None:
            return {}
        return {"pids": stack.send([one.pid for one in stack.beside.processes()], signal.SIGSTOP)}

    def heal(self, stack: FaultyStack, arguments: Mapping[str, Any], hit: Hit) -> None:
        stack.send(list(hit.get("pids", ())), signal.SIGCONT)


BREAKS_BESIDE: dict[str, Fault] = {"kill-beside": KillThere(), "freeze-beside": FreezeThere()}


def draw(seed: int, length_s: float) -> list[Drawn]:
    """An engine there that talks, one who follows it, and what breaks."""
    rng = random.Random(f"hostler beside {seed}")
    if not is_beside(seed):
        return []
    at_s = round(rng.uniform(0, 0.5), 2)
    found: list[Drawn] = [(at_s, "request", talker(NAME, POOL)), (at_s + 0.1, "follow", {"about": NAME})]
    look = {"method": "GET", "path": "/api/v1/replicas/{id}/logs", "body": None, "about": NAME}
    found.append((round(rng.uniform(at_s + 0.5, length_s), 2), "request", look))
    name = list(BREAKS_BESIDE)[seed // 2 % len(BREAKS_BESIDE)]
    found.append((round(rng.uniform(0.2, length_s * 0.7), 2), name, dict(BREAKS_BESIDE[name].draw(rng))))
    if rng.random() < 0.5:
        ends = rng.choice((plain_stop(NAME, 1), restart(rng, NAME)))
        found.append((round(rng.uniform(1.5, length_s), 2), "request", ends))
    return found
