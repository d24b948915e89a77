"""``plan``: a planning pass over 3,000 replicas of 1,000 services, beside one over 300: each costs the same in both.

Pure computation, so no stack is started. Each pass asks for what is most work: a third of the services is settled, a
third is in the middle of an update, a third replaces what failed. Beside it one service of 3,000 replicas, whose plan
must not cost the square of one of 300.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence

from app.domain.lifecycle import Reason, State
from app.domain.services import Desired, Observed, plan
from benchmarks.result import Result, alternate, joined, result

REPLICAS, FLOOR_REPLICAS = 3000, 300
PER_SERVICE = 3
NOW = 1_000_000.0
#: Replicas planned in one sample, whatever the size: both sides take as long where the cost is linear.
WORK = 30_000
GOAL = "linear: per replica <= 1.5x"
LIMIT = 1.5

Service = tuple[Desired, Sequence[Observed]]


def run(rounds: int) -> Result:
    many = _measure("plan", rounds, lambda replicas: [_service(n, PER_SERVICE) for n in range(replicas // PER_SERVICE)])
    one = _measure("plan, one service", rounds, lambda replicas: [_service(1, replicas)])
    return joined("plan", [many, one])


def _measure(name: str, rounds: int, made: Callable[[int], list[Service]]) -> Result:
    large, small = made(REPLICAS), made(FLOOR_REPLICAS)
    _per_replica_us(small)
    pair = alternate(lambda: _per_replica_us(large), lambda: _per_replica_us(small), rounds)
    return result(
        name,
        pair,
        unit="us/replica",
        goal=GOAL,
        ok=pair.ratio <= LIMIT,
        warmed=f"{WORK} replicas planned",
        pinned="nothing; no garbage collection inside a sample",
        load_not_the_limit="there is none: one thread that only computes",
        a_pass_ms=round(pair.medians[0] * REPLICAS / 1000, 1),
    )


def _per_replica_us(services: Sequence[Service]) -> float:
    replicas = sum(len(members) for _, members in services)
    passes = max(1, WORK // replicas)
    gc.collect()
    gc.disable()
    try:
        started = time.perf_counter()
        for _ in range(passes):
            for desired, members in services:
                plan(desired, members, NOW)
        return (time.perf_counter() - started) * 1e6 / (passes * replicas)
    finally:
        gc.enable()


def _service(number: int, size: int) -> Service:
    """Settled, in an update, or with failures, by its number."""
    kind = number % 3
    desired = Desired(size, revision=2 if kind == 1 else 1, good_revision=1)
    return desired, [_member(number, ordinal, kind) for ordinal in range(size)]


def _member(number: int, ordinal: int, kind: int) -> Observed:
    failed = kind == 2 and ordinal % PER_SERVICE == 0
    return Observed(
        replica_id=f"{number:06x}{ordinal:06x}",
        ordinal=ordinal,
        revision=2 if kind == 1 and ordinal % PER_SERVICE == 0 else 1,
        state=State.FAILED if failed else State.READY,
        created_at=NOW - 5000,
        state_since=NOW - 5.0 if failed else NOW - 4000,
        reason=Reason.PROCESS_EXITED if failed else None,
        ready_at=None if failed else NOW - 4000,
        released=failed,
        load=ordinal % 5,
    )
