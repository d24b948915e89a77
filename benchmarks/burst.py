"""``burst``: 10 and 50 llama.cpp replicas at once, POST to last ready, beside ``Popen`` of as many."""

from __future__ import annotations

import time

from benchmarks.creates import create_many
from benchmarks.engines import forget, llama_program, llama_wish, model_path
from benchmarks.floors.popen import until_ready
from benchmarks.result import Result, alternate, joined, result
from benchmarks.stack import Stack, stack, wait_until

SIZES = (10, 50)
GOAL = "ratio <= 2.5"


def run(rounds: int) -> Result:
    with stack() as ours:
        model_path(ours)
        _burst(ours, 2)
        until_ready([llama_program(ours)])
        return joined("burst", [_measure(ours, size, rounds) for size in SIZES])


def _measure(ours: Stack, size: int, rounds: int) -> Result:
    pair = alternate(
        lambda: _burst(ours, size), lambda: 1000 * until_ready([llama_program(ours) for _ in range(size)]), rounds
    )
    return result(
        f"burst {size}",
        pair,
        unit="ms",
        goal=GOAL,
        ok=pair.ratio <= 2.5,
        warmed="two replicas on our side, one program on the floor's",
        pinned="nothing; one compute thread per engine on both sides",
        load_not_the_limit=f"{size} requests in all",
    )


def _burst(ours: Stack, size: int) -> float:
    """Milliseconds from the first POST until the last replica is ready; then they are put away."""
    api = ours.api
    started = time.perf_counter()
    ids = create_many(ours, llama_wish(), size)
    wait_until(lambda: api.count(status="ready") >= size, 120, f"{size} replicas ready")
    took = time.perf_counter() - started
    forget(api, ids)
    return took * 1000
