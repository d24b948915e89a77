"""Prefer, stream messages, cursors and JSON answers."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from app.api import answers, sse
from app.api.waiting import Preference, preference
from app.errors import InvalidConfig
from app.usecases import paging
from app.usecases.events import parse_cursor


@pytest.mark.parametrize(
    "header, found",
    [
        ("", Preference()),
        ("wait=5", Preference(5.0)),
        ("respond-async", Preference(None, True)),
        ("respond-async, wait=10", Preference(10.0, True)),
        ('wait="7"', Preference(7.0)),
        ("WAIT = 7", Preference(7.0)),
        ("handling=lenient; wait=3", Preference(3.0)),
        ("wait=-1", Preference()),
        ("wait=x", Preference()),
        ("nowait=5", Preference()),
        ("wait=99999999999999999999", Preference()),
    ],
)
def test_prefer(header: str, found: Preference) -> None:
    with Flask("t").test_request_context(headers={"Prefer": header}):
        assert preference() == found


def test_the_wait_is_bounded() -> None:
    assert Preference(500.0).bounded(300) == 300
    assert Preference(5.0).bounded(300) == 5
    assert Preference().bounded(300, 1800) == 300
    assert Preference().bounded(300) == 0
    assert Preference(None, True).bounded(300, 1800) == 0
    assert Preference(2.0, True).bounded(300, 1800) == 2


def test_stream_messages() -> None:
    assert sse.Message("log", "a\nb").text == "event: log\ndata: a\ndata: b\n\n"
    assert sse.Message("x", {"a": 1}, "1-2").text == 'id: 1-2\nevent: x\ndata: {"a":1}\n\n'


def test_a_stream_keeps_alive_and_closes_its_source() -> None:
    closed = []

    def source():  # type: ignore[no-untyped-def]
        try:
            yield None
            yield sse.Message("x", "y")
            yield sse.Message("never", "sent")
        finally:
            closed.append(True)

    response = sse.stream(source())
    parts = iter(response.response)
    assert next(parts) == "retry: 2000\n\n"
    assert next(parts) == sse.KEEP_ALIVE
    assert next(parts) == "event: x\ndata: y\n\n"
    response.close()
    parts.close()  # type: ignore[attr-defined]
    assert closed == [True]


def test_cursors_come_back_as_they_went() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
    assert paging.decode(paging.encode((moment, "id")), (datetime, str)) == [moment, "id"]
    assert paging.decode(paging.encode((7,)), (int,)) == [7]
    assert paging.decode(None, (int,)) is None
    assert paging.decode("", (int,)) is None


@pytest.mark.parametrize("value", [[], [1, 2], ["x"], [True], [None], [2**63], {"a": 1}, "x", [1.5], ["\0"]])
def test_foreign_cursors_are_refused(value: object) -> None:
    cursor = base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
    with pytest.raises(InvalidConfig):
        paging.decode(cursor, (int,))


@given(st.text(max_size=40))
def test_any_text_is_a_cursor_or_refused(cursor: str) -> None:
    for decode in (lambda: paging.decode(cursor, (datetime, str)), lambda: parse_cursor(cursor)):
        try:
            decode()
        except InvalidConfig:
            continue


def test_answers_are_ascii_json() -> None:
    with Flask("t").test_request_context():
        answer = answers.answer({"text": "ü\ud800", "at": datetime(2026, 1, 1, tzinfo=UTC)})
    assert answer.get_data() == b'{"text":"\\u00fc\\ud800","at":"2026-01-01T00:00:00+00:00"}'
    with Flask("t").test_request_context(), pytest.raises(TypeError):
        answers.answer({"x": object()})
