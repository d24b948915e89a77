"""From evidence to verdict: one row per situation."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from app.domain.lifecycle import SERVING, TERMINAL, Reason, State, check_path
from app.domain.verdicts import GONE, Evidence, Life, Verdict, end_message, judge, way
from workers.backends.base import Liveness

AFTER = 3
STARTING, WAITING, READY, UNHEALTHY, UNREACHABLE = (
    State.STARTING,
    State.WAITING_FOR_READY,
    State.READY,
    State.UNHEALTHY,
    State.UNREACHABLE,
)
RUNNING, QUEUED, LOST = Life.RUNNING, Life.QUEUED, Life.LOST
SCHEDULING, FAILED = State.SCHEDULING, State.FAILED
QUEUE_TIMEOUT, PREEMPTED = Reason.QUEUE_TIMEOUT, Reason.PREEMPTED

#: Its cluster took its place away, and gave it another.
AGAIN = {"life": RUNNING, "was_ready": True, "displaced": True}

#: evidence -> (to, reason, gone, failures)
TABLE: list[tuple[str, dict[str, Any], tuple[State | None, Reason | None, bool, int]]] = [
    ("seen alive", {"state": STARTING, "life": RUNNING}, (WAITING, None, False, 0)),
    ("queued in a cluster", {"state": STARTING, "life": Life.QUEUED}, (None, None, False, 0)),
    ("answers at once", {"state": STARTING, "life": RUNNING, "answers": True}, (READY, None, False, 0)),
    ("answers", {"state": WAITING, "life": RUNNING, "answers": True}, (READY, None, False, 0)),
    (
        "a stranger answers",
        {"state": WAITING, "life": RUNNING, "answers": True, "owns_port": False},
        (None, None, False, 0),
    ),
    ("not yet", {"state": WAITING, "life": RUNNING, "answers": False}, (None, None, False, 0)),
    (
        "too late",
        {"state": WAITING, "life": RUNNING, "answers": False, "overdue": True},
        (State.FAILED, Reason.READINESS_TIMEOUT, False, 0),
    ),
    (
        "in the last moment",
        {"state": WAITING, "life": RUNNING, "answers": True, "overdue": True},
        (READY, None, False, 0),
    ),
    (
        "hung",
        {"state": READY, "life": RUNNING, "answers": True, "hung": "made no token"},
        (UNHEALTHY, Reason.HEALTH_FAILED, False, 0),
    ),
    (
        "unreachable beyond its readiness",
        {"state": UNREACHABLE, "life": Life.UNKNOWN, "overdue": True},
        (State.FAILED, Reason.READINESS_TIMEOUT, False, 1),
    ),
    (
        "unreachable after it was ready",
        {"state": UNREACHABLE, "life": Life.UNKNOWN, "overdue": True, "was_ready": True},
        (None, None, False, 1),
    ),
    ("still hung", {"state": UNHEALTHY, "life": RUNNING, "answers": True, "hung": "x"}, (None, None, False, 0)),
    ("works again", {"state": UNHEALTHY, "life": RUNNING, "answers": True}, (READY, None, False, 0)),
    (
        "hung when the backend answers again",
        {"state": UNREACHABLE, "life": RUNNING, "answers": True, "hung": "x", "was_ready": True},
        (UNHEALTHY, Reason.HEALTH_FAILED, False, 0),
    ),
    (
        "died while starting",
        {"state": WAITING, "life": Life.EXITED, "exit_code": 1},
        (State.FAILED, Reason.PROCESS_EXITED, True, 0),
    ),
    (
        "out of memory",
        {"state": READY, "life": Life.EXITED, "signal": 9, "out_of_memory": True},
        (State.FAILED, Reason.OUT_OF_MEMORY, True, 0),
    ),
    (
        "its leader died",
        {"state": READY, "life": Life.LINGERING},
        (State.FAILED, Reason.PROCESS_EXITED, False, 0),
    ),
    ("lost", {"state": READY, "life": Life.ABSENT}, (State.FAILED, Reason.BACKEND_ERROR, True, 0)),
    ("well", {"state": READY, "life": RUNNING, "answers": True, "failures": 2}, (None, None, False, 0)),
    ("one failure", {"state": READY, "life": RUNNING, "answers": False}, (None, None, False, 1)),
    (
        "the last failure",
        {"state": READY, "life": RUNNING, "answers": False, "failures": AFTER - 1},
        (UNHEALTHY, Reason.HEALTH_FAILED, False, AFTER),
    ),
    ("still unhealthy", {"state": UNHEALTHY, "life": RUNNING, "failures": 7}, (None, None, False, 8)),
    ("well again", {"state": UNHEALTHY, "life": RUNNING, "answers": True, "failures": 7}, (READY, None, False, 0)),
    ("cannot be asked", {"state": READY, "life": Life.UNKNOWN}, (UNREACHABLE, None, False, 1)),
    ("cannot be asked while it starts", {"state": WAITING, "life": Life.UNKNOWN}, (UNREACHABLE, None, False, 1)),
    ("cannot be asked before", {"state": State.PREPARING, "life": Life.UNKNOWN}, (None, None, False, 1)),
    ("still cannot", {"state": UNREACHABLE, "life": Life.UNKNOWN, "failures": 4}, (None, None, False, 5)),
    ("back and well", {"state": UNREACHABLE, "life": RUNNING, "answers": True}, (READY, None, False, 0)),
    ("back, never ready", {"state": UNREACHABLE, "life": RUNNING, "answers": False}, (WAITING, None, False, 0)),
    (
        "back and ill",
        {"state": UNREACHABLE, "life": RUNNING, "answers": False, "was_ready": True},
        (UNHEALTHY, Reason.HEALTH_FAILED, False, 0),
    ),
    ("back and dead", {"state": UNREACHABLE, "life": Life.EXITED}, (State.FAILED, Reason.PROCESS_EXITED, True, 0)),
    (
        "queued, and long enough",
        {"state": SCHEDULING, "life": QUEUED, "overdue": True},
        (FAILED, QUEUE_TIMEOUT, False, 0),
    ),
    ("out of the queue", {"state": SCHEDULING, "life": RUNNING, "overdue": True}, (WAITING, None, False, 0)),
    ("cannot be asked about the queue", {"state": SCHEDULING, "life": Life.UNKNOWN}, (None, None, False, 1)),
    (
        "cannot be asked, and waited long enough",
        {"state": SCHEDULING, "life": Life.UNKNOWN, "overdue": True},
        (FAILED, QUEUE_TIMEOUT, False, 1),
    ),
    ("queued again", {"state": READY, "life": QUEUED, "was_ready": True}, (UNHEALTHY, PREEMPTED, False, 0)),
    (
        "queued on",
        {"state": UNHEALTHY, "life": QUEUED, "was_ready": True, "displaced": True},
        (None, None, False, 0),
    ),
    (
        "queued again while it was ill",
        {"state": UNHEALTHY, "life": QUEUED, "was_ready": True},
        (SCHEDULING, PREEMPTED, False, 0),
    ),
    ("runs again", {**AGAIN, "state": UNHEALTHY, "answers": False}, (WAITING, PREEMPTED, False, 0)),
    ("runs again, out of the queue", {**AGAIN, "state": SCHEDULING}, (WAITING, PREEMPTED, False, 0)),
    ("runs again, not yet", {**AGAIN, "state": WAITING, "answers": False}, (None, None, False, 0)),
    (
        "runs again, too late",
        {**AGAIN, "state": WAITING, "answers": False, "overdue": True},
        (FAILED, Reason.READINESS_TIMEOUT, False, 0),
    ),
    ("runs again, answers", {**AGAIN, "state": WAITING, "answers": True}, (READY, None, False, 0)),
    ("runs again, answers at once", {**AGAIN, "state": UNHEALTHY, "answers": True}, (READY, None, False, 0)),
    (
        "runs again, answers and works not",
        {**AGAIN, "state": UNHEALTHY, "answers": True, "hung": "made no token"},
        (WAITING, PREEMPTED, False, 0),
    ),
    ("runs again, back", {**AGAIN, "state": UNREACHABLE, "answers": False}, (WAITING, PREEMPTED, False, 0)),
    ("runs again, away", {**AGAIN, "state": WAITING, "life": Life.UNKNOWN}, (UNREACHABLE, PREEMPTED, False, 1)),
    (
        "runs again, away for too long",
        {**AGAIN, "state": UNREACHABLE, "life": Life.UNKNOWN, "overdue": True},
        (FAILED, Reason.READINESS_TIMEOUT, False, 1),
    ),
    (
        "moved while it was ill",
        {"state": UNHEALTHY, "life": RUNNING, "answers": False, "moved": True, "was_ready": True},
        (WAITING, PREEMPTED, False, 0),
    ),
    ("back in the queue", {"state": UNREACHABLE, "life": QUEUED, "was_ready": True}, (UNHEALTHY, PREEMPTED, False, 0)),
    ("queued again before it was ready", {"state": WAITING, "life": QUEUED}, (SCHEDULING, PREEMPTED, False, 0)),
    ("the same when it can be asked again", {"state": UNREACHABLE, "life": QUEUED}, (SCHEDULING, PREEMPTED, False, 0)),
    ("moved", {"state": READY, "life": RUNNING, "answers": True, "moved": True}, (UNHEALTHY, PREEMPTED, False, 0)),
    ("moved, and well", {"state": UNHEALTHY, "life": RUNNING, "answers": True, "moved": True}, (READY, None, False, 0)),
    ("lost", {"state": READY, "life": LOST, "failures": 7}, (UNREACHABLE, None, False, 1)),
    ("lost in a queue", {"state": SCHEDULING, "life": LOST}, (UNREACHABLE, None, False, 1)),
    ("lost once more", {"state": UNREACHABLE, "life": LOST, "failures": 1}, (None, None, False, 2)),
    ("given up", {"state": UNREACHABLE, "life": LOST, "failures": 2}, (FAILED, Reason.NODE_LOST, False, 3)),
    (
        "ended as told",
        {"state": READY, "life": Life.EXITED, "reason": Reason.WALLTIME, "exit_code": 1},
        (FAILED, Reason.WALLTIME, True, 0),
    ),
    ("ending, gone", {"state": State.STOPPING, "life": Life.EXITED}, (None, None, True, 0)),
    ("ending, there", {"state": State.STOPPING, "life": RUNNING}, (None, None, False, 0)),
    ("failed, gone", {"state": State.FAILED, "life": Life.ABSENT}, (None, None, True, 0)),
]


@pytest.mark.parametrize("evidence, expected", [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_verdict(evidence: dict[str, Any], expected: tuple[State | None, Reason | None, bool, int]) -> None:
    verdict = judge(Evidence(**evidence), AFTER)
    assert (verdict.to, verdict.reason, verdict.gone, verdict.failures) == expected


def _all_evidence() -> list[Evidence]:
    flags = (True, False)
    return [
        Evidence(state, life, answers, owns_port, failures, overdue, was_ready, displaced=displaced, moved=moved)
        for state, life, answers, owns_port, failures, overdue, was_ready, displaced, moved in product(
            State, Life, (None, *flags), (None, *flags), (0, AFTER), flags, flags, flags, flags
        )
    ]


def test_no_evidence_leads_where_the_lifecycle_does_not() -> None:
    for seen in _all_evidence():
        verdict = judge(seen, AFTER)
        if verdict.to is not None:
            check_path(way(seen.state, verdict.to, was_ready=seen.was_ready))


def test_no_evidence_without_proof_frees_anything_of_what_may_live() -> None:
    for seen in _all_evidence():
        verdict = judge(seen, AFTER)
        assert verdict.gone == (seen.life in GONE)
        if seen.life is Life.UNKNOWN:
            begins = seen.begins_anew or not seen.was_ready
            late = verdict.reason is Reason.READINESS_TIMEOUT and seen.overdue and begins
            late |= verdict.reason is Reason.QUEUE_TIMEOUT and seen.overdue and seen.state is State.SCHEDULING
            assert verdict.to in (None, UNREACHABLE) or late
        if verdict.to is State.FAILED:
            assert verdict.reason is not None
            assert verdict.message


def test_a_foreign_server_makes_nothing_ready_or_healthy() -> None:
    for seen in _all_evidence():
        if seen.owns_port is False:
            assert judge(seen, AFTER).to is not READY


def test_what_ended_is_never_judged_again() -> None:
    for seen in _all_evidence():
        if seen.state in TERMINAL:
            assert judge(seen, AFTER) == Verdict(gone=seen.life in GONE)


def test_only_serving_ones_fall_ill() -> None:
    for seen in _all_evidence():
        if judge(seen, AFTER).to is UNHEALTHY:
            assert seen.state in (*SERVING, UNREACHABLE)


@pytest.mark.parametrize(
    "evidence, words",
    [
        ({"exit_code": 3}, "exited with code 3"),
        ({"signal": 11}, "ended by signal 11"),
        ({}, "its exit code is unknown"),
        ({"detail": "killed by SIGTERM", "exit_code": 1}, "killed by SIGTERM"),
        ({"out_of_memory": True}, "memory"),
    ],
)
def test_an_end_is_told_in_words(evidence: dict[str, Any], words: str) -> None:
    assert words in end_message(Evidence(READY, Life.EXITED, **evidence))


def test_the_words_are_the_backends() -> None:
    assert [str(life) for life in Life] == [str(liveness) for liveness in Liveness]
    assert {Life(liveness) for liveness in Liveness if liveness.gone} == set(GONE)
