"""``reconcile``: 1,000 services of 3 mock replicas from POST to all ready, beside 3,000 no-op tasks through the same
workers; then what a look at a settled service costs when there are 1,000, beside 100."""

from __future__ import annotations

import json
import time

import psycopg

from app.usecases import reconciling
from benchmarks import load
from benchmarks.floors.noop import Noops
from benchmarks.result import Result, alternate, joined, result
from benchmarks.stack import Stack, stack, wait_until
from workers.bootstrap import Runtime

SERVICES, PER_SERVICE = 1000, 3
FEW = 100
WISH = {"recipe_name": "inference/mock", "pool": "mock", "replicas": PER_SERVICE}
GOAL = "ratio <= 4"
LOOK_GOAL = "a look at 1,000 <= 1.5x one at 100, each"
LIMIT_S = 240


def run(rounds: int) -> Result:
    with stack() as ours:
        noops = Noops(ours, "pool.mock")
        _launch(ours, 10, 0)
        noops.publish(50)
        noops.wait_done()
        looks = _looks(ours, rounds)
        serial = iter(range(1000, 10**9, SERVICES))

        def floor() -> float:
            noops.wait_done()  # bells to which there is nothing left to do
            started = time.perf_counter()
            noops.publish(SERVICES * PER_SERVICE)
            noops.wait_done()
            return time.perf_counter() - started

        pair = alternate(lambda: _launch(ours, SERVICES, next(serial)), floor, rounds)
        noops.close()
    launched = result(
        "reconcile",
        pair,
        unit="s",
        goal=GOAL,
        ok=pair.ratio <= 4,
        warmed="10 services, 50 no-op tasks",
        pinned="nothing",
        load_not_the_limit="1,000 requests of a generator that makes tens of thousands a second",
    )
    return joined("reconcile", [launched, looks])


def _looks(ours: Stack, rounds: int) -> Result:
    """Milliseconds that a look at one settled service takes, in this process, when all are due."""
    _launch(ours, SERVICES - 10, 10**6)
    runtime = Runtime(ours.settings, "bench")
    try:
        pair = alternate(
            lambda: _look_ms(ours, runtime, SERVICES), lambda: _look_ms(ours, runtime, FEW), max(3, rounds)
        )
    finally:
        runtime.ctx.close()
    return result(
        "reconcile, looks",
        pair,
        unit="ms/service",
        goal=LOOK_GOAL,
        ok=pair.ratio <= 1.5,
        warmed="the services were reconciled when they were made",
        pinned="nothing; the stack's agent looks at its own pace beside",
        load_not_the_limit="there is none: one thread looks",
    )


def _look_ms(ours: Stack, runtime: Runtime, count: int) -> float:
    """All services are put off, ``count`` are due: what a sweep over them takes, each."""
    with psycopg.connect(ours.database_url, autocommit=True) as connection:
        connection.execute("UPDATE services SET look_at = hostler_now() + interval '30 seconds'")
        connection.execute(
            "UPDATE services SET look_at = hostler_now() - interval '1 second'"
            " WHERE id IN (SELECT id FROM services ORDER BY id LIMIT %s)",
            (count,),
        )
        started = time.perf_counter()
        looked = reconciling.sweep(runtime.ctx)
        took = time.perf_counter() - started
    if not looked:
        raise RuntimeError("the stack's agent was there first: no service was due")
    return 1000 * took / looked


def _launch(ours: Stack, count: int, serial: int) -> float:
    """Seconds until ``count`` more services have all their replicas. They stay: nothing runs for them."""
    api = ours.api
    before, wanted = api.count(status="ready"), count * PER_SERVICE
    spec = load.Spec(
        port=ours.port,
        method="POST",
        path="/api/v1/services",
        headers={"Content-Type": "application/json", "X-API-Key": ours.key, "Idempotency-Key": f"s-{load.SERIAL}"},
        body=json.dumps(WISH),
        connections=16,
        requests=count,
        seconds=120,
        serial=serial,
    )
    started = time.perf_counter()
    report = load.run(spec)
    if report.statuses != {"202": count}:
        raise RuntimeError(f"the creates answered {report.statuses}")
    wait_until(lambda: api.count(status="ready") >= before + wanted, LIMIT_S, f"{wanted} replicas ready", every_s=0.02)
    return time.perf_counter() - started
