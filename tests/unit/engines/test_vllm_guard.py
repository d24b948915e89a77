"""The middleware that vLLM is told to load: which requests it lets through to vLLM."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.engines.programs.vllm_guard import Guard

KEY = (b"authorization", b"Bearer the-key")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "the-key")


def _outcome(**scope: Any) -> Any:
    """``passed``, or what was sent instead."""
    sent: list[dict[str, Any]] = []
    passed: list[bool] = []

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        passed.append(True)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(Guard(app)({"type": "http", "path": "/v1/models", "headers": [], **scope}, None, send))
    return "passed" if passed else sent


@pytest.mark.parametrize(
    "path", ["/v1/completions", "/tokenize", "/invocations", "/metrics", "/health/", "/healthz", "/"]
)
def test_every_route_asks_for_the_key(path: str) -> None:
    assert _outcome(path=path, headers=[KEY]) == "passed"
    start, body = _outcome(path=path)
    assert start["status"] == 401
    assert int(dict(start["headers"])[b"content-length"]) == len(body["body"])


def test_health_and_the_servers_own_life_do_not() -> None:
    assert _outcome(path="/health") == "passed"
    assert _outcome(type="lifespan") == "passed"


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"Bearer the-ke")],
        [(b"authorization", b"Bearer the-keyx")],
        [(b"authorization", b"bearer the-key ")],
        [(b"authorization", b"the-key")],
        [(b"authorization", b"\xff")],
        [(b"x-api-key", b"the-key")],
        [KEY, (b"authorization", b"Bearer other")],
        [KEY, KEY],
    ],
)
def test_nothing_but_exactly_the_key_opens(headers: list[tuple[bytes, bytes]]) -> None:
    assert _outcome(headers=headers)[0]["status"] == 401


@pytest.mark.parametrize("method", ["OPTIONS", "HEAD", "POST"])
def test_no_method_is_spared(method: str) -> None:
    assert _outcome(method=method)[0]["status"] == 401


def test_a_websocket_is_closed_before_it_opens() -> None:
    assert _outcome(type="websocket") == [{"type": "websocket.close", "code": 1008}]
    assert _outcome(type="websocket", headers=[KEY]) == "passed"
