"""Attempts that share a job: what is sealed for it, and what is so of each."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.domain.lifecycle import Reason
from workers.backends.base import Liveness
from workers.backends.slurm_queue import QueuedJob
from workers.backends.slurm_seal import opened, public_of, sealed_for
from workers.backends.slurm_seats import NUMBER_LATER, Seats, waiting_by_mark
from workers.backends.slurm_verdict import observe

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SHARED = "hostler-x-shared-abc-0"
SEAT = {
    "share": "abc-0", "job_name": SHARED, "nonce": "beef", "seat": 1, "of": 4, "at": NOW.timestamp() - 100,
    "launch": "f00d",
}  # fmt: skip
RUN = {"job_id": "7", "restarts": 0, "node": "n1", "host": "10.0.0.1", "port": 20000, "pid": 5, "owns_port": True}
END = {"restarts": 0, "exit_code": 3, "signal": None, "oom": False, "pid": 5, "left": 0, "own": True, "ended_at": 1.0}


def job(state: str, **more: Any) -> QueuedJob:
    fields = {"start": NOW - timedelta(hours=1), "nodes": "n1", "comment": f"hostler:{SHARED}:beef"} | more
    return QueuedJob("7", SHARED, state=state, **fields)


def seen(*jobs: QueuedJob, answers: bool = True, **records: Any) -> Any:
    attempt = {
        "there": True,
        "launch": {"nonce": "f00d"},
        "job": {"job_id": "7"},
        "seat": SEAT,
        "began": True,
        **records,
    }
    return observe("hostler-x-r-1", attempt, list(jobs) if answers else None, silence="no answer", now=NOW)


def test_what_is_sealed_is_opened_by_the_jobs_key_alone() -> None:
    sealed = sealed_for(public_of(b"key"), b"content", "about")
    assert opened(b"key", sealed, "about") == b"content"
    assert opened(b"other", sealed, "about") != b"content"
    assert opened(b"key", sealed, "another") != b"content"
    assert sealed != sealed_for(public_of(b"key"), b"content", "about"), "no pad is used twice"


def test_it_runs_where_it_told() -> None:
    found = seen(job("RUNNING"), run=RUN, owner={"job_id": "7"})
    assert (found.liveness, found.host, found.port) == (Liveness.RUNNING, "10.0.0.1", 20000)
    assert (found.told["job_id"], found.told["seat"], found.told["seats"]) == ("7", 2, 4)


def test_somebody_elses_job_of_that_name_proves_nothing() -> None:
    assert seen(job("RUNNING", comment="hostler:x:y"), run=RUN).liveness is Liveness.RUNNING, "by its id"
    other = QueuedJob("8", SHARED, state="RUNNING", comment=f"hostler:{SHARED}:other")
    assert seen(other, run=RUN).liveness is Liveness.LOST


def test_one_that_came_to_a_running_job_is_being_started_for_a_while() -> None:
    fresh = SEAT | {"at": NOW.timestamp() - 5}
    assert seen(job("RUNNING"), seat=fresh).liveness is Liveness.QUEUED
    assert seen(job("RUNNING")).liveness is Liveness.RUNNING


@pytest.mark.parametrize(
    "jobs",
    [
        [job("RUNNING")],
        [job("PENDING", restarts=1)],
        [job("CANCELLED")],
        [job("TIMEOUT")],
        [],
        [job("RUNNING", restarts=2)],
    ],
)
def test_an_end_of_its_own_is_that_whatever_becomes_of_the_job(jobs: list[QueuedJob]) -> None:
    found = seen(*jobs, run=RUN, exit=END, over={"by": "job"})
    assert (found.liveness, found.exit_code, found.reason) == (Liveness.EXITED, 3, None)
    assert found == seen(answers=False, run=RUN, exit=END, over={"by": "job"})


def test_an_end_that_the_supervisor_did_not_see_through_is_not_told_yet() -> None:
    assert seen(job("RUNNING"), run=RUN, exit=END).liveness is Liveness.UNKNOWN
    assert seen(job("RUNNING"), run=RUN, exit=END, stop={}).liveness is Liveness.LINGERING


@pytest.mark.parametrize(
    "state, reason",
    [("CANCELLED", Reason.CANCELLED), ("TIMEOUT", Reason.WALLTIME), ("PREEMPTED", Reason.PREEMPTED),
     ("NODE_FAIL", Reason.NODE_LOST)],
)  # fmt: skip
def test_the_end_of_the_job_is_each_ones(state: str, reason: Reason) -> None:
    ended = END | {"own": False, "exit_code": None, "signal": 15}
    found = seen(job(state), run=RUN, exit=ended, over={"at": 1.0}, owner={"job_id": "7"})
    assert (found.liveness, found.reason) == (Liveness.EXITED, reason)


def test_one_that_was_stopped_while_its_job_waited_has_ended() -> None:
    for jobs in ([job("PENDING")], [job("RUNNING")], []):
        found = seen(*jobs, stop={}, over={"by": "stop"})
        assert (found.liveness, found.reason) == (Liveness.EXITED, None)
        assert "queued" in found.message


def test_which_jobs_wait_is_told_by_their_marks() -> None:
    line = "7  PENDING 0 N/A n1 0 None hostler-x-r-2 hostler:hostler-x-r-2:f00d n1"
    other = "8  RUNNING 0 N/A n1 0 None hostler-x-r-2 hostler:hostler-x-r-2:f00d n1"
    found = waiting_by_mark({"form": "fixed", "text": f"{line}\n{other}\n"})
    comment = "hostler:hostler-x-r-2:f00d"
    states = {7: ["PENDING"], 8: ["RUNNING"], 9: ["PENDING", "COMPLETING"]}
    as_json = [{"job_id": job, "comment": comment, "job_state": state} for job, state in states.items()]
    assert found == waiting_by_mark({"form": "json", "text": "", "jobs": as_json}) == {comment: {"7"}}


class _Raced(Seats):
    """Another launcher makes a job while this one looks for a seat."""

    looks = 0

    def joined(self, folder: str, request: dict[str, Any]) -> Any:
        self.looks += 1
        if self.looks == 1:
            os.makedirs(os.path.join(self.root, ".shared", "abc-0", "seats"))
        return None if self.looks == 1 else "7"


def test_a_job_that_another_launcher_makes_meanwhile_is_looked_at_before_there_is_one_more(tmp_path: Path) -> None:
    plan = {"nonce": "beef", "job_name": f"x-shared-abc-{NUMBER_LATER}", "public": public_of(b"key"), "seats": 2}
    share = {"key": "abc", "plan": plan, "opens": "its key", "files": {}, "script": ""}
    request = {"name": "x-1", "folder": str(tmp_path), "timeout_s": 5, "deadline_s": 1e12, "share": share}
    folder = tmp_path / "x-1"
    folder.mkdir()
    (folder / "launch.json").write_text('{"name": "x-1", "nonce": "f00d", "share": "abc"}')
    there = _Raced(request)
    assert there.submit(str(folder), request, -1) == {"job_id": "7"}
    assert os.listdir(tmp_path / ".shared") == ["abc-0"]
