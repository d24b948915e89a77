"""What is so of an attempt, from its records and the queue."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.domain.lifecycle import Reason
from workers.backends.base import Liveness, Observation
from workers.backends.slurm_queue import QueuedJob
from workers.backends.slurm_verdict import observe

NAME = "hostler-x-abc-1"
MARK = f"hostler:{NAME}:f00d"
NOW = datetime(2026, 11, 21, 15, 0, tzinfo=UTC)
LAUNCH = {"nonce": "f00d"}
RUN = {
    "job_id": "17", "restarts": 0, "host": "10.0.0.7", "port": 20017, "pid": 99, "started_at": 1.0, "owns_port": True,
}  # fmt: skip
EXIT = {"job_id": "17", "restarts": 0, "exit_code": 3, "signal": None, "ended_at": 2.0, "left": 0, "own": True}
TERM = {"at": 2.0, "restarts": 0}


def job(state: str, **more: Any) -> QueuedJob:
    return QueuedJob(**{"id": "17", "name": NAME, "comment": MARK, "state": state, "nodes": "n1", "start": NOW} | more)


def see(*jobs: QueuedJob, answers: bool = True, accounted: QueuedJob | None = None, **records: Any) -> Observation:
    attempt = {"there": True, "launch": LAUNCH, "job": {"job_id": "17"}, **records}
    known = {"17": accounted} if accounted else {}
    return observe(NAME, attempt, list(jobs) if answers else None, silence="no answer", accounted=known, now=NOW)


def test_a_waiting_job_is_queued_and_says_why_and_when() -> None:
    seen = see(job("PENDING", why="Priority", nodes="", start=NOW + timedelta(hours=1)))
    assert seen.liveness is Liveness.QUEUED
    assert "Priority" in seen.message
    assert seen.told is not None
    assert seen.told["job_id"] == "17"
    assert seen.told["expected_start"] == "2026-11-21T16:00:00+00:00"


def test_a_running_job_is_where_it_says() -> None:
    seen = see(job("RUNNING", nodes="n[1-2]"), run=RUN)
    assert (seen.liveness, seen.host, seen.port, seen.owns_port) == (Liveness.RUNNING, "10.0.0.7", 20017, True)
    assert seen.told is not None
    assert seen.told["nodes"] == ["n1", "n2"]


def test_an_address_of_an_earlier_run_is_not_believed() -> None:
    seen = see(job("RUNNING", restarts=1), run=RUN)
    assert (seen.liveness, seen.host, seen.port) == (Liveness.QUEUED, None, None)
    again = see(job("RUNNING", restarts=1), run=RUN | {"restarts": 1, "host": "10.0.0.8"})
    assert (again.liveness, again.host) == (Liveness.RUNNING, "10.0.0.8")


def test_a_job_that_tells_nothing_for_long_is_running_all_the_same() -> None:
    assert see(job("RUNNING", start=NOW - timedelta(minutes=5))).liveness is Liveness.RUNNING


def test_a_requeued_job_is_queued_again() -> None:
    seen = see(job("PENDING", restarts=1, nodes=""), run=RUN, exit=EXIT | {"own": False}, term=TERM)
    assert seen.liveness is Liveness.QUEUED
    assert "restart 1" in seen.message


@pytest.mark.parametrize("other", [{"comment": ""}, {"comment": f"hostler:{NAME}:other"}, {"name": f"{NAME}0"}])
def test_a_job_without_our_mark_is_not_ours(other: dict[str, str]) -> None:
    assert see(job("RUNNING", id="99", **other), run=RUN).liveness is Liveness.LOST


def test_a_job_whose_comment_a_site_replaced_is_known_by_its_id() -> None:
    assert see(job("RUNNING", comment="set by policy"), run=RUN).liveness is Liveness.RUNNING


def test_its_own_word_is_the_first_source_of_its_end() -> None:
    assert see(job("FAILED", exit_code=0), exit=EXIT).message == "exited with code 3"
    assert see(exit=EXIT).liveness is Liveness.EXITED


def test_a_controller_that_does_not_answer_has_ended_nothing() -> None:
    seen = see(answers=False, run=RUN)
    assert (seen.liveness, seen.message) == (Liveness.UNKNOWN, "no answer")
    assert see(answers=False, exit=EXIT).liveness is Liveness.UNKNOWN
    assert see(answers=False, exit=EXIT | {"own": False}, term=TERM).liveness is Liveness.UNKNOWN
    # after a stop was asked for no run starts, whatever the controller would say
    assert see(answers=False, exit=EXIT, stop={"at": 1.0}).liveness is Liveness.EXITED
    assert see(answers=False, exit=EXIT | {"left": 2}, stop={"at": 1.0}).liveness is Liveness.UNKNOWN
    assert observe(NAME, {"there": False}, None, silence="no answer").liveness is Liveness.UNKNOWN


@pytest.mark.parametrize(
    "state, reason",
    [
        ("TIMEOUT", Reason.WALLTIME), ("DEADLINE", Reason.WALLTIME), ("PREEMPTED", Reason.PREEMPTED),
        ("NODE_FAIL", Reason.NODE_LOST), ("BOOT_FAIL", Reason.NODE_LOST), ("CANCELLED", Reason.CANCELLED),
        ("FAILED", None), ("COMPLETED", None),
    ],
)  # fmt: skip
def test_slurms_word_for_its_end_gives_the_reason(state: str, reason: Reason | None) -> None:
    hit = {"exit_code": None, "signal": 15, "own": False}
    assert see(job(state), exit=EXIT | hit, term=TERM).reason is reason
    assert see(job(state)).reason is reason
    assert see(accounted=job(state)).reason is reason
    assert see(job(state)).liveness is Liveness.EXITED


def test_out_of_memory_is_told() -> None:
    assert see(job("OUT_OF_MEMORY")).out_of_memory
    assert see(job("FAILED"), exit=EXIT | {"oom": True, "exit_code": None, "signal": 9}).out_of_memory


@pytest.mark.parametrize(
    "said, reason",
    [
        ("slurmstepd: error: *** JOB 17 ON n1 CANCELLED AT 2026-11-21T15:00:00 DUE TO TIME LIMIT ***", Reason.WALLTIME),
        (
            "slurmstepd: error: *** JOB 17 ON n1 CANCELLED AT 2026-11-21T15:00:00 DUE TO PREEMPTION ***",
            Reason.PREEMPTED,
        ),
        ("slurmstepd: error: *** JOB 17 ON n1 CANCELLED AT 2026-11-21T15:00:00 DUE TO NODE FAILURE", Reason.NODE_LOST),
        ("slurmstepd: error: *** JOB 17 ON n1 CANCELLED AT 2026-11-21T15:00:00 ***", Reason.CANCELLED),
    ],
)
def test_a_purged_job_is_judged_by_the_nodes_last_words(said: str, reason: Reason) -> None:
    seen = see(said=said, run=RUN)
    assert (seen.liveness, seen.reason) == (Liveness.EXITED, reason)


def test_of_the_nodes_words_the_last_count() -> None:
    runs = ["DUE TO TIME LIMIT ***", "DUE TO JOB REQUEUE ***", "***"]
    said = "\n".join(f"slurmstepd: error: *** JOB 17 ON n1 CANCELLED AT 2026-11-21T15:00:00 {how}" for how in runs)
    assert see(said=said, run=RUN).reason is Reason.CANCELLED


def test_an_end_that_slurm_told_is_one_when_slurm_has_forgotten_it() -> None:
    """Else what was seen to end is a leak again, which nobody can remove."""
    over = {"at": 1.0, "boot_id": "b", "now_s": 1.0}
    assert see(run=RUN, over=over).liveness is Liveness.EXITED
    assert see(run=RUN, over=over, alive_s=5.0).liveness is not Liveness.EXITED, "its program is still at work"


def test_gone_without_a_word_is_lost() -> None:
    seen = see(run=RUN)
    assert seen.liveness is Liveness.LOST
    assert "17" in seen.message


def test_what_we_asked_for_is_nobody_elses_doing() -> None:
    asked = {"stop": {"at": 1.0}}
    for state in ("CANCELLED", "TIMEOUT", "PREEMPTED"):
        assert see(job(state), exit=EXIT, **asked).reason is None
    assert see(**asked).liveness is Liveness.EXITED
    seen = see(job("CANCELLED"), exit=EXIT | {"exit_code": None, "signal": 15}, **asked)
    assert seen.message == "killed by SIGTERM, as asked"


def test_leftovers_and_a_job_that_is_still_being_cleared_are_not_gone() -> None:
    seen = see(job("RUNNING"), run=RUN, exit=EXIT | {"left": 2}, ended_before=0)
    assert seen.liveness is Liveness.LINGERING
    assert "2 processes are left" in seen.message
    assert see(job("FAILED", completing=True), exit=EXIT).liveness is Liveness.LINGERING
    assert see(job("COMPLETING", completing=True), stop={"at": 1.0}).liveness is Liveness.LINGERING


def test_while_slurm_ends_a_run_nobody_can_say_whether_there_will_be_another() -> None:
    assert see(job("COMPLETING", completing=True), run=RUN, term=TERM).liveness is Liveness.UNKNOWN
    assert see(job("RUNNING"), run=RUN, exit=EXIT | {"own": False}, term=TERM).liveness is Liveness.UNKNOWN


@pytest.mark.parametrize("left", [0, 2])
def test_an_end_that_slurm_was_not_asked_after_may_be_followed_by_another_run(left: int) -> None:
    """An engine may end by a requeue before its keeper hears of it; Slurm knows of the requeue before that."""
    ended = EXIT | {"exit_code": 0, "left": left}
    for earlier in ({}, {"ended_before": None}):
        assert see(job("RUNNING"), run=RUN, exit=ended, **earlier).liveness is Liveness.UNKNOWN
    assert see(job("PENDING", completing=True), run=RUN, exit=ended, ended_before=0).liveness is Liveness.UNKNOWN
    assert see(job("COMPLETING", completing=True), run=RUN, exit=ended).liveness is Liveness.UNKNOWN
    assert see(job("PENDING"), run=RUN, exit=ended).liveness is Liveness.QUEUED
    assert see(job("COMPLETED"), run=RUN, exit=ended).liveness is Liveness.EXITED


def test_how_an_earlier_run_ended_says_nothing_of_the_next() -> None:
    ended = EXIT | {"exit_code": 0, "left": 2}
    for state in ("PENDING", "CONFIGURING", "RUNNING"):
        assert see(job(state, restarts=1), run=RUN, exit=ended, term=TERM, ended_before=0).liveness is Liveness.QUEUED
    again = see(job("RUNNING", restarts=1), run=RUN | {"restarts": 1}, exit=ended, term=TERM, ended_before=0)
    assert (again.liveness, again.port) == (Liveness.RUNNING, 20017)
    # the node of the first run comes back and writes late
    assert see(run=RUN | {"restarts": 1}, exit=ended, term=TERM).liveness is Liveness.LOST


def test_a_run_that_slurm_could_not_begin_does_not_end_as_the_one_before_it() -> None:
    seen = see(job("FAILED", restarts=1, exit_code=1), run=RUN, exit=EXIT | {"exit_code": 0, "own": False}, term=TERM)
    assert (seen.liveness, seen.exit_code) == (Liveness.EXITED, 1)
    assert "before its run 2 began" in seen.message


@pytest.mark.parametrize(
    "how, reason",
    [({"exit_code": 3}, None), ({"exit_code": 0}, Reason.CANCELLED), ({"exit_code": 143}, Reason.CANCELLED)],
)
def test_an_engine_that_ended_on_a_cancel_before_its_keeper_heard_was_cancelled(
    how: dict[str, int], reason: Reason | None
) -> None:
    assert see(job("CANCELLED"), run=RUN, exit=EXIT | how).reason is reason


def test_an_attempt_that_is_not_there_is_absent_unless_its_job_runs() -> None:
    nothing = {"there": False}
    assert observe(NAME, nothing, []).liveness is Liveness.ABSENT
    assert observe(NAME, nothing, [job("COMPLETED")]).liveness is Liveness.ABSENT
    assert observe(NAME, nothing, [job("RUNNING")]).liveness is Liveness.RUNNING
    assert observe(NAME, nothing, [job("RUNNING", comment="")]).liveness is Liveness.ABSENT
    assert observe(NAME, {"there": True, "sealed": {}}, []).liveness is Liveness.ABSENT


def test_a_launch_between_folder_and_job_is_being_submitted_or_lost() -> None:
    attempt = {"there": True, "launch": LAUNCH}
    assert observe(NAME, attempt | {"held": True}, []).liveness is Liveness.QUEUED
    assert observe(NAME, attempt, []).liveness is Liveness.LOST
    assert observe(NAME, attempt, [job("PENDING")]).liveness is Liveness.QUEUED


def test_a_forgotten_job_that_told_lately_that_it_lives_runs() -> None:
    seen = see(run=RUN, alive_s=6.0)
    assert (seen.liveness, seen.host, seen.port) == (Liveness.RUNNING, "10.0.0.7", 20017)
    assert see(run=RUN, alive_s=6.0, stop={}).liveness is Liveness.RUNNING
    assert see(alive_s=6.0).liveness is Liveness.UNKNOWN
    assert see(run=RUN, alive_s=6.0, exit=EXIT | {"left": 2}).liveness is Liveness.LINGERING
    assert see(run=RUN, alive_s=6.0, exit=EXIT).liveness is Liveness.EXITED


@pytest.mark.parametrize("alive_s", [11.0, 29.0, -11.0])
def test_of_a_forgotten_job_that_told_nothing_for_a_while_nothing_is_known(alive_s: float) -> None:
    seen = see(run=RUN, alive_s=alive_s)
    assert (seen.liveness, seen.port, seen.owns_port) == (Liveness.UNKNOWN, None, None)


@pytest.mark.parametrize("alive_s", [31.0, -31.0])
def test_a_forgotten_job_that_told_nothing_for_long_is_lost(alive_s: float) -> None:
    assert see(run=RUN, alive_s=alive_s).liveness is Liveness.LOST


def test_an_end_of_another_job_with_its_id_is_not_its_own() -> None:
    """A controller that lost its last seconds gives ids again."""
    assert see(accounted=job("COMPLETED", exit_code=0)).liveness is Liveness.EXITED
    assert see(accounted=job("COMPLETED", exit_code=0, name="another")).liveness is Liveness.LOST


def test_words_that_no_database_keeps_are_left_out() -> None:
    seen = see(job("FAILED", exit_code=1), said="slurmstepd: half \0a word\ud800\n")
    assert seen.message.endswith("its job said: slurmstepd: half a word?")
