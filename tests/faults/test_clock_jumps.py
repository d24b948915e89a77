"""The clock is set forward and back by an hour, the database's and that of a process: leases, looks, sweeps, deaths."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.stepper import POOL
from tests.faults.steppers import Steppers
from tests.support.crew import ROOT, Crew

HOUR_S = 3600


def test_the_database_clock_is_set_forward_under_everything(crew: Crew) -> None:
    """Every lease runs out at once under its living holder: it is fenced, and nothing is launched twice."""
    serving = crew.create(pool=POOL)
    crew.await_ready(serving)
    engine = crew.engines(serving)
    queued = crew.create(pool="silent", timeouts={"queue_timeout_s": HOUR_S * 2})
    launching = [crew.create(pool="silent", options={"launch_delay_s": 1}) for _ in range(2)]
    crew.await_that(lambda: all(crew.tasks(one)[0].phase == "launching" for one in launching), "launches under way")
    with _shifted(crew, HOUR_S):
        for replica in (queued, *launching):
            crew.await_ready(replica)
            assert list(crew.leases(replica)) == ["slot"]
            assert [task.state for task in crew.tasks(replica)] == ["succeeded"]
        later = crew.create(pool=POOL)
        crew.await_ready(later)
        _is_looked_at(crew, serving)
        assert crew.replica(serving).state == "ready"
        assert (crew.engines(serving), crew.starts(serving)) == (engine, 1)
        stop = crew.stop_replica(serving)
        assert crew.await_task(stop.task_id).state == "succeeded"
    crew.end(later, queued, *launching)


def test_the_database_clock_is_set_back_and_nobody_waits_an_hour(crew: Crew, steppers: Steppers) -> None:
    """What was to be looked at soon lies an hour ahead now: a death, a lease of a host that is gone, the next sweep."""
    with _shifted(crew, HOUR_S):
        dies, serves = crew.create(pool=POOL), crew.create(pool=POOL)
        for replica in (dies, serves):
            crew.await_ready(replica)
            _is_looked_at(crew, replica)
        crew.kill("agent")
        lost = steppers.fork("launch", call=["workers.launching:_Launch._follow", "before"], signal=signal.SIGKILL)
        lost.await_ended()
        # its host went with it: nobody can see there that it is dead
        crew.change("UPDATE tasks SET claimed_by = 'elsewhere/worker/1/1.00' WHERE replica_id = :id", id=lost.replica)
        [task] = crew.tasks(lost.replica)
        assert task.lease_token is not None
        os.kill(crew.engines(dies)[0], signal.SIGKILL)
    ticks = _ticks(crew)
    crew.start("agent")
    crew.await_heartbeat("agent")
    crew.await_that(lambda: _ticks(crew) > ticks + 1, "the sweeps to go on")
    assert crew.await_state(dies, "failed").reason in ("process_exited", "out_of_memory")
    crew.await_ready(lost.replica)
    assert (crew.starts(lost.replica), len(crew.engines(lost.replica))) == (1, 1)
    assert crew.tasks(lost.replica)[0].state == "succeeded"
    _is_looked_at(crew, serves)
    late = "SELECT 1 FROM workers WHERE heartbeat_at > hostler_now() + interval '1 minute'"
    crew.await_that(lambda: not crew.rows(late), "heartbeats of the present")
    crew.end(serves, lost.replica)


@pytest.mark.parametrize("shift_s", [-HOUR_S, HOUR_S])
def test_a_host_whose_clock_is_wrong_works_all_the_same(crew: Crew, tmp_path: Path, shift_s: int) -> None:
    """Its processes believe in another hour than the database: nobody looks dead, nothing is put off."""
    (tmp_path / "sitecustomize.py").write_text(
        f"import time\nright = time.time\ntime.time = lambda: right() + {shift_s}\n"
    )
    before = crew.create(pool=POOL)
    crew.await_ready(before)
    crew.kill("agent")
    crew.start("agent", PYTHONPATH=f"{tmp_path}:{ROOT}")
    try:
        crew.await_heartbeat("agent")
        ticks = _ticks(crew)
        replica = crew.create(pool=POOL, mock={"startup_s": 0.5})
        crew.await_ready(replica)
        assert crew.tasks(replica)[0].claims == 1
        crew.await_that(lambda: _ticks(crew) > ticks + 1, "the sweeps to go on")
        _is_looked_at(crew, before)
        os.kill(crew.engines(replica)[0], signal.SIGKILL)
        assert crew.await_released(replica).reason in ("process_exited", "out_of_memory")
    finally:
        crew.kill("agent")
        crew.start("agent")
        crew.await_heartbeat("agent")
    crew.end(before)


def _is_looked_at(crew: Crew, replica: str) -> None:
    """Somebody looks now, and finds that no look is on record."""
    crew.change("UPDATE replicas SET last_health = NULL WHERE id = :id", id=replica)
    crew.await_that(lambda: crew.replica(replica).last_health, "a look", replica_id=replica)


def _ticks(crew: Crew) -> int:
    """Sweeps that were carried out."""
    return int(crew.rows("SELECT coalesce(max(tick), 0) FROM sweeps WHERE name = 'repair'")[0][0])


@contextmanager
def _shifted(crew: Crew, by_s: int) -> Iterator[None]:
    crew.change("UPDATE clock SET shift = make_interval(secs => :by_s)", by_s=by_s)
    try:
        yield
    finally:
        crew.change("UPDATE clock SET shift = interval '0'")
