"""The mock engine's server: what it answers, and each fault it can be told to have."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from app.engines.registry import engine
from tests.support.engines import HOST, KEY, Running, running, wait_until
from workers.probes.http import look, probe_once

Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the mock engine with knobs, ready unless told otherwise."""
    with ExitStack() as stack:

        def start(*, ready: bool = True, **knobs: Any) -> Running:
            it = stack.enter_context(running(engine("mock"), tmp_path / "attempt", mock=knobs))
            if ready:
                it.wait_ready()
            return it

        yield start


def ask(it: Running, path: str, body: Any = None, *, timeout_s: float = 5) -> tuple[int, Any]:
    """Status and JSON of one request."""
    connection = http.client.HTTPConnection(HOST, it.port, timeout=timeout_s)
    try:
        content = body if isinstance(body, (str, bytes, type(None))) else json.dumps(body)
        connection.request("POST" if body is not None else "GET", path, content, {"Authorization": f"Bearer {KEY}"})
        answer = connection.getresponse()
        data = answer.read().decode()
        return answer.status, json.loads(data) if answer.headers["Content-Type"] == "application/json" else data
    finally:
        connection.close()


def complete(it: Running, **more: Any) -> Any:
    status, answer = ask(it, "/v1/completions", {"prompt": "one two three", **more})
    assert status == 200, answer
    return answer


