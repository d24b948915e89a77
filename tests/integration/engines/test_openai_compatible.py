"""The relay to somebody else's server: what passes, what is held back, and what the other side never sees."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.engines.registry import engine
from tests.support.certificates import write_certificate
from tests.support.engines import HOST, KEY, Running, running, wait_until
from tests.support.upstreams import KEY as UPSTREAM_KEY
from tests.support.upstreams import Upstream, running_upstream
from workers.probes.http import probe_once

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    folder = tmp_path / "upstream"
    folder.mkdir()
    with running_upstream(folder, tokens_per_s=20) as it:
        yield it


@contextmanager
def _relay(folder: Path, to: Upstream, *, request: dict[str, Any] | None = None, **config: Any) -> Iterator[Running]:
    config = {"base_url": to.base_url, **config}
    asked = {**to.request, **(request or {})}
    with running(engine("openai-compatible"), folder / "relay", request=asked, **config) as it:
        yield it


def _ask(
    it: Running, path: str, body: Any = None, key: str = KEY, **headers: str
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection(HOST, it.port, timeout=10)
    sent = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", **headers}
    connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, sent)
    return connection, connection.getresponse()


def _status(it: Running, path: str, body: Any = None, **more: Any) -> tuple[int, bytes]:
    connection, answer = _ask(it, path, body, **more)
    told = answer.status, answer.read()
    connection.close()
    return told


def test_the_other_side_sees_its_own_key_and_nothing_of_ours(tmp_path: Path, upstream: Upstream) -> None:
    with _relay(tmp_path, upstream) as it:
        it.wait_ready()
        connection, answer = _ask(
            it, "/v1/chat/completions?a=b", CHAT, **{"X-Hostler-Replica": "r", "Cookie": "c=1", "X-API-Key": KEY}
        )
        told = json.load(answer)
        connection.close()
        assert told["choices"][0]["message"]["content"]
        assert f"POST /v1/chat/completions?a=b host=localhost:{upstream.port} keys=1 ours=0" in upstream.log
        pid = it.process.pid
        argv = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert UPSTREAM_KEY.encode() not in argv
        assert KEY.encode() not in argv
        config = it.folder / "relay.cfg"
        assert UPSTREAM_KEY not in config.read_text()
        assert KEY not in config.read_text()
        assert os.stat(config).st_mode & 0o077 == 0
        assert UPSTREAM_KEY not in it.log


def test_tokens_pass_as_they_are_made_and_a_caller_that_goes_away_ends_the_work(
    tmp_path: Path, upstream: Upstream
) -> None:
    with _relay(tmp_path, upstream) as it:
        it.wait_ready()
        connection, answer = _ask(it, "/v1/chat/completions", {**CHAT, "max_tokens": 10_000, "stream": True})
        assert answer.readline().startswith(b"data: ")
        # 10,000 tokens at 20 a second: what came is not the end
        assert _state(upstream)["active"] == 1
        answer.close()
        connection.close()
        wait_until(lambda: _state(upstream)["cancelled"] == 1, "the other side has cancelled it")


def test_only_what_is_below_v1_is_relayed(tmp_path: Path, upstream: Upstream) -> None:
    with _relay(tmp_path, upstream) as it:
        it.wait_ready()
        before = len(upstream.log)
        for path in ("/mock/state", "/v1/../mock/state", "/v1/%2e%2e/mock/state", "/v1beta/x", "//v1/models", "/"):
            assert _status(it, path)[0] == 404, path
        assert _status(it, "/v1/models", key="wrong")[0] == 401
        assert _status(it, "/metrics", key="")[0] == 401
        assert b"haproxy_backend" in _status(it, "/metrics")[1]
        asked = [line for line in upstream.log[before:] if not line.startswith("GET /v1/models ")]
        assert asked == []


def test_a_base_url_with_a_path_of_its_own_takes_the_place_of_v1(tmp_path: Path, upstream: Upstream) -> None:
    base = upstream.base_url.removesuffix("/v1")
    with _relay(tmp_path, upstream, base_url=f"{base}/api/openai/v2/", ready_path="/health") as it:
        it.wait_ready()
        assert _status(it, "/v1/chat/completions", CHAT)[0] == 404
        wait_until(lambda: any(" /api/openai/v2/chat/completions " in line for line in upstream.log), "it was asked")


def test_it_is_not_ready_before_the_other_side_answers(tmp_path: Path, upstream: Upstream) -> None:
    with _relay(tmp_path, upstream, ready_path="/nothing-there") as it:
        wait_until(lambda: probe_once(it.target()).status == 503, "it listens and says no")
        wait_until(lambda: any("/nothing-there" in line for line in upstream.log), "it was asked")
        assert not probe_once(it.target()).ok


@pytest.mark.parametrize("wrong", ["authority", "name"])
def test_a_certificate_that_nobody_vouches_for_is_no_upstream(tmp_path: Path, upstream: Upstream, wrong: str) -> None:
    request: dict[str, Any] = {}
    config = {}
    if wrong == "authority":
        request["ca_file"] = str(write_certificate(tmp_path, "other", host="localhost")[0])
    else:
        # the right server under a name that its certificate does not have
        config["base_url"] = f"https://{HOST}:{upstream.port}/v1"
    with _relay(tmp_path, upstream, request=request, **config) as it:
        wait_until(lambda: probe_once(it.target()).status == 503, "it listens and says no")
        status, told = _status(it, "/v1/chat/completions", CHAT)
        assert (status, b"does not answer" in told) == (503, True)
        # handshakes that broke off, and no request
        assert not [line for line in upstream.log if "keys=" in line]


def test_a_key_that_the_other_side_refuses_is_not_the_callers_fault(tmp_path: Path, upstream: Upstream) -> None:
    request = {"environment": {"UPSTREAM_API_KEY": "wrong"}}
    with _relay(tmp_path, upstream, request=request, ready_path="/health") as it:
        it.wait_ready()
        status, told = _status(it, "/v1/chat/completions", CHAT)
        assert status == 502
        assert "UPSTREAM_API_KEY" in json.loads(told)["error"]["message"]


def _state(upstream: Upstream) -> dict[str, Any]:
    connection = http.client.HTTPConnection(HOST, upstream.engine.port, timeout=5)
    connection.request("GET", "/mock/state", headers={"Authorization": f"Bearer {UPSTREAM_KEY}"})
    found = json.load(connection.getresponse())
    connection.close()
    return dict(found)
