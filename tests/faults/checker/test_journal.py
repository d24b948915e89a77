"""What the checker must find in what was asked, answered and streamed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.checker.story import SEED, A, B, Story

PROBLEM = {"type": "urn:x", "title": "x", "detail": "x", "code": "x"}
STOP = f"/api/v1/replicas/{A}/stop"


def _answer(
    story: Story,
    status: int,
    *,
    says: int = 0,
    content_type: str = "application/problem+json",
    wait: str = "",
    **more: str,
) -> None:
    """An error, whose body may say another status."""
    headers = {"Content-Type": content_type} | ({"Retry-After": wait} if wait else {})
    body = {**PROBLEM, **more, "status": says or status}
    story.journal("request", id=50, method="POST", path=STOP, body={}, key=None)
    story.journal("answer", id=50, status=status, headers=headers, body=body)


def _both_made(story: Story) -> None:
    """The same key, once lost and once answered, made two replicas."""
    story.asked(51, "/api/v1/replicas", "key-1")
    story.step("eeeeeeeeeeee", None, "pending", f"f-{SEED}-51")


def _acted_twice(story: Story) -> None:
    story.asked(52, STOP, "twice")
    story.asked(53, STOP, "twice", status=202, replica_id=A, task_id="second")
    story.task("first", A, "health", "cancelled", f"f-{SEED}-52")
    story.task("second", A, "health", "cancelled", f"f-{SEED}-53")


def _another_answer(story: Story) -> None:
    story.asked(54, "/api/v1/replicas", "key-1", status=202, replica_id=B, task_id=f"create-{B}")


def _delete(story: Story, replica: str) -> None:
    story.journal("request", id=58, method="DELETE", path=f"/api/v1/replicas/{replica}", body=None, key=None)
    story.journal("answer", id=58, status=204, headers={}, body=None)


def _refused_and_done(story: Story) -> None:
    _answer(story, 409)
    story.task("done", A, "health", "succeeded", f"f-{SEED}-50")


SPOILS: dict[str, tuple[Callable[[Story], None], str]] = {
    "a 500": (lambda s: _answer(s, 500), "answers: a request was answered 500"),
    "a 503 without a time": (
        lambda s: _answer(s, 503),
        "answers: a 503 does not say when to come back (Retry-After)",
    ),
    "a 429 without a time": (
        lambda s: _answer(s, 429),
        "answers: a 429 does not say when to come back (Retry-After)",
    ),
    "an error in HTML": (
        lambda s: _answer(s, 404, content_type="text/html"),
        "answers: a 404 is no application/problem+json",
    ),
    "half a problem": (
        lambda s: s.asked(50, STOP, status=404, content_type="application/problem+json"),
        "answers: a 404 lacks members of a problem",
    ),
    "a problem of another status": (lambda s: _answer(s, 404, says=409), "answers: a 404 says it is 409"),
    "refused and done": (_refused_and_done, "outcomes: a refused request was carried out"),
    "accepted and lost": (
        lambda s: s.asked(50, STOP, status=202, replica_id=A, task_id="nowhere"),
        "outcomes: an accepted request has no task",
    ),
    "another replica's task": (
        lambda s: s.asked(50, STOP, status=202, replica_id=A, task_id=f"create-{B}"),
        "outcomes: the task that was answered is about another replica",
    ),
    "502 for what succeeded": (
        lambda s: _answer(s, 502, task_id=f"create-{A}", replica_id=A),
        "outcomes: 502 was answered for a task that succeeded",
    ),
    "a key with two replicas": (_both_made, "keys: a key acted more than once"),
    "a key with two tasks": (_acted_twice, "keys: a key acted more than once"),
    "a key with two answers": (_another_answer, "keys: a key was answered with different tasks"),
    "deleted and still there": (
        lambda s: _delete(s, A),
        "outcomes: a replica was answered as deleted and is not, or not once",
    ),
    "an end taken back": (
        lambda s: s.asked(57, f"/api/v1/tasks/create-{A}/cancel", status=200, id=f"create-{A}", state="cancelled"),
        "outcomes: a task ended otherwise than it was shown",
    ),
    "no rest": (lambda s: s.unrested(), "convergence: not at rest 30 s after the last fault"),
}


@pytest.mark.parametrize("name", SPOILS)
def test_what_is_spoiled_is_found(story: Story, name: str) -> None:
    spoil, expected = SPOILS[name]
    spoil(story)
    assert expected in story.findings()


def test_a_rest_that_came_late_is_found(story: Story) -> None:
    story._line("journal.jsonl", seed=SEED, t=100.0, op="faults_end")
    story._line("journal.jsonl", seed=SEED, t=140.0, op="converged")
    assert "convergence: it came to rest too late" in story.findings()


def test_a_launch_that_waits_for_its_next_try_may_be_late_by_that_much(story: Story) -> None:
    story._line("journal.jsonl", seed=SEED, t=100.0, op="faults_end")
    story._line("journal.jsonl", seed=SEED, t=130.0, op="tried_again", moving=["task"], more_s=25.0)
    story._line("journal.jsonl", seed=SEED, t=154.0, op="converged")
    assert story.findings() == set()
    story._line("journal.jsonl", seed=SEED, t=157.0, op="converged")
    assert "convergence: it came to rest too late" in story.findings()


def test_answers_as_they_should_be_are_no_finding(story: Story) -> None:
    _answer(story, 503, wait="2")
    story.asked(55, "/api/v1/replicas", "key-1", status=202, replica_id=A, task_id=f"create-{A}")
    story.asked(56, "/api/v1/replicas", "key-1")
    assert story.findings() == set()


@pytest.mark.parametrize(
    "spoil, expected",
    [
        (lambda told: told[:3] + told[4:], "streams: a stream missed events"),
        (lambda told: told[:-1], "streams: a stream missed events"),
        (lambda told: [*told, told[3]], "streams: a stream told events twice"),
        (lambda told: [*told[:3], told[4], told[3], *told[5:]], "streams: a stream told events out of order"),
        (lambda told: [*told[:3], "1-3", *told[3:]], "streams: a stream told events that are not in the table"),
    ],
)
def test_a_stream_that_tells_otherwise_is_found(
    story: Story, spoil: Callable[[list[str]], list[str]], expected: str
) -> None:
    story.heard = spoil(story.told())
    assert expected in story.findings()