def events(it: Running, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of a stream, the closing one left out."""
    _, text = ask(it, path, {**body, "stream": True})
    found = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert found.pop() == "[DONE]"
    return [json.loads(event) for event in found]


def test_a_completion_counts_its_tokens_and_repeats_by_seed(start: Start) -> None:
    it = start()
    first = complete(it, max_tokens=5)
    assert first["usage"] == {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    (choice,) = first["choices"]
    assert (choice["finish_reason"], len(choice["text"].split())) == ("length", 5)
    assert complete(it, max_tokens=5)["choices"] == first["choices"]
    assert complete(it, max_tokens=5, seed=1)["choices"] != first["choices"]
    assert complete(it, prompt="other", max_tokens=5)["choices"] != first["choices"]
    assert complete(it)["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "path, asked, text_of",
    [
        ("/v1/completions", {"prompt": "hi"}, lambda choice: choice["text"]),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "hi"}]},
            lambda choice: (choice.get("delta") or choice.get("message") or {}).get("content", ""),
        ),
    ],
)
def test_a_stream_says_the_same_as_a_whole_answer(
    start: Start, path: str, asked: dict[str, Any], text_of: Callable[[dict[str, Any]], str]
) -> None:
    it = start()
    _, whole = ask(it, path, asked)
    parts = events(it, path, {**asked, "stream_options": {"include_usage": True}})
    usage = parts.pop()
    assert (usage["choices"], usage["usage"]) == ([], whole["usage"])
    assert "".join(text_of(part["choices"][0]) for part in parts) == text_of(whole["choices"][0])
    assert [part["choices"][0]["finish_reason"] for part in parts[-2:]] == [None, "stop"]


def test_embeddings_have_length_one_and_repeat(start: Start) -> None:
    it = start()
    _, answer = ask(it, "/v1/embeddings", {"input": ["a", "b", "a"]})
    first, second, third = (item["embedding"] for item in answer["data"])
    assert first == third != second
    assert sum(value * value for value in first) == pytest.approx(1)


def test_tokens_are_counted_where_llama_cpp_counts_them(start: Start) -> None:
    it = start()
    assert (
        ask(it, "/tokenize", {"content": "a b a"})[1]["tokens"].count(
            ask(it, "/tokenize", {"content": "a"})[1]["tokens"][0]
        )
        == 2
    )
    complete(it, max_tokens=7)
    events(it, "/v1/completions", {"prompt": "x", "max_tokens": 4})
    lines = ask(it, "/metrics")[1].splitlines()
    assert "llamacpp:tokens_predicted_total 11" in lines
    assert "llamacpp:prompt_tokens_total 4" in lines
    assert "mock:requests_finished_total 2" in lines


@pytest.mark.parametrize(
    "path, body, status",
    [
        ("/v1/completions", "{", 400),
        ("/v1/completions", "[]", 400),
        ("/v1/chat/completions", {"messages": []}, 400),
        ("/v1/completions", None, 405),
        ("/health", {}, 405),
        ("/nothing", None, 404),
        ("/tokenize", {"content": 1}, 400),
    ],
)
def test_bad_requests_have_real_status_codes(start: Start, path: str, body: Any, status: int) -> None:
    it = start()
    answered, problem = ask(it, path, body)
    assert answered == status
    assert problem["error"]["message"]
    assert ask(it, "/health")[0] == 200


def test_what_is_no_http_is_refused_and_harms_nobody(start: Start) -> None:
    it = start()
    for junk in (b"\x16\x03\x01\r\n\r\n", b"x" * 70_000, b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"):
        with socket.create_connection((HOST, it.port), timeout=5) as connection:
            connection.sendall(junk)
            assert connection.recv(100).startswith(b"HTTP/1.1 4")
    assert ask(it, "/health")[0] == 200


def test_a_kept_connection_answers_without_delay(start: Start) -> None:
    # without TCP_NODELAY each of them waits 40 ms for a delayed acknowledgement
    it = start()
    connection = http.client.HTTPConnection(HOST, it.port, timeout=5)
    body = json.dumps({"prompt": "x", "max_tokens": 3})
    begun = time.monotonic()
    for _ in range(50):
        connection.request("POST", "/v1/completions", body, {"Authorization": f"Bearer {KEY}"})
        connection.getresponse().read()
    connection.close()
    assert time.monotonic() - begun < 1


def test_pipelined_requests_are_answered_in_order(start: Start) -> None:
    it = start()
    with socket.create_connection((HOST, it.port), timeout=5) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\n\r\nGET /none HTTP/1.1\r\nConnection: close\r\n\r\n")
        got = b"".join(iter(lambda: connection.recv(4096), b""))
    assert got.index(b" 200 ") < got.index(b" 401 ")


def test_a_large_answer_is_sent_to_a_slow_reader(start: Start) -> None:
    it = start()
    _, answer = ask(it, "/v1/embeddings", {"input": ["x"] * 3000}, timeout_s=20)
    assert len(answer["data"]) == 3000


def test_a_start_is_recorded_once(start: Start) -> None:
    it = start()
    assert [line.split()[0] for line in (it.folder / "starts").read_text().splitlines()] == [str(it.process.pid)]


def test_a_slow_start_refuses_or_answers_503(start: Start) -> None:
    it = start(ready=False, startup_s=0.4)
    assert probe_once(it.target()).detail == "connection refused"
    begun = time.monotonic()
    it.wait_ready()
    assert time.monotonic() - begun > 0.2


def test_a_loading_engine_answers_503(start: Start) -> None:
    it = start(ready=False, startup_s=0.5, startup_answers_503=True)
    wait_until(lambda: probe_once(it.target()).status == 503, "503 while it loads")
    it.wait_ready()


def test_pace_and_latency(start: Start) -> None:
    it = start(latency_ms=50, ttft_ms=100, tokens_per_s=100)
    begun = time.monotonic()
    events(it, "/v1/completions", {"prompt": "x", "max_tokens": 21})
    assert 0.34 <= time.monotonic() - begun < 1.5


def test_errors_come_at_their_rate_and_repeat_by_seed(start: Start) -> None:
    it = start(error_rate=0.5, seed=3)
    first = [ask(it, "/v1/completions", {"prompt": "x"})[0] for _ in range(40)]
    assert set(first) == {200, 500}
    assert 8 < first.count(500) < 32
    it.process.kill()
    it.wait_exit()
    again = start(error_rate=0.5, seed=3)
    assert [ask(again, "/v1/completions", {"prompt": "x"})[0] for _ in range(40)] == first


def test_a_hung_engine_is_healthy_and_never_answers(start: Start) -> None:
    it = start(hang_after_n=1)
    complete(it)
    with pytest.raises(TimeoutError):
        ask(it, "/v1/completions", {"prompt": "x"}, timeout_s=0.3)
    assert ask(it, "/health")[0] == 200
    assert ask(it, "/v1/models")[0] == 200


def test_it_crashes_at_the_request_after_the_nth(start: Start) -> None:
    it = start(crash_after_n=2, exit_code=9)
    complete(it)
    complete(it)
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        complete(it)
    assert it.wait_exit() == 9
    assert "crashes at request 3" in it.log


def test_it_exits_on_start_with_its_log(start: Start) -> None:
    it = start(ready=False, exit_on_start=42, log_lines=["CUDA error: out of memory"])
    assert it.wait_exit() == 42
    assert it.log.splitlines()[0] == "CUDA error: out of memory"


def test_it_exits_while_it_starts(start: Start) -> None:
    it = start(ready=False, startup_s=30, exit_after_s=0.2, exit_code=3)
    assert look(it.target(), lambda: it.process.poll() is None, 5) is None
    assert it.wait_exit() == 3


def test_health_can_fail_and_hang(start: Start) -> None:
    it = start(health_fails_after_s=0.3)
    wait_until(lambda: probe_once(it.target()).status == 500, "a failing /health")
    assert ask(it, "/v1/models")[0] == 200


def test_health_can_hang(start: Start) -> None:
    it = start(health_hangs_after_s=0.3)
    wait_until(lambda: "no answer" in probe_once(it.target(), 0.1).detail, "a hung /health")


def test_sigterm_can_be_ignored(start: Start) -> None:
    it = start(ignore_sigterm=True)
    it.process.send_signal(signal.SIGTERM)
    assert ask(it, "/health")[0] == 200
    assert it.process.poll() is None


def test_stopping_can_take_time(start: Start) -> None:
    it = start(stop_s=0.3)
    begun = time.monotonic()
    it.process.send_signal(signal.SIGTERM)
    assert it.wait_exit() == 0
    assert time.monotonic() - begun >= 0.3


def test_a_client_that_goes_away_frees_its_slot(start: Start) -> None:
    it = start(slots=1, tokens_per_s=1)
    with socket.create_connection((HOST, it.port), timeout=5) as connection:
        body = json.dumps({"prompt": "x", "stream": True})
        head = f"POST /v1/completions HTTP/1.1\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(f"{head}{body}".encode())
        assert b"data:" in connection.recv(4096) + connection.recv(4096)
        assert _state(it)["active"] == 1
    wait_until(lambda: _state(it)["cancelled"] == 1, "the cancelled request")
    assert (_state(it)["active"], _state(it)["waiting"]) == (0, 0)


def test_requests_beyond_the_slots_wait_and_are_served(start: Start) -> None:
    it = start(slots=1, latency_ms=100)
    connections = [http.client.HTTPConnection(HOST, it.port, timeout=5) for _ in range(3)]
    for connection in connections:
        connection.request("POST", "/v1/completions", '{"prompt": "x"}', {"Authorization": f"Bearer {KEY}"})
    wait_until(lambda: _state(it)["waiting"] == 2, "two waiting requests")
    assert [connection.getresponse().status for connection in connections] == [200, 200, 200]
    for connection in connections:
        connection.close()


def test_every_parameter_of_a_request_can_be_seen(start: Start) -> None:
    it = start()
    complete(it, temperature=0.3, top_p=0.8)
    assert _state(it)["last_request"] == {"prompt": "one two three", "temperature": 0.3, "top_p": 0.8}


def _state(it: Running) -> dict[str, Any]:
    return dict(ask(it, "/mock/state")[1])
