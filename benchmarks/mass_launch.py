"""``mass_launch``: 1,000 mock replicas from POST to all ready, beside 1,000 no-op tasks through the same workers."""

from __future__ import annotations

import json
import time

from benchmarks import load
from benchmarks.floors.noop import Noops
from benchmarks.result import Result, alternate, result
from benchmarks.stack import Stack, stack, wait_until

COUNT = 1000
WISH = {"server_mode": "replica_mock", "model_name": "bench", "pool": "mock", "wait_for_ready": False}
GOAL = "ratio <= 4"


def run(rounds: int) -> Result:
    with stack() as ours:
        noops = Noops(ours, "pool.mock")
        _launch(ours, 20, 0)
        noops.publish(50)
        noops.wait_done()
        serial = iter(range(1000, 10**9, COUNT))

        def floor() -> float:
            noops.wait_done()  # bells to which there is nothing left to do
            started = time.perf_counter()
            noops.publish(COUNT)
            noops.wait_done()
            return time.perf_counter() - started

        pair = alternate(lambda: _launch(ours, COUNT, next(serial)), floor, rounds)
        noops.close()
    return result(
        "mass_launch",
        pair,
        unit="s",
        goal=GOAL,
        ok=pair.ratio <= 4,
        warmed="20 replicas, 50 no-op tasks",
        pinned="nothing",
        load_not_the_limit="1,000 requests of a generator that makes tens of thousands a second",
    )


def _launch(ours: Stack, count: int, serial: int) -> float:
    """Seconds until ``count`` more replicas are ready. They stay: nothing runs for them."""
    api = ours.api
    before = api.count(status="ready")
    spec = load.Spec(
        port=ours.port,
        method="POST",
        path="/api/v1/replicas",
        headers={"Content-Type": "application/json", "X-API-Key": ours.key, "Idempotency-Key": f"m-{load.SERIAL}"},
        body=json.dumps({**WISH, "run_diagnostics": False}),
        connections=16,
        requests=count,
        seconds=60,
        serial=serial,
    )
    started = time.perf_counter()
    report = load.run(spec)
    if report.statuses != {"202": count}:
        raise RuntimeError(f"the creates answered {report.statuses}")
    wait_until(lambda: api.count(status="ready") >= before + count, 240, f"{count} replicas ready", every_s=0.02)
    return time.perf_counter() - started
