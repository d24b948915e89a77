"""Diagnostics against the mock engine's faults and against servers that lie."""

from __future__ import annotations

import json
import socket
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.engines.base import HttpCheck
from app.engines.registry import engine
from tests.integration.probes.conftest import Serve, trickling
from tests.support.engines import HOST, KEY, running
from tests.support.ports import free_port
from workers.probes.diagnostics import run_diagnostics

MOCK = engine("mock")


def diagnose(base_url: str, timeout_s: float = 10) -> dict[str, Any]:
    return run_diagnostics(MOCK, {}, "m", base_url, KEY, timeout_s)


def by_name(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in found["checks"]}


def test_a_good_engine_is_measured(tmp_path: Path) -> None:
    with running(MOCK, tmp_path, mock={"ttft_ms": 100, "tokens_per_s": 100}) as it:
        it.wait_ready()
        found = diagnose(it.base_url)
    assert found["passed"]
    assert json.loads(json.dumps(found)) == found
    stream = by_name(found)["stream"]
    assert stream["ttft_ms"] == pytest.approx(100, abs=60)
    assert stream["tokens_per_s"] == pytest.approx(100, rel=0.3)
    assert by_name(found)["completion"]["tokens_per_s"] == pytest.approx(16 / 0.25, rel=0.4)
    assert "ttft_ms" not in by_name(found)["health"]
    assert found["duration_s"] < 5
    assert found["started_at"].endswith("+00:00")


def test_the_model_is_named_in_what_is_asked(tmp_path: Path) -> None:
    with running(MOCK, tmp_path) as it:
        it.wait_ready()
        assert diagnose(it.base_url)["passed"]
        state = _state(it.base_url)
    assert (state["last_request"]["model"], state["last_request"]["stream"]) == ("m", True)


def test_a_hung_engine_fails_within_the_timeout(tmp_path: Path) -> None:
    with running(MOCK, tmp_path, mock={"hang": True}) as it:
        it.wait_ready()
        begun = time.monotonic()
        found = diagnose(it.base_url, 0.5)
        assert time.monotonic() - begun < 1.5
    details = {name: check["detail"] for name, check in by_name(found).items()}
    assert details == {"health": "", "models": "", "completion": "no answer in time", "stream": "no time left"}
    assert not found["passed"]


def test_an_engine_that_answers_500_is_quoted(tmp_path: Path) -> None:
    with running(MOCK, tmp_path, mock={"error_rate": 1}) as it:
        it.wait_ready()
        found = by_name(diagnose(it.base_url))
    assert found["completion"]["status"] == 500
    assert "failed, as told" in found["completion"]["detail"]
    assert found["health"]["ok"]


def test_an_engine_that_crashes_is_told(tmp_path: Path) -> None:
    with running(MOCK, tmp_path, mock={"crash_after_n": 1}) as it:
        it.wait_ready()
        found = by_name(diagnose(it.base_url))
    assert found["completion"]["ok"]
    assert not found["stream"]["ok"]
    assert found["stream"]["detail"]


def test_nobody_there_fails_every_check() -> None:
    found = diagnose(f"http://{HOST}:{free_port()}")
    assert {check["detail"] for check in found["checks"]} == {"connection refused"}


def test_the_key_is_not_sent_to_an_engine_that_checks_none(serve: Serve) -> None:
    heard: list[bytes] = []

    def handler(connection: socket.socket) -> None:
        heard.append(connection.recv(4096))
        connection.sendall(_answer(b""))

    url = f"http://{HOST}:{serve(handler).port}"
    found = run_diagnostics(engine("command"), {"command": ["x"]}, "m", url, KEY, 5)
    assert found["passed"]
    assert KEY.encode() not in heard[0]


def _event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


_TOKEN = _event({"choices": [{"text": "a", "finish_reason": None}]})


@pytest.mark.parametrize(
    "expect, body, detail",
    [
        ("json", b"<html>", "not JSON"),
        ("models", b"[]", "empty"),
        ("models", b'{"data": []}', "empty"),
        ("completion", b'{"choices": []}', "no choices"),
        ("completion", b"[1]", "no choices"),
        ("stream", b"", "without a token"),
        ("stream", b"data: [DONE]\n\n", "without a token"),
        ("stream", _event({"error": {"message": "no slot"}}), "no slot"),
        ("stream", _TOKEN, "broke off"),
        ("stream", b"data: {\n\n", "not JSON"),
        ("vibes", b"{}", "nobody knows"),
    ],
)
def test_an_answer_that_is_not_what_it_should_be(serve: Serve, expect: str, body: bytes, detail: str) -> None:
    found = _diagnose_one(serve, _speaker(_answer(body)), expect)
    assert not found["passed"]
    assert detail in found["checks"][0]["detail"]


def test_a_chat_stream_counts_too(serve: Serve) -> None:
    body = (
        _event({"choices": [{"delta": {"role": "assistant"}, "finish_reason": None}]})
        + _event({"choices": [{"delta": {"content": "a"}, "finish_reason": None}]})
        + _event({"choices": [{"delta": {}, "finish_reason": "length"}]})
        + b"data: [DONE]\n\n"
    )
    assert _diagnose_one(serve, _speaker(_answer(body)), "stream")["passed"]


def test_an_endless_trickle_is_cut_off(serve: Serve) -> None:
    begun = time.monotonic()
    found = _diagnose_one(serve, trickling, "json", timeout_s=0.4)
    assert time.monotonic() - begun < 1.5
    assert found["checks"][0]["detail"] == "no answer in time"


def test_an_answer_without_end_is_bounded(serve: Serve) -> None:
    def endless(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    assert "larger than" in _diagnose_one(serve, endless, "json")["checks"][0]["detail"]


def _diagnose_one(
    serve: Serve, handler: Callable[[socket.socket], None], expect: str, timeout_s: float = 5
) -> dict[str, Any]:
    class OneCheck(type(MOCK)):  # type: ignore[misc]
        def diagnostics(self, config: object) -> tuple[HttpCheck, ...]:
            return (HttpCheck("it", "/", expect=expect),)

    return run_diagnostics(OneCheck(), {}, "m", f"http://{HOST}:{serve(handler).port}", KEY, timeout_s)


def _speaker(answer: bytes) -> Callable[[socket.socket], None]:
    def handler(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(answer)

    return handler


def _answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def _state(base_url: str) -> dict[str, Any]:
    asked = urllib.request.Request(f"{base_url}/mock/state", headers={"Authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(asked, timeout=5) as answer:
        return dict(json.loads(answer.read()))
