"""One job at a time for a replica; a job that breaks breaks nothing else."""

from __future__ import annotations

import logging
import threading

import pytest

from tests.support.embedded import wait_until
from workers.jobs import Jobs


def test_what_is_under_way_is_not_begun_again_and_others_go_on() -> None:
    jobs, gate, done = Jobs("t", 2), threading.Event(), []
    jobs.begin("a", gate.wait, 10)
    jobs.begin("a", done.append, "never")
    jobs.begin("b", done.append, "b")
    wait_until(lambda: done == ["b"], 5, "the other's job")
    assert jobs.has("a")
    gate.set()
    wait_until(lambda: not jobs.has("a"), 5, "the first job to end")
    jobs.begin("a", done.append, "a")
    wait_until(lambda: done == ["b", "a"], 5, "the second job")
    jobs.close()


def test_a_job_that_raises_is_logged_and_can_be_begun_again(caplog: pytest.LogCaptureFixture) -> None:
    jobs = Jobs("t", 1)

    def fail() -> None:
        raise RuntimeError("a defect")

    with caplog.at_level(logging.ERROR):
        jobs.begin("a", fail)
        wait_until(lambda: not jobs.has("a"), 5, "the job to end")
        jobs.close()
    assert "replica a: a defect; it is tried again" in caplog.text


def test_a_place_that_does_not_answer_holds_up_no_other() -> None:
    jobs, gate, done = Jobs("t", 2, places=2), threading.Event(), []
    for number in range(6):
        jobs.begin(f"away {number}", gate.wait, 10, place="away")
    for number in range(6):
        jobs.begin(f"near {number}", done.append, number, place="near")
    wait_until(lambda: len(done) == 6, 5, "the jobs of the other place")
    assert jobs.has("away 5"), "it waits for its turn"
    gate.set()
    wait_until(lambda: not any(jobs.has(f"away {number}") for number in range(6)), 5, "all of them to end")
    jobs.close()


def test_what_has_not_begun_is_dropped_at_the_end() -> None:
    jobs, gate, done = Jobs("t", 1), threading.Event(), []
    jobs.begin("a", gate.wait, 10)
    jobs.begin("b", done.append, "b")
    gate.set()
    jobs.close()
    jobs.begin("c", done.append, "c")
    assert "c" not in done
