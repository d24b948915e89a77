"""What goes wrong behind the door, as the caller is told."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.integration.inference.conftest import Served, events
from tests.support.embedded import wait_until
from tests.support.problems import assert_problem

GENERATE = {"prompt": "Hello", "max_tokens": 10, "model_id": "m"}


@contextmanager
def answering(raw: bytes, *, more: bytes = b"", hold: bool = False) -> Iterator[int]:
    """A server that answers everything with these bytes, and then closes, or holds, the connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            client.recv(65536)
            client.sendall(raw)
            if more:
                client.sendall(more)
            if hold:
                held.append(client)
            else:
                client.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for client in held:
            client.close()


def http(status: str, body: bytes, kind: str = "application/json") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def behind(served: Served, raw: bytes, **more: Any) -> None:
    """A replica of m that llama.cpp is not."""
    port = served.exits.enter_context(answering(raw, **more))
    served.row("m", "llama-cpp")
    served.routes["m"] = [port]


def test_no_gateway(served: Served) -> None:
    served.row("m", "mock")
    answer = served.post("/generate", GENERATE)
    assert_problem(answer, 503, "gateway_unavailable")
    assert answer.headers["Retry-After"] == "1"


def test_a_model_that_nothing_serves_yet(served: Served) -> None:
    served.row("m", "mock", state="pending")
    served.routes["m"] = []
    served.open()
    for path in ("/generate", "/stream/generate"):
        answer = served.post(path, GENERATE)
        assert_problem(answer, 503, "no_ready_replica")
        assert answer.headers["Retry-After"] == "2"


def test_a_full_queue(served: Served) -> None:
    served.run("m", "mock", mock={"latency_ms": 60_000})
    served.open(maxconn=1, queued=1)
    answers: list[Any] = []
    asking = [threading.Thread(target=lambda: answers.append(served.post("/generate", GENERATE))) for _ in range(8)]
    for one in asking:
        one.start()
    # one is worked on, some wait, the rest are told so at once
    wait_until(lambda: answers, 20, "a full queue")
    assert_problem(answers[0], 429, "queue_full")
    assert answers[0].headers["Retry-After"] == "3"
    # the end of the door ends those that wait
    served.door.close()
    for one in asking:
        one.join()


def test_a_context_that_is_too_short(served: Served) -> None:
    served.run("m", n_ctx=256)
    served.open()
    for path in ("/generate", "/stream/generate"):
        problem = assert_problem(served.post(path, GENERATE | {"prompt": "x " * 2000}), 422, "replica_refused")
        assert "context" in problem["error"]


