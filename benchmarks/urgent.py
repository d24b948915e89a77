"""``urgent``: how long a stop waits to be started behind 1,000 queued creates, beside one in a pool without any."""

from __future__ import annotations

import statistics
from datetime import datetime

from benchmarks.creates import create_many
from benchmarks.result import Result, alternate, result
from benchmarks.stack import Api, stack, wait_until

QUEUED = 1000
SLOTS = 4
STOPS = 10
GOAL = "p50 ratio <= 3"


def run(rounds: int) -> Result:
    with stack() as ours:
        api = ours.api
        for name in ("busy", "idle"):
            api.must(201, "POST", "/api/v1/pools", {"name": name, "backend": "mock", "slots": SLOTS})
        create_many(ours, _wish("busy"), QUEUED + SLOTS)
        _ready_one(api, "busy")
        for name in ("busy", "idle"):
            _stop_one(api, name)
        pair = alternate(lambda: _median_ms(api, "busy"), lambda: _median_ms(api, "idle"), rounds)
        left = api.count(pool="busy", status="pending")
    return result(
        "urgent",
        pair,
        unit="ms",
        goal=GOAL,
        ok=pair.ratio <= 3,
        queued_at_the_end=left,
        stops_per_round=STOPS,
        warmed="one stop on each side",
        pinned="nothing",
        load_not_the_limit="one stop at a time; times are the database's own (created_at, started_at)",
    )


def _median_ms(api: Api, pool: str) -> float:
    return statistics.median(_stop_one(api, pool) for _ in range(STOPS))


def _stop_one(api: Api, pool: str) -> float:
    """Milliseconds between the stop's acceptance and its start on a worker."""
    if pool == "idle":
        api.create(_wish(pool), prefer="wait=30")
    replica_id = _ready_one(api, pool)
    task_id = api.must(202, "POST", f"/api/v1/replicas/{replica_id}/stop", {})["task_id"]
    task = api.must(200, "GET", f"/api/v1/tasks/{task_id}?wait=30")
    if task["state"] != "succeeded":
        raise RuntimeError(f"the stop is {task['state']}: {task['message']}")
    return 1000 * (_moment(task["started_at"]) - _moment(task["created_at"]))


def _ready_one(api: Api, pool: str) -> str:
    found: list[str] = []

    def look() -> bool:
        rows = api.must(200, "GET", f"/api/v1/replicas?pool={pool}&status=ready&limit=1")["replicas"]
        found[:] = [row["replica_id"] for row in rows]
        return bool(found)

    wait_until(look, 60, f"a ready replica in {pool}")
    return found[0]


def _wish(pool: str) -> dict[str, object]:
    return {"server_mode": "replica_mock", "model_name": "bench", "pool": pool}


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
