"""A seed's script: who asks what when, and what breaks meanwhile. Pure, and the same for ever.

Nothing here knows a running stack: replicas go by names, processes by role and a number to pick with.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.faults.harness.acts import ACTS, PATIENT, create
from tests.faults.harness.asks import asks
from tests.faults.harness.faults import DOOR, FAULTS, RARE, SERVICES
from tests.faults.harness.faults.base import Fault
from tests.faults.harness.faults.points import ArmPoint
from tests.faults.harness.places import is_of_places
from tests.faults.harness.places.script import place_steps
from tests.faults.harness.services import services

#: Steps that ask for something; all others break something.
ASKED = ("request", "ask", "follow")
#: The faults' own time is at most this much longer, so that what was frozen thaws after its lease.
LENGTH_S = 3.0
#: At most so many faults a seed: more would only hide each other.
MOST_FAULTS = 4
#: The seeds that CI runs.
CI_SEEDS = 20
#: How many of the others have a rare fault too.
RARE_SHARE = 0.2
#: How many seeds break a part of the door too.
DOOR_SHARE = 0.6
#: How many seeds break something between services and their replicas too.
SERVICE_SHARE = 0.85


@dataclass(frozen=True)
class Step:
    """``what`` is one of ``ASKED`` or the name of a fault; ``at_s`` counts from the seed's begin."""

    at_s: float
    what: str
    arguments: Mapping[str, Any]

    def line(self) -> str:
        return f"{self.at_s:6.2f}  {self.what:<16} {json.dumps(self.arguments)}"


def script(seed: int) -> list[Step]:
    """The steps of ``seed``, by time."""
    if is_of_places(seed):
        found = [Step(at_s, what, arguments) for at_s, what, arguments in place_steps(seed)]
        return sorted(found, key=lambda step: step.at_s)
    rng = random.Random(f"hostler faults {seed}")
    steps: list[Step] = []
    born: list[tuple[float, str, str]] = []
    at_once = rng.random() < 0.2
    for number in range(rng.randint(4, 9)):
        at_s = 0.3 if at_once else round(rng.uniform(0, LENGTH_S * 0.7), 2)
        made = create(rng, f"r{number}")
        born.append((at_s, made["makes"], made["kind"]))
        steps.append(Step(at_s, "request", made))
    for _ in range(rng.randint(3, 7)):
        steps += _ask(rng, born, 1)
    for _ in range(rng.randint(0, 2)):
        # contradicting wishes about one replica, in one moment
        steps += _ask(rng, born, rng.randint(2, 4))
    # the first in turn, so that a few seeds in a row have used every fault
    names = [list(FAULTS)[seed % len(FAULTS)]]
    # one that has its bait is alone: others would keep it from being taken
    for _ in range(0 if _bait_of(FAULTS[names[0]]) else rng.randint(1, MOST_FAULTS) - 1):
        left = {name: fault.weight for name, fault in FAULTS.items() if name not in names}
        names += rng.choices(list(left), list(left.values()))
    for name in names:
        # a failpoint waits for somebody to come by: it is set early
        fault = FAULTS[name]
        at_s = round(rng.uniform(0, LENGTH_S * (0.6 if isinstance(fault, ArmPoint) else 0.9)), 2)
        steps.append(Step(at_s, name, fault.draw(rng)))
        steps += [Step(round(at_s + after_s, 2), "request", act) for after_s, act in _bait_of(fault)]
    return sorted([*steps, *_rare(seed), *_door(seed, born), *_services(seed)], key=lambda step: step.at_s)


def _bait_of(fault: Fault) -> Sequence[tuple[float, Mapping[str, Any]]]:
    return fault.bait if isinstance(fault, ArmPoint) else ()


def _rare(seed: int) -> list[Step]:
    # of chances of its own, so that a new one changes no seed of CI
    rng = random.Random(f"hostler rare faults {seed}")
    if seed <= CI_SEEDS or rng.random() > RARE_SHARE:
        return []
    name = rng.choices(list(RARE), [fault.weight for fault in RARE.values()])[0]
    return [Step(round(rng.uniform(0, LENGTH_S), 2), name, RARE[name].draw(rng))]


def _door(seed: int, born: list[tuple[float, str, str]]) -> list[Step]:
    # of chances of its own too: what is asked of models, and what breaks between them and who asks
    rng = random.Random(f"hostler door faults {seed}")
    steps = [Step(at_s, "ask", act) for at_s, act in asks(seed, born, LENGTH_S)]
    name = list(DOOR)[seed % len(DOOR)]
    if rng.random() < DOOR_SHARE:
        fault = DOOR[name]
        at_s = round(rng.uniform(0, LENGTH_S * 0.7), 2)
        steps.append(Step(at_s, name, fault.draw(rng)))
        steps += [Step(round(at_s + after_s, 2), "request", act) for after_s, act in _bait_of(fault)]
    return steps


def _services(seed: int) -> list[Step]:
    # and these: what is asked of services, and what breaks while they are brought on
    rng = random.Random(f"hostler service breaks {seed}")
    steps = [Step(at_s, what, act) for at_s, what, act in services(seed, LENGTH_S)]
    name = list(SERVICES)[seed % len(SERVICES)]
    if rng.random() < SERVICE_SHARE:
        fault = SERVICES[name]
        at_s = round(rng.uniform(0, LENGTH_S * 0.6), 2)
        steps.append(Step(at_s, name, fault.draw(rng)))
        steps += [Step(round(at_s + after_s, 2), "request", act) for after_s, act in _bait_of(fault)]
    return steps


def _ask(rng: random.Random, born: list[tuple[float, str, str]], count: int) -> list[Step]:
    began_s, name, kind = rng.choice(born)
    at_s = min(LENGTH_S, began_s + rng.choice((0.02, 0.1, 0.3, 0.8, 1.5)) + rng.random() * 0.3)
    steps = []
    for act in rng.choices(list(ACTS), [weight for weight, _ in ACTS.values()], k=count):
        drawn = ACTS["stop" if act == "restart" and kind in PATIENT else act][1](rng, name)
        steps.append(Step(round(at_s + rng.random() * 0.03, 3), "request", drawn))
    return steps


def told(steps: list[Step]) -> str:
    """For people, one line each."""
    return "\n".join(step.line() for step in steps)


def as_json(steps: list[Step]) -> str:
    return json.dumps([{"at_s": step.at_s, "what": step.what, **step.arguments} for step in steps])
