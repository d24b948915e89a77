"""The script of a seed of other places: what is asked there, and what breaks."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from tests.faults.harness.acts import Act, plain_stop
from tests.faults.harness.asks import asks
from tests.faults.harness.faults import FAULTS
from tests.faults.harness.faults.base import Fault
from tests.faults.harness.faults.points import ArmPoint
from tests.faults.harness.faults.signals import Freeze
from tests.faults.harness.places import FIRST_SEED, beneath, beside, sharing, talking
from tests.faults.harness.places.acts import draw, serving
from tests.faults.harness.places.faults import BREAKS, STANDS_ON
from tests.faults.harness.places.points import POOL_OF
from tests.faults.harness.places.pools import LONGER_S, PLACES

#: A launch there takes a second or two.
LENGTH_S = 5.0
#: Of those that break the stack itself: what is true for one host is true for others.
_OWN = ("kill", "freeze", "failpoint", "redis", "freeze-postgres")
MOST_FAULTS = 3
#: So long before something breaks an engine is made there, that nobody stops.
BEFORE_S = 2.5


def place_steps(seed: int) -> list[tuple[float, str, dict[str, Any]]]:
    """``(at_s, what, arguments)`` of every step."""
    rng = random.Random(f"hostler places {seed}")
    number = seed - FIRST_SEED
    # pools and faults in turn, so that a few seeds in a row have used them all
    steps, born = draw(rng, list(PLACES)[number % len(PLACES)], LENGTH_S)
    steps += [(at_s, "ask", act) for at_s, act in asks(seed, born, LENGTH_S)]
    faults: dict[str, Fault] = {**{name: FAULTS[name] for name in _OWN}, **BREAKS}
    names = [list(BREAKS)[number % len(BREAKS)]]
    for _ in range(rng.randint(0, MOST_FAULTS - 1)):
        left = {name: fault.weight for name, fault in faults.items() if name not in names}
        names += rng.choices(list(left), list(left.values()))
    for name in names:
        fault = faults[name]
        at_s = round(rng.uniform(0.3, LENGTH_S * (0.4 if isinstance(fault, ArmPoint) else 0.9)), 2)
        drawn = dict(fault.draw(rng))
        if isinstance(fault, (ArmPoint, Freeze)) and "for_s" in drawn:
            drawn["for_s"] = round(drawn["for_s"] + LONGER_S, 2)
        steps.append((at_s, name, drawn))
        steps += [(round(at_s + after_s, 2), "request", dict(act)) for after_s, act in _baits(fault, steps[-1][2])]
        if name in STANDS_ON:
            standing = serving(f"stands-{name}", STANDS_ON[name])
            steps.append((max(0.0, round(at_s - BEFORE_S, 2)), "request", standing))
    return steps + [one for more in (talking, beneath, beside, sharing) for one in more.draw(seed, LENGTH_S)]


def _baits(fault: Fault, arguments: Mapping[str, Any]) -> Sequence[tuple[float, Act]]:
    """Requests that make somebody come by an armed point: an engine in the pool that it is of, and its end."""
    if not isinstance(fault, ArmPoint) or fault.bait:
        return fault.bait if isinstance(fault, ArmPoint) else ()
    pool = POOL_OF.get(str(arguments["point"]).partition(".")[0])
    if pool is None:
        return ()
    return (0.05, serving("bait-point", pool)), (2.0, plain_stop("bait-point", 1))
