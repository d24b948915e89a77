"""``time_to_ready``: POST to ready, beside ``Popen`` of the same command and 5 ms polling."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.engines import forget, llama_program, llama_wish, mock_program, mock_wish, model_path
from benchmarks.floors.popen import Program, until_ready
from benchmarks.result import Result, alternate, joined, result
from benchmarks.stack import Stack, stack

#: Starts per round and side; a round's number is their median.
STARTS = 5
ADDED_MS = 25.0
SLOW_S = 2.0
GOAL = f"added <= {ADDED_MS:g} ms"
SLOW_GOAL = "ratio <= 1.1"


def run(rounds: int) -> Result:
    with stack() as ours:
        model_path(ours)
        llama = _measure(ours, "time_to_ready llama-cpp", llama_wish(), lambda: llama_program(ours), rounds)
        mock = _measure(ours, "time_to_ready mock", mock_wish(), mock_program, rounds)
        slow = _measure(
            ours,
            "time_to_ready slow",
            mock_wish(startup_s=SLOW_S),
            lambda: mock_program(startup_s=SLOW_S),
            rounds,
            starts=1,
            slow=True,
        )
    return joined("time_to_ready", [llama, mock, slow])


def _measure(
    ours: Stack,
    name: str,
    wish: dict[str, Any],
    program: Callable[[], Program],
    rounds: int,
    starts: int = STARTS,
    slow: bool = False,
) -> Result:
    _create(ours, wish)  # the first publish of a process, the first read of the model
    until_ready([program()])
    pair = alternate(
        lambda: statistics.median(_create(ours, wish) for _ in range(starts)),
        lambda: 1000 * statistics.median(until_ready([program()]) for _ in range(starts)),
        rounds,
    )
    mine, floor = pair.medians
    ok = pair.ratio <= 1.1 if slow else mine - floor <= ADDED_MS
    return result(
        name,
        pair,
        unit="ms",
        goal=SLOW_GOAL if slow else GOAL,
        ok=ok,
        added_ms=round(mine - floor, 1),
        starts_per_round=starts,
        warmed="one start on each side",
        pinned="nothing",
        load_not_the_limit="one request at a time; the client only waits",
    )


def _create(ours: Stack, wish: dict[str, Any]) -> float:
    """Milliseconds from sending the create to its 201."""
    api = ours.api
    api.must(200, "GET", "/health")  # connected before the clock starts
    started = time.perf_counter()
    body = {"wait_for_ready": True, "run_diagnostics": False, **wish}
    answer = api.must(201, "POST", "/api/v1/replicas", body, Prefer="wait=60")
    took = time.perf_counter() - started
    forget(api, [answer["replica_id"]])
    return took * 1000
