"""The programs that keep what runs elsewhere die or stand still: of a job, a container, a far engine, a connection.

Drawn by chances of its own, beside what else breaks: a new one draws no other step anew.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Mapping
from signal import SIGKILL, SIGSTOP
from typing import Any

from tests.faults.harness import far_world, world
from tests.faults.harness.faults.base import Fault, Hit
from tests.faults.harness.places.acts import Drawn, serving
from tests.faults.harness.stack import FaultyStack

#: How many seeds have one.
SHARE = 0.7
#: So long before it an engine is made there, that nobody stops.
BEFORE_S = 2.5

Find = Callable[[FaultyStack], list[int]]


class Keeper:
    """One of those that are found at the time."""

    weight = 3

    def __init__(self, find: Find, number: signal.Signals) -> None:
        self._find, self._number = find, number

    def draw(self, rng: random.Random) -> Mapping[str, Any]:
        # as long as a lease, a look at a place and the wait before a second one take
        more = {"for_s": round(rng.uniform(1.5, 5.0), 2)} if self._number is SIGSTOP else {}
        return {"pick": rng.randrange(1000), **more}

    def inject(self, stack: FaultyStack, arguments: Mapping[str, Any]) -> Hit:
        if stack.facts.places is None:
            return {}
        found = sorted(self._find(stack))
        return {"pids": stack.send(found[arguments["pick"] % len(found) :][:1], self._number) if found else []}

    def heal(self, stack: FaultyStack, arguments: Mapping[str, Any], hit: Hit) -> None:
        """What was killed is looked after by whom it belongs to."""
        if self._number is SIGSTOP:
            stack.send(list(hit.get("pids", ())), signal.SIGCONT)


def _job_programs(stack: FaultyStack) -> list[int]:
    assert stack.facts.places is not None
    return far_world.job_programs(stack.facts.places)


def _conmons(stack: FaultyStack) -> list[int]:
    assert stack.facts.places is not None
    return far_world.conmons(stack.facts.places)


def _shims(stack: FaultyStack) -> list[int]:
    return list(world.shims(stack.folder / "far"))


def _far_ends(stack: FaultyStack) -> list[int]:
    return far_world.far_ends(stack.folder / "far")


def _masters(stack: FaultyStack) -> list[int]:
    return [one.pid for one in far_world.connections(stack.facts.state_dir) if one.keeps and one.role == "ssh"]


def _tunnels(stack: FaultyStack) -> list[int]:
    return [one.pid for one in far_world.connections(stack.facts.state_dir) if one.keeps and one.role == "tunnels"]


#: fault -> who is hit, how, and in which pool something should serve by then. Seeds take them in turn.
_KEEPERS: Mapping[str, tuple[Find, signal.Signals, str]] = {
    "kill-job-program": (_job_programs, SIGKILL, "queue"),
    "freeze-far-shim": (_shims, SIGSTOP, "far"),
    "kill-master": (_masters, SIGKILL, "login"),
    "freeze-conmon": (_conmons, SIGSTOP, "pod"),
    "kill-tunnel": (_tunnels, SIGKILL, "tunnelled"),
    "freeze-job-program": (_job_programs, SIGSTOP, "login"),
    "kill-far-end": (_far_ends, SIGKILL, "far"),
    "kill-conmon": (_conmons, SIGKILL, "pod"),
    "freeze-master": (_masters, SIGSTOP, "far"),
    "kill-far-shim": (_shims, SIGKILL, "far"),
    "freeze-tunnel": (_tunnels, SIGSTOP, "tunnelled"),
    "freeze-far-end": (_far_ends, SIGSTOP, "far"),
}
BENEATH: dict[str, Fault] = {name: Keeper(find, number) for name, (find, number, _) in _KEEPERS.items()}


def draw(seed: int, length_s: float) -> list[Drawn]:
    """One of them in most seeds, and what it keeps."""
    rng = random.Random(f"hostler beneath {seed}")
    if rng.random() > SHARE:
        return []
    name = list(BENEATH)[seed % len(BENEATH)]
    at_s = round(rng.uniform(BEFORE_S, length_s * 0.9), 2)
    standing = serving(f"stands-{name}", _KEEPERS[name][2])
    return [(round(at_s - BEFORE_S, 2), "request", standing), (at_s, name, dict(BENEATH[name].draw(rng)))]
