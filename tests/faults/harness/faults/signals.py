"""Processes that are killed, frozen past their lease, or told to end: every role, parent or child, engines too."""

from __future__ import annotations

import random
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from tests.faults.harness.faults.base import Hit
from tests.faults.harness.stack import FaultyStack

#: role, part and how often. Supervisord's own programs come back by it; shims are replaced, engines are failures.
TARGETS: tuple[tuple[str, str, int], ...] = (
    ("web", "parent", 2),
    ("web", "child", 3),
    ("worker", "parent", 3),
    ("worker", "child", 4),
    ("worker-control", "parent", 3),
    ("worker-control", "child", 3),
    ("agent", "parent", 4),
    ("beat", "parent", 1),
    ("redis", "parent", 1),
    ("engine", "all", 4),
    ("shim", "all", 3),
)
#: The parts between a model and who asks it.
DOOR_TARGETS: tuple[tuple[str, str, int], ...] = (
    ("gateway", "parent", 1),
    ("gateway", "child", 3),
    ("gateway-agent", "parent", 5),
    ("slow-lane", "parent", 1),
    ("slow-lane", "child", 2),
)
#: Those who bring services on.
RECONCILERS: tuple[tuple[str, str, int], ...] = (
    ("agent", "parent", 4),
    ("worker-control", "child", 2),
    ("web", "child", 2),
)
#: What an orderly end is asked of.
RESTARTED = ("web", "worker", "worker-control", "agent", "beat")
DOOR_RESTARTED = ("gateway", "gateway-agent", "gateway-agent", "slow-lane")


def _draw_target(rng: random.Random, targets: Sequence[tuple[str, str, int]]) -> dict[str, Any]:
    role, part, _ = rng.choices(targets, [weight for *_, weight in targets])[0]
    # which of several: found at the time, by this number
    return {"role": role, "part": part, "pick": rng.randrange(1000), "all": rng.random() < 0.25}


def _targets(stack: FaultyStack, arguments: Mapping[str, Any]) -> list[int]:
    pids = stack.pids(arguments["role"], arguments["part"])
    if not pids or arguments["all"]:
        return pids
    return [pids[arguments["pick"] % len(pids)]]


class Kill:
    """SIGKILL."""

    weight = 10

    def __init__(self, targets: Sequence[tuple[str, str, int]] = TARGETS) -> None:
        self._targets = targets

    def draw(self, rng: random.Random) -> Mapping[str, Any]:
        return _draw_target(rng, self._targets)

    def inject(self, stack: FaultyStack, arguments: Mapping[str, Any]) -> Hit:
        return {"pids": stack.send(_targets(stack, arguments), signal.SIGKILL)}

    def heal(self, stack: FaultyStack, arguments: Mapping[str, Any], hit: Hit) -> None:
        """Its parent or supervisor starts it anew."""


class Freeze:
    """SIGSTOP, and SIGCONT when every lease has run out."""

    weight = 7

    def __init__(self, targets: Sequence[tuple[str, str, int]] = TARGETS) -> None:
        self._targets = targets

    def draw(self, rng: random.Random) -> Mapping[str, Any]:
        return _draw_target(rng, self._targets) | {"for_s": round(rng.choice((0.8, 2.6, 3.4)) + rng.random(), 2)}

    def inject(self, stack: FaultyStack, arguments: Mapping[str, Any]) -> Hit:
        return {"pids": stack.send(_targets(stack, arguments), signal.SIGSTOP)}

    def heal(self, stack: FaultyStack, arguments: Mapping[str, Any], hit: Hit) -> None:
        stack.send(list(hit["pids"]), signal.SIGCONT)


class Restart:
    """SIGTERM to what supervisord started: an orderly end in the middle of work, and a new start."""

    weight = 3

    def __init__(self, roles: Sequence[str] = RESTARTED) -> None:
        self._roles = roles

    def draw(self, rng: random.Random) -> Mapping[str, Any]:
        return {"role": rng.choice(self._roles)}

    def inject(self, stack: FaultyStack, arguments: Mapping[str, Any]) -> Hit:
        return {"pids": stack.send(stack.pids(arguments["role"], "parent"), signal.SIGTERM)}

    def heal(self, stack: FaultyStack, arguments: Mapping[str, Any], hit: Hit) -> None:
        """Supervisor starts it anew."""
