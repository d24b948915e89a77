"""One probe, and looking until it is good, against servers that behave in every way."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.engines.registry import engine
from tests.integration.probes.conftest import OK, Serve, answering, silent, trickling
from tests.support.engines import HOST, running
from tests.support.ports import free_port
from workers.probes.http import look, probe_once
from workers.probes.wire import ProbeTarget


def test_a_good_answer(serve: Serve) -> None:
    result = probe_once(ProbeTarget(HOST, serve(answering(OK)).port))
    assert (result.ok, result.status, result.detail) == (True, 200, "HTTP 200")
    assert 0 < result.latency_ms < 1000


@pytest.mark.parametrize(
    "answer, status, detail",
    [
        (b"HTTP/1.1 503 Loading\r\nContent-Length: 0\r\n\r\n", 503, "HTTP 503"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", 302, "HTTP 302"),
        (b"220 mail ready\r\n", None, "what listens there does not speak HTTP"),
        (b"HTTP/1.1 200", None, "connection closed without an answer"),
        (b"", None, "connection closed without an answer"),
    ],
)
def test_bad_answers(serve: Serve, answer: bytes, status: int | None, detail: str) -> None:
    result = probe_once(ProbeTarget(HOST, serve(answering(answer, b"")).port, timeout_s=0.5))
    assert (result.ok, result.status) == (False, status)
    assert result.detail in (detail, "no answer within 0.5 s")


def test_nobody_listens() -> None:
    assert probe_once(ProbeTarget(HOST, free_port())).detail == "connection refused"


def test_an_unknown_host_is_a_bad_answer() -> None:
    assert not probe_once(ProbeTarget("no-such-host.invalid", 80, timeout_s=2)).ok


@pytest.mark.parametrize("handler", [silent, trickling])
def test_the_timeout_is_hard(serve: Serve, handler: object) -> None:
    begun = time.monotonic()
    result = probe_once(ProbeTarget(HOST, serve(handler).port), 0.3)  # type: ignore[arg-type]
    assert result.detail == "no answer within 0.3 s"
    assert 0.25 < time.monotonic() - begun < 1


def test_look_sees_readiness_soon_after_it_is_there(tmp_path: Path) -> None:
    with running(engine("mock"), tmp_path, mock={"startup_s": 0.3}) as it:
        begun = time.monotonic()
        found = look(it.target(), lambda: it.process.poll() is None, 10)
        took_s = time.monotonic() - begun
    assert found is not None
    assert found.ok
    assert found.latency_ms == pytest.approx(took_s * 1000, abs=50)
    assert 0.3 <= took_s < 1


def test_look_gives_up_when_it_died() -> None:
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(0.2)"])
    begun = time.monotonic()
    assert look(ProbeTarget(HOST, free_port()), lambda: child.poll() is None, 10) is None
    assert time.monotonic() - begun < 2


def test_look_returns_the_last_bad_answer_at_its_deadline(serve: Serve) -> None:
    begun = time.monotonic()
    found = look(ProbeTarget(HOST, serve(silent).port), lambda: True, 0.3)
    assert time.monotonic() - begun < 1
    assert found is not None
    assert not found.ok


def test_looking_does_not_keep_a_core_busy() -> None:
    asked = itertools.count()
    used = time.process_time()
    look(ProbeTarget(HOST, free_port()), lambda: next(asked) >= 0, 1.0)
    assert next(asked) < 100
    assert time.process_time() - used < 0.3
