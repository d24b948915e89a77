"""``list``: a page of 50 with filters at 100,000 replicas, beside the same at 1,000."""

from __future__ import annotations

import psycopg

from benchmarks import load
from benchmarks.result import Result, alternate, joined, result
from benchmarks.stack import Stack, stack

LARGE, SMALL = 100_000, 1_000
REQUESTS = 200
GOAL = "ratio <= 1.5"
#: Ended replicas, because nothing sweeps those: half stopped, half failed, of ten models, four in a hundred labelled.
FILL = """
INSERT INTO replicas (id, owner, pool, backend, engine, server_mode, model_name, labels, priority, desired_state, state,
                      reason, released_at, created_at)
SELECT lpad(to_hex(g), 12, '0'), (SELECT id FROM keys LIMIT 1), 'mock', 'mock', 'mock', 'replica_mock',
       'model-' || g %% 10, CASE WHEN g %% 25 = 0 THEN '{"team": "a"}'::jsonb ELSE '{}'::jsonb END, 2, 'stopped',
       CASE WHEN g %% 2 = 0 THEN 'stopped' ELSE 'failed' END, CASE WHEN g %% 2 = 0 THEN NULL ELSE 'process_exited' END,
       now(), now() - g * interval '1 second'
FROM generate_series(1, %s) g
"""
QUERIES = {
    "all": "/api/v1/replicas?limit=50",
    "status": "/api/v1/replicas?limit=50&status=failed",
    "model and status": "/api/v1/replicas?limit=50&status=failed&model_name=model-3",
    "label": "/api/v1/replicas?limit=50&label=team%3Da",
}


def run(rounds: int) -> Result:
    with stack() as large, stack() as small:
        for side, count in ((large, LARGE), (small, SMALL)):
            with psycopg.connect(side.database_url, autocommit=True) as database:
                database.execute(FILL, (count,))
                database.execute("VACUUM ANALYZE replicas, replica_labels")
        parts = [_measure(large, small, name, path, rounds) for name, path in QUERIES.items()]
    return joined("list", sorted(parts, key=lambda part: -part.ratio))


def _measure(large: Stack, small: Stack, name: str, path: str, rounds: int) -> Result:
    for side in (large, small):
        _p50_ms(side, path)
    pair = alternate(lambda: _p50_ms(large, path), lambda: _p50_ms(small, path), rounds)
    return result(
        f"list {name}",
        pair,
        unit="ms",
        goal=GOAL,
        ok=pair.ratio <= 1.5,
        beside=f"{SMALL} replicas instead of {LARGE}",
        requests_per_round=REQUESTS,
        warmed=f"{REQUESTS} requests on each side, VACUUM ANALYZE",
        pinned="nothing",
        load_not_the_limit="one connection, one request at a time",
    )


def _p50_ms(side: Stack, path: str) -> float:
    spec = load.Spec(
        port=side.port, path=path, headers={"X-API-Key": side.key}, connections=1, requests=REQUESTS, seconds=60
    )
    report = load.run(spec)
    if set(report.statuses) != {"200"}:
        raise RuntimeError(f"{path} answered {report.statuses}")
    return report.p50_ms
