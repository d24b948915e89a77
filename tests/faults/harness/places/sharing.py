"""Replicas that share jobs of the cluster, each with a GPU of its own, and what breaks under them.

In every second seed, those without another host; drawn by chances of its own.
"""

from __future__ import annotations

import random
from signal import SIGKILL, SIGSTOP
from typing import Any

from tests.faults.harness import far_world
from tests.faults.harness.acts import Act, plain_stop
from tests.faults.harness.faults.base import Fault
from tests.faults.harness.places.acts import Drawn, serving
from tests.faults.harness.places.beneath import Keeper
from tests.faults.harness.places.beside import is_beside
from tests.faults.harness.places.pools import SHARED
from tests.faults.harness.places.talking import talker
from tests.faults.harness.stack import FaultyStack


def _programs(stack: FaultyStack) -> list[int]:
    assert stack.facts.places is not None
    return far_world.share_programs(stack.facts.places)


def _members(stack: FaultyStack) -> list[int]:
    assert stack.facts.places is not None
    return far_world.job_programs(stack.facts.places, of_shared=True)


BREAKS_SHARED: dict[str, Fault] = {
    "kill-share": Keeper(_programs, SIGKILL),
    "kill-member": Keeper(_members, SIGKILL),
    "freeze-share": Keeper(_programs, SIGSTOP),
}


def draw(seed: int, length_s: float) -> list[Drawn]:
    """More than a job has seats for; one of them goes, and another one comes."""
    rng = random.Random(f"hostler sharing {seed}")
    if is_beside(seed):
        return []
    talks = talker("talks-shared", SHARED)
    found: list[Drawn] = [(round(rng.uniform(0, 0.6), 2), "request", _with_gpu(talks))]
    found.append((round(found[0][0] + 0.1, 2), "follow", {"about": talks["makes"]}))
    for number, at_s in enumerate((rng.uniform(0, 0.8), rng.uniform(0, 0.8), rng.uniform(3.2, length_s))):
        found.append((round(at_s, 2), "request", _with_gpu(serving(f"shared-{number}", SHARED))))
    if rng.random() < 0.7:
        found.append((round(rng.uniform(2.4, 3.2), 2), "request", plain_stop("shared-0", 1)))
    name = list(BREAKS_SHARED)[seed // 2 % len(BREAKS_SHARED)]
    if rng.random() < 0.7:
        found.append((round(rng.uniform(2.5, length_s * 0.9), 2), name, dict(BREAKS_SHARED[name].draw(rng))))
    return found


def _with_gpu(act: Act) -> dict[str, Any]:
    return {**act, "body": {**act["body"], "resources": {"gpu": 1}}}
