"""``death``: an engine is killed with SIGKILL; how long until the API says failed, beside a bare parent's ``wait``."""

from __future__ import annotations

import os
import signal
import statistics
import time

from benchmarks.engines import forget, llama_program, llama_wish, model_path
from benchmarks.floors.popen import until_seen_dead
from benchmarks.result import Result, alternate, result
from benchmarks.stack import Stack, stack, wait_until

LIMIT_MS = 250.0
DEATHS = 3


def run(rounds: int) -> Result:
    with stack() as ours:
        model_path(ours)
        _death(ours)
        pair = alternate(
            lambda: statistics.median(_death(ours) for _ in range(DEATHS)),
            lambda: 1000 * statistics.median(until_seen_dead(llama_program(ours)) for _ in range(DEATHS)),
            rounds,
        )
    return result(
        "death",
        pair,
        unit="ms",
        goal=f"ours <= {LIMIT_MS:g} ms",
        ok=pair.medians[0] <= LIMIT_MS,
        deaths_per_round=DEATHS,
        warmed="one death",
        pinned="nothing",
        load_not_the_limit="one client asks every 2 ms",
    )


def _death(ours: Stack) -> float:
    """Milliseconds from SIGKILL of the engine's own process until GET says failed, with its reason."""
    api = ours.api
    replica_id = api.create(llama_wish(), prefer="wait=60")
    seen = api.replica(replica_id)
    if seen["status"] != "ready":
        raise RuntimeError(f"the replica is {seen['status']}: {seen['message']}")
    pid = engine_pid(ours, int(seen["port"]))
    started = time.perf_counter()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: api.replica(replica_id)["status"] == "failed", 60, "the death is seen", every_s=0.002)
    took = time.perf_counter() - started
    reason = api.replica(replica_id)["reason"]
    if reason != "process_exited":
        raise RuntimeError(f"the reason is {reason}")
    forget(api, [replica_id])
    return took * 1000


def engine_pid(ours: Stack, port: int) -> int:
    """The process that listens there, as our own status tells."""
    for row in ours.processes():
        if any(place.endswith(f":{port}") for place in row["listen"]):
            return int(row["pid"])
    raise RuntimeError(f"status shows nobody that listens on port {port}")
