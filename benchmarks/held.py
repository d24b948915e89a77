"""``held``: 10,000 mock replicas held and swept by one small stack, beside the same stack with 1,000.

They are created over the API, 1,000 at once at a time: none may be lost, none doubled. Then they are only held, and
what that costs is counted: processor time of our processes and of Postgres, and how old the look at the oldest is.
"""

from __future__ import annotations

import json
import os
import sys
import time
from itertools import count

import psutil
import psycopg

from benchmarks import load
from benchmarks.result import Result, joined
from benchmarks.stack import Stack, stack, wait_until

LARGE, SMALL, BATCH = 10_000, 1_000, 1_000
WINDOW_S = 20.0
GOAL = "all ready, each once; looked at within 30 s; at most one core in all"
ORDER_GOAL = "each accepted and carried out once, the urgent first"
WISH = {"server_mode": "replica_mock", "model_name": "bench", "pool": "mock", "wait_for_ready": False}
OLDEST = "SELECT extract(epoch FROM now() - min((last_health->>'at')::timestamptz)) FROM replicas WHERE state = 'ready'"
#: Of the creates that waited together: how many were claimed after one that is less urgent. Workers claim side by side,
#: so that neighbours may change places.
OVERTAKEN = """
SELECT count(*) FROM (
    SELECT priority, max(priority) OVER (ORDER BY started_at ROWS BETWEEN UNBOUNDED PRECEDING AND %s PRECEDING) AS worst
    FROM tasks WHERE kind = 'create'
) AS claimed WHERE priority < worst
"""
ONCE = """
SELECT count(*), count(DISTINCT t.replica_id), coalesce(sum((SELECT count(*) FROM attempts a
    WHERE a.replica_id = t.replica_id)), 0)::bigint FROM tasks t WHERE t.kind = 'create' AND t.state = 'succeeded'
"""
SIDE_BY_SIDE = 16


def run(rounds: int) -> Result:
    with stack(HOSTLER_MAX_QUEUED_PER_POOL="100000") as ours:
        thunder = _thunder(ours)
        print(f"held: {thunder.to_json()}", file=sys.stderr, flush=True)
        small = _held(ours, SMALL)
        print(f"held: {small}", file=sys.stderr, flush=True)
        _fill(ours, LARGE)
        large = _held(ours, LARGE)
    ok = large["cores"] <= 1 and large["oldest_look_s"] <= 30 and bool(large["once"])
    part = Result(
        "held", large["cores"], small["cores"], large["cores"] / small["cores"], GOAL, ok, "cores", 1, {**large}
    )
    return joined("held", [part, thunder])


def _thunder(ours: Stack) -> Result:
    """1,000 creates of all priorities at once, while the pool is drained; then it is opened."""
    api = ours.api
    api.must(200, "POST", "/api/v1/pools/mock/drain")
    started = time.perf_counter()
    reports = [_send(ours, BATCH // 4, priority) for priority in ("p3", "p1", "p2", "p0")]
    accepted_s = time.perf_counter() - started
    api.must(200, "POST", "/api/v1/pools/mock/resume")
    wait_until(lambda: api.count(status="ready") == BATCH, 240, f"{BATCH} replicas ready", every_s=0.1)
    took = time.perf_counter() - started
    with psycopg.connect(ours.database_url, autocommit=True) as database:
        tasks, replicas, attempts = _row(database, ONCE)
        (overtaken,) = _row(database, OVERTAKEN % SIDE_BY_SIDE)
    notes = {
        "accepted_s": round(accepted_s, 2),
        "p99_ms": max(report.p99_ms for report in reports),
        "succeeded": tasks,
        "replicas": replicas,
        "attempts": attempts,
        "claimed_after_a_less_urgent_one": overtaken,
    }
    ok = tasks == replicas == attempts == BATCH and not overtaken
    return Result("thundering", took, accepted_s, took / accepted_s, ORDER_GOAL, bool(ok), "s", 1, notes)


_serial = count(10_000, 100_000)


def _fill(ours: Stack, wanted: int) -> None:
    api = ours.api
    while (ready := api.count(status="ready")) < wanted:
        number = min(BATCH, wanted - ready)
        _send(ours, number, "p2")
        print(f"held: {ready} ready", file=sys.stderr, flush=True)
        wait_until(lambda: api.count(status="ready") >= ready + number, 240, f"{number} more ready", every_s=0.2)  # noqa: B023


def _send(ours: Stack, number: int, priority: str) -> load.Report:
    body = {**WISH, "run_diagnostics": False, "job": {"job_priority": priority}}
    spec = load.Spec(
        port=ours.port,
        method="POST",
        path="/api/v1/replicas",
        headers={"Content-Type": "application/json", "X-API-Key": ours.key, "Idempotency-Key": f"h-{load.SERIAL}"},
        body=json.dumps(body),
        connections=64,
        requests=number,
        seconds=120,
        serial=next(_serial),
    )
    report = load.run(spec)
    if report.statuses != {"202": number}:
        raise RuntimeError(f"the creates answered {report.statuses}")
    return report


def _held(ours: Stack, number: int) -> dict[str, float]:
    time.sleep(5)
    before, started = _processor_s(ours), time.perf_counter()
    time.sleep(WINDOW_S)
    after, took = _processor_s(ours), time.perf_counter() - started
    with psycopg.connect(ours.database_url, autocommit=True) as database:
        (oldest,) = _row(database, OLDEST)
        tasks, replicas, attempts = _row(database, ONCE)
    spent = {role: round((after[role] - before.get(role, 0)) / took, 3) for role in after}
    return {
        "replicas": number,
        "cores": round(sum(spent.values()), 3),
        **{f"cores {role}": one for role, one in sorted(spent.items())},
        "oldest_look_s": round(float(oldest or 0), 1),
        "once": tasks == replicas == attempts == number,
        "agent_mib": round(sum(psutil.Process(pid).memory_info().rss for pid in ours.pids("agent")) / 2**20, 1),
        "of_cores": os.cpu_count() or 1,
    }


def _processor_s(ours: Stack) -> dict[str, float]:
    found: dict[str, float] = {}
    for row in ours.processes():
        try:
            times = psutil.Process(int(row["pid"])).cpu_times()
        except psutil.NoSuchProcess:
            # a worker's child that was replaced just now
            continue
        found[row["role"]] = found.get(row["role"], 0.0) + times.user + times.system
    return found


def _row(database: psycopg.Connection, query: str) -> tuple[int, ...]:
    row = database.execute(query.encode()).fetchone()
    assert row is not None
    return tuple(row)
