"""The rules of repeating, driven by hand: no network, no clock."""

from __future__ import annotations

from typing import Any

import pytest

from hostler.errors import (
    ApiError,
    Busy,
    Conflict,
    Forbidden,
    LaunchFailed,
    NoAnswer,
    NotFound,
    Refused,
    TimedOut,
    Unauthenticated,
    Unreachable,
)
from hostler.wire import Call, Pause, Reply, change, exchange, problem, until

OK = Reply(200, {}, b'{"done": true}')
GET = Call("GET", "/x")


def drive(steps: Any, *outcomes: Reply | Exception) -> tuple[Any, list[Call], list[float]]:
    """Run ``steps`` with these outcomes of its calls; (result, calls, pauses)."""
    left, calls, pauses = list(outcomes), [], []
    try:
        step = next(steps)
        while True:
            if isinstance(step, Pause):
                pauses.append(step.seconds)
                step = steps.send(Reply(0, {}))
                continue
            calls.append(step)
            outcome = left.pop(0)
            step = steps.throw(outcome) if isinstance(outcome, Exception) else steps.send(outcome)
    except StopIteration as stop:
        return stop.value, calls, pauses


def busy(after_s: str | None = "0") -> Reply:
    return Reply(503, {"retry-after": after_s} if after_s is not None else {}, b'{"code": "unavailable"}')


def test_a_read_is_tried_three_times() -> None:
    assert drive(exchange(GET), Unreachable(), Unreachable(), OK)[0] is OK
    with pytest.raises(Unreachable):
        drive(exchange(GET), Unreachable(), Unreachable(), Unreachable())


def test_a_change_without_a_key_is_tried_again_only_when_it_never_left() -> None:
    post = Call("POST", "/x", body={})
    assert drive(exchange(post), Unreachable(sent=False), OK)[0] is OK
    with pytest.raises(Unreachable):
        drive(exchange(post), Unreachable(sent=True), OK)


def test_every_change_carries_a_key_and_keeps_it() -> None:
    _, calls, _ = drive(exchange(change("POST", "/x", {})), Unreachable(), busy(), OK)
    keys = {call.headers["Idempotency-Key"] for call in calls}
    assert len(calls) == 3
    assert len(keys) == 1
    assert change("POST", "/x", idempotency_key="mine").headers == {"Idempotency-Key": "mine"}


def test_silence_is_not_asked_again() -> None:
    with pytest.raises(NoAnswer):
        drive(exchange(GET), NoAnswer(), OK)


@pytest.mark.parametrize("after_s", [None, "6", "not a number"])
def test_503_is_repeated_only_when_it_says_soon(after_s: str | None) -> None:
    with pytest.raises(Busy):
        drive(exchange(GET), busy(after_s), OK)
    assert drive(exchange(GET), busy("2"), OK)[2] == [2.0]


def test_the_same_request_in_flight_is_asked_again() -> None:
    flying = Reply(409, {"retry-after": "1"}, b'{"code": "idempotency_in_flight"}')
    assert drive(exchange(change("POST", "/x")), flying, OK)[0] is OK


def test_an_outage_is_ridden_out_when_asked() -> None:
    patient = Call("GET", "/x", outage_s=60)
    _, calls, pauses = drive(exchange(patient), *[Unreachable()] * 8, OK)
    assert len(calls) == 9
    assert pauses[-1] == 1.0


@pytest.mark.parametrize(
    "status,code,kind",
    [
        (400, "missing_fields", Refused),
        (422, "invalid_config", Refused),
        (422, "unknown_model", NotFound),
        (500, "internal", ApiError),
        (401, "unauthenticated", Unauthenticated),
        (403, "forbidden", Forbidden),
        (404, "not_found", NotFound),
        (409, "name_taken", Conflict),
        (429, "queue_full", Busy),
        (502, "replica_failed", LaunchFailed),
        (503, "unavailable", Busy),
    ],
)
def test_a_problem_becomes_its_exception(status: int, code: str, kind: type[ApiError]) -> None:
    body = (
        f'{{"code": "{code}", "detail": "why", "request_id": "r", "errors": {{"a": {{"b": ["no"]}}, "c": ["x", "y"]}}}}'
    )
    error = problem(Reply(status, {"retry-after": "3"}, body.encode()))
    assert type(error) is kind
    assert (error.status, error.code, error.message, error.request_id) == (status, code, "why", "r")
    assert error.errors == {"a.b": ["no"], "c": ["x", "y"]}
    assert error.retry_after_s == 3


@pytest.mark.parametrize("content", [b"", b"<html>", b"[1]", b'"text"', b"\xff"])
def test_a_problem_that_is_none_is_still_an_error(content: bytes) -> None:
    error = problem(Reply(404, {"x-request-id": "r9"}, content))
    assert isinstance(error, NotFound)
    assert error.request_id == "r9"


@pytest.mark.parametrize("content", [b"<html>", b"[1]"])
def test_an_answer_that_is_no_object_is_not_ours(content: bytes) -> None:
    with pytest.raises(ApiError, match="not from Hostler"):
        Reply(200, {}, content).json()


def test_queries_are_written_as_the_api_reads_them() -> None:
    call = Call("GET", "/x", {"a": None, "b": True, "c": 3, "label": ["x=1", None, "y=2"]})
    assert call.params() == [("b", "true"), ("c", "3"), ("label", "x=1"), ("label", "y=2")]


def test_until_asks_until_it_is_done() -> None:
    no = Reply(200, {}, b'{"done": false}')
    steps = until(GET, lambda body: bool(body["done"]), timeout_s=60, late=TimedOut, every_s=(0.1, 0.2))
    body, calls, pauses = drive(steps, no, no, no, OK)
    assert body == {"done": True}
    assert len(calls) == 4
    assert all(0 <= pause <= 0.2 for pause in pauses)
    # the server was seen: from then on a restart of it is ridden out
    assert [call.outage_s > 0 for call in calls] == [False, True, True, True]


def test_until_gives_up_at_its_deadline() -> None:
    no = Reply(200, {}, b'{"done": false}')
    steps = until(GET, lambda body: bool(body["done"]), timeout_s=0, late=lambda: TimedOut("late"), every_s=(1, 1))
    with pytest.raises(TimedOut, match="late"):
        drive(steps, no, no)


def test_a_long_poll_is_no_longer_than_the_callers_patience() -> None:
    steps = until(Call("GET", "/x", {"wait": 30}), lambda _: True, timeout_s=4.9, late=TimedOut, every_s=(1, 1))
    _, calls, _ = drive(steps, OK)
    assert calls[0].query == {"wait": 4}
    assert calls[0].read_timeout_s > 4