@pytest.mark.parametrize(
    "raw, status, code",
    [
        (http("200 OK", b"<html>"), 502, "replica_bad_answer"),
        (http("200 OK", b"[]"), 502, "replica_bad_answer"),
        (http("200 OK", b'{"content": 7, "tokens": []}'), 502, "replica_bad_answer"),
        (http("200 OK", b"[" * 100_000), 502, "replica_bad_answer"),
        (http("500 Oops", b'{"error": {"message": "out\\nof \\u001b[31m memory"}}'), 502, "replica_bad_answer"),
        (http("503 Later", b'{"error": {"message": "Loading model"}}'), 503, "no_ready_replica"),
        (http("401 No", b"{}"), 502, "replica_bad_answer"),
        (http("404 No", b"{}"), 501, "not_offered"),
        (http("422 No", b'{"detail": "too hot"}'), 422, "replica_refused"),
        (http("418 Tea", b"tea", "text/plain"), 422, "replica_refused"),
        (b"SSH-2.0-OpenSSH_9\r\n", 502, "replica_bad_answer"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n{",
            502,
            "replica_bad_answer",
        ),
        (b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"con', 502, "replica_bad_answer"),
    ],
)
def test_what_replicas_answer(served: Served, raw: bytes, status: int, code: str) -> None:
    behind(served, raw)
    served.open()
    problem = assert_problem(served.post("/generate", GENERATE), status, code)
    assert problem["error"].isprintable()


def test_a_replica_that_does_not_answer_in_time(served: Served) -> None:
    behind(served, b"", hold=True)
    served.open(server_s=1)
    assert_problem(served.post("/generate", GENERATE), 504, "replica_too_slow")


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def piece(text: str, **more: Any) -> bytes:
    return b"data: " + json.dumps({"content": text, "tokens": [1], "stop": False, **more}).encode() + b"\n\n"


def test_a_stream_that_breaks_off_says_so(served: Served) -> None:
    behind(served, STREAM + chunk(piece("one")))
    served.open()
    told = events(served.post("/stream/generate", GENERATE))
    assert told[0] == {"token": "one"}
    assert (told[1]["status"], told[1]["code"]) == (502, "replica_bad_answer")
    assert len(told) == 2, "it is not done"


def test_a_stream_that_ends_without_its_last_event_says_so(served: Served) -> None:
    behind(served, STREAM + chunk(piece("one")) + b"0\r\n\r\n")
    served.open()
    told = events(served.post("/stream/generate", GENERATE))
    assert [one.get("code") for one in told] == [None, "replica_bad_answer"]


def test_a_stream_that_fails_in_its_own_words(served: Served) -> None:
    behind(served, STREAM + chunk(piece("one")) + chunk(b'data: {"error": {"message": "out of memory"}}\n\n'))
    served.open()
    told = events(served.post("/stream/generate", GENERATE))
    assert "out of memory" in told[-1]["error"]


def test_characters_split_over_events_and_packets_stay_whole(served: Served) -> None:
    whole = piece("ü🚂") + b'data: {"content": "a\\ud83d", "tokens": [2], "stop": false}\n\n'
    whole += (
        b'data: {"content": "\\ude82b", "tokens": [3], "stop": false}\n\n' + piece("\\ud83d") + piece("z", stop=True)
    )
    raw = json.dumps("🚂", ensure_ascii=False).encode()
    whole = whole.replace(json.dumps("🚂").encode(), raw)
    # one byte per chunk: no event, and no character, comes in one piece
    behind(served, STREAM + b"".join(chunk(bytes([one])) for one in whole) + b"0\r\n\r\n")
    served.open()
    told = events(served.post("/stream/generate", GENERATE))
    assert [one.get("token") for one in told[:-1]] == ["ü🚂", "a", "🚂b", "\\ud83d", "z"]


def test_an_event_without_an_end_is_cut(served: Served) -> None:
    behind(served, STREAM + chunk(piece("one")), more=chunk(b"data: " + b"x" * (2 * 1024 * 1024)), hold=True)
    served.open()
    told = events(served.post("/stream/generate", GENERATE))
    assert told[0] == {"token": "one"}
    assert "larger than" in told[-1]["error"]


def test_an_event_that_breaks_off_is_none(served: Served) -> None:
    behind(served, STREAM + chunk(piece("one")) + chunk(b'data: {"content": "tw'))
    served.open()
    told = events(served.post("/stream/generate", GENERATE))
    assert told[0] == {"token": "one"}
    assert "broke off" in told[-1]["error"]
    assert len(told) == 2


def test_one_failed_item_fails_the_batch_and_is_named(served: Served) -> None:
    served.run("m", n_ctx=256)
    served.open()
    prompts = ["a"] * 5 + ["x " * 2000] + ["b"] * 30
    problem = assert_problem(
        served.post("/batch/generate", {"prompts": prompts, "max_tokens": 3}), 422, "replica_refused"
    )
    assert problem["index"] == 5
    assert "prompts.5" in problem["errors"]
    assert problem["error"].startswith("prompts[5]: ")


def test_a_batch_of_a_thousand(served: Served) -> None:
    served.run("m", "mock")
    served.open()
    texts = [f"word {number}" for number in range(1000)]
    results = served.post("/batch/tokenize", {"texts": texts}).get_json()["results"]
    assert len(results) == 1000
    for index in (0, 1, 500, 999):
        assert results[index] == served.post("/tokenize", {"text": texts[index]}).get_json()
    made = served.post("/batch/generate", {"prompts": texts, "max_tokens": 2, "seed": 5}).get_json()["results"]
    assert [one["num_generated"] for one in made] == [2] * 1000
    again = served.post("/generate", {"prompt": texts[777], "max_tokens": 2, "seed": 5}).get_json()
    assert made[777] == again


@pytest.mark.parametrize(
    "path, body, status",
    [
        ("/batch/tokenize", {"texts": ["a"] * 1025}, 422),
        ("/batch/generate", {"prompts": ["a"] * 1025}, 422),
        ("/batch/generate", {"prompts": ["a"] * 1024, "max_tokens": 1025}, 422),
        ("/generate", {"prompt": "a", "max_tokens": 0}, 422),
        ("/generate", {"prompt": "a", "max_tokens": 131_073}, 422),
        ("/generate", {"prompt": "a", "max_tokens": True}, 422),
        ("/generate", {"prompt": "a", "temperature": -1}, 422),
        ("/generate", {"prompt": "a", "top_p": 0}, 422),
        ("/generate", {"prompt": "a", "top_p": 1.1}, 422),
        ("/generate", {"prompt": "a", "top_k": 0}, 422),
        ("/generate", {"prompt": "a", "seed": 1.5}, 422),
        ("/generate", {"prompt": ["a"]}, 422),
        ("/generate", {"prompt": "a", "stream": True}, 422),
        ("/generate", {"prompt": "a" * 1_100_000}, 413),
        ("/batch/generate", {"prompts": "abc"}, 422),
    ],
)
def test_bounds(served: Served, path: str, body: dict[str, Any], status: int) -> None:
    served.row("m", "mock")
    answer = served.post(path, body)
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")
