"""``task``: tasks/s of one worker process that claims, loads and applies one transition, beside no-op tasks on it.

The verb is a stop of a mock replica: one transition (stopping -> stopped) and nothing outside to wait for. All messages
are there before the clock starts: the worker is held with SIGSTOP meanwhile, so publishing costs neither side.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator

import psutil
import psycopg

from benchmarks.creates import create_many
from benchmarks.floors.noop import Noops
from benchmarks.result import Result, alternate, result
from benchmarks.stack import Stack, stack, wait_until

COUNT = 300
WISH = {"server_mode": "replica_mock", "model_name": "bench", "pool": "mock"}
GOAL = "ratio >= 0.5"


def run(rounds: int) -> Result:
    with stack(HOSTLER_CONTROL_CONCURRENCY="1") as ours:
        noops = Noops(ours, "pool.mock.control")
        _stop_all(ours, 20)
        noops.publish(50)
        noops.wait_done()

        def floor() -> float:
            noops.wait_done()  # bells of the stops before, to which there is nothing left to do
            with _held(ours):
                noops.publish(COUNT)
            started = time.perf_counter()
            noops.wait_done()
            return COUNT / (time.perf_counter() - started)

        def mine() -> float:
            noops.wait_done()
            return _stop_all(ours, COUNT)

        pair = alternate(mine, floor, rounds)
        noops.close()
    return result(
        "task",
        pair,
        unit="tasks/s",
        goal=GOAL,
        ok=pair.ratio >= 0.5,
        tasks_per_round=COUNT,
        warmed="20 stops, 50 no-op tasks",
        pinned="nothing; one worker process (HOSTLER_CONTROL_CONCURRENCY=1)",
        load_not_the_limit="all tasks wait before the worker is let go",
    )


def _stop_all(ours: Stack, count: int) -> float:
    """Stops per second of ``count`` ready replicas, all asked for before the worker may begin."""
    ids = create_many(ours, WISH, count)
    api = ours.api
    wait_until(lambda: api.count(status="ready") >= count, 120, f"{count} replicas ready", every_s=0.05)
    with psycopg.connect(ours.database_url, autocommit=True) as database:
        with _held(ours):
            for replica_id in ids:
                api.must(202, "POST", f"/api/v1/replicas/{replica_id}/stop", {})
        started = time.perf_counter()
        query = "SELECT count(*) FROM tasks WHERE kind = 'stop' AND state IN ('queued', 'running')"

        def all_done() -> bool:
            row = database.execute(query).fetchone()
            return row is not None and row[0] == 0

        wait_until(all_done, 120, f"{count} stops are done")
    return count / (time.perf_counter() - started)


@contextlib.contextmanager
def _held(ours: Stack) -> Iterator[None]:
    """The control worker stands still meanwhile. It holds no task: none was there."""
    processes = [psutil.Process(pid) for pid in ours.pids("worker-control")]
    if not processes:
        raise RuntimeError("status shows no worker-control")
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGCONT)
