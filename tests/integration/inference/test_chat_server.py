"""The chat as it is served: gunicorn behind HAProxy, callers that stay or leave, engines that die."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

import httpx2
import pytest

from tests.integration.inference.conftest import Served
from tests.integration.inference.test_chat import SEED
from tests.integration.inference.test_server import SOON_S, Server, read_until, serve, state
from tests.support import plain_http
from tests.support.embedded import wait_until

__all__ = ["serve"]

LONG = SEED | {"max_tokens": 1000}


def rest_of(client: socket.socket) -> bytes:
    """Everything until the other side ends the connection, however it does."""
    client.settimeout(20)
    found = b""
    try:
        while more := client.recv(65536):
            found += more
    except ConnectionError:
        pass
    return found


def test_tokens_come_as_they_are_made(serve: Callable[..., Server], served: Served) -> None:
    it = served.run("m", "mock", mock={"tokens_per_s": 5})
    with serve().begin("/chat", LONG) as client:
        head = read_until(client, b"\r\n\r\n")
        # the first is here while the engine still makes the others
        assert (state(it)["active"], state(it)["tokens"] < 20) == (1, True)
        head, _, body = head.partition(b"\r\n\r\n")
        assert b"content-type: text/plain; charset=utf-8" in head.lower()
        assert b"transfer-encoding: chunked" in head.lower()
        # and so are the others, each in a chunk of its own
        counts = []
        while len(counts) < 4:
            body += client.recv(65536)
            counts.append((body.count(b"\r\n") // 2, state(it)["tokens"]))
        assert all(made - seen <= 2 for seen, made in counts), counts


def test_one_token_of_a_real_model_at_a_time(serve: Callable[..., Server], served: Served) -> None:
    served.run("m")
    server = serve()
    with plain_http.stream(
        "POST",
        f"http://127.0.0.1:{server.port}/chat",
        json=SEED | {"max_tokens": 40},
        headers={"X-API-Key": served.key},
        timeout=30,
        trust_env=False,
    ) as answer:
        pieces = list(answer.iter_raw())
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert len(b"".join(pieces).decode()) > 10


@pytest.mark.parametrize("mock", [{"ttft_ms": 600_000}, {"tokens_per_s": 0.1}], ids=["waiting", "reading"])
def test_a_caller_that_leaves_frees_its_worker(
    serve: Callable[..., Server], served: Served, mock: dict[str, float]
) -> None:
    it = served.run("m", "mock", mock=mock)
    server = serve()
    client = server.begin("/chat", LONG)
    wait_until(lambda: state(it)["active"] == 1, 10, "a request at the worker")
    if "tokens_per_s" in mock:
        read_until(client, b"\r\n\r\n")
    client.close()
    wait_until(lambda: state(it)["cancelled"] == 1, SOON_S + 4, "its end")
    assert state(it)["active"] == 0
    assert "Traceback" not in server.log.read_text(), "somebody left, nothing failed"


def test_a_caller_that_leaves_the_queue_leaves_nothing_behind(serve: Callable[..., Server], served: Served) -> None:
    it = served.run("m", "mock", mock={"ttft_ms": 1500})
    server = serve(maxconn=1)
    with server.begin("/chat", SEED):
        wait_until(lambda: state(it)["active"] == 1, 10, "a request at the worker")
        server.begin("/chat", SEED).close()
        assert server.ask("/chat", SEED).status_code == 200
        assert state(it)["started"] == 2


def test_a_worker_that_dies_in_the_middle_ends_the_answer_abnormally(
    serve: Callable[..., Server], served: Served
) -> None:
    it = served.run("m", "mock", mock={"tokens_per_s": 20})
    server = serve()
    with server.begin("/chat", LONG) as client:
        head = read_until(client, b"\r\n\r\n")
        os.kill(it.process.pid, signal.SIGKILL)
        said = head + rest_of(client)
    assert b"200 OK" in said
    assert not said.endswith(b"0\r\n\r\n"), "it must not look whole"
    assert "Traceback" not in server.log.read_text()


def test_clients_report_an_answer_that_broke_off(serve: Callable[..., Server], served: Served) -> None:
    it = served.run("m", "mock", mock={"tokens_per_s": 20})
    server = serve()

    def read() -> None:
        url, key = f"http://127.0.0.1:{server.port}/chat", {"X-API-Key": served.key}
        with plain_http.stream("POST", url, json=LONG, headers=key, timeout=20, trust_env=False) as answer:
            for number, _piece in enumerate(answer.iter_raw()):
                if number == 2:
                    os.kill(it.process.pid, signal.SIGKILL)

    with pytest.raises(httpx2.RemoteProtocolError):
        read()


def test_before_the_first_text_another_worker_takes_it(serve: Callable[..., Server], served: Served) -> None:
    dying = served.run("m", "mock", mock={"ttft_ms": 600_000})
    served.run("m", "mock")
    server = serve()
    with ThreadPoolExecutor(16) as pool:
        asked = []
        while state(dying)["active"] == 0:
            # the other one answers at once, so that this one is soon the idler
            asked.append(pool.submit(server.ask, "/chat", SEED | {"max_tokens": 5}))
            wait([asked[-1]], timeout=0.05)
        # its head has come, and no text
        os.kill(dying.process.pid, signal.SIGKILL)
        answers = [one.result(30) for one in asked]
    assert [(answer.status_code, len(answer.text.split())) for answer in answers] == [(200, 5)] * len(answers)
