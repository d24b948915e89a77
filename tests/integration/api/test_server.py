"""The API as it is served: gunicorn with gevent, two processes, behind HAProxy. Waiting, streams and kept-alive
connections do not get in each other's way."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx2
import psycopg
import pytest

from app.settings import Settings
from app.stack.layout import Layout
from app.usecases import events, keys
from app.usecases.context import Context
from tests.support import plain_http
from tests.support.embedded import plain_url, wait_until

ROOT = Path(__file__).parents[3]
CREATE = {"server_mode": "replica_mock", "model_name": "any", "pool": "mock"}


@dataclass
class Server:
    url: str
    key: str
    settings: Settings

    @property
    def headers(self) -> dict[str, str]:
        return {"X-API-Key": self.key}


@pytest.fixture
def server(settings: Settings, tmp_path: Path) -> Iterator[Server]:
    key = f"server-{secrets.token_hex(16)}"
    keys.ensure_admin_key(settings, key)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "HOSTLER_STATE_DIR": str(settings.state_dir),
        "HOSTLER_DATABASE_URL": settings.database_url,
        "HOSTLER_BROKER_URL": settings.broker_url,
        "HOSTLER_NAMESPACE": settings.namespace,
        "HOSTLER_MAX_WAIT_S": "30",
        "HOSTLER_PORT": str(port),
        "HOSTLER_WEB_WORKERS": "2",
        "PYTHONPATH": str(ROOT),
        "PYTHONSAFEPATH": "1",
    }
    commands = (
        ["-m", "gunicorn", "-c", "python:app.stack.gunicorn_conf", "--graceful-timeout", "1"],
        ["-m", "app.gateway.proxy"],
    )
    with open(tmp_path / "server.log", "wb") as log:
        processes = [
            subprocess.Popen([sys.executable, *command], env=environment, cwd=tmp_path, stdout=log, stderr=log)
            for command in commands
        ]
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _answers(url), 30, f"the server; see {tmp_path}/server.log")
        yield Server(url, key, settings)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(15)


def _answers(url: str) -> bool:
    try:
        return plain_http.get(f"{url}/ready").status_code == 200
    except httpx2.TransportError:
        return False


def test_kept_alive_requests_are_not_held_back(server: Server) -> None:
    """Without TCP_NODELAY each answer on a kept connection takes 40 ms, the fastest too."""
    with plain_http.Client(base_url=server.url, headers=server.headers) as client:
        times = []
        for _ in range(40):
            started = time.perf_counter()
            assert client.get("/api/v1/pools").status_code == 200
            times.append(time.perf_counter() - started)
    assert min(times) < 0.035


def test_waiting_requests_and_streams_hold_up_nobody(server: Server) -> None:
    with plain_http.Client(base_url=server.url, headers=server.headers, timeout=60) as client:
        streams = [_open_stream(server, "/api/v1/events") for _ in range(20)]
        for stream in streams:
            # whatever happens from here on is shown
            _read_until(stream, b"retry:")
        waiting = [_send(server, "POST", "/api/v1/replicas", CREATE) for _ in range(10)]
        wait_until(lambda: client.get("/api/v1/replicas").json()["total"] == 10, 10, "10 creates")
        started = time.perf_counter()
        for _ in range(10):
            assert client.get("/health").status_code == 200
        assert time.perf_counter() - started < 2
        # every stream shows every event
        for stream in streams:
            found = b""
            while found.count(b"event: transition") < 10:
                found += stream.recv(65536)
            stream.close()
        # and a stop ends the waits at once
        for replica in client.get("/api/v1/replicas").json()["replicas"]:
            client.post(f"/api/v1/replicas/{replica['replica_id']}/stop")
        for one in waiting:
            status = one.recv(65536).split(b" ", 2)[1]
            assert status == b"502"
            one.close()


def test_a_caller_that_goes_away_ends_its_wait_and_not_the_launch(server: Server) -> None:
    with plain_http.Client(base_url=server.url, headers=server.headers, timeout=60) as client:
        gone = _send(server, "POST", "/api/v1/replicas", CREATE)
        wait_until(lambda: client.get("/api/v1/replicas").json()["total"] == 1, 10, "the create")
        assert _answered(client) == 0
        gone.close()
        # the wait notices within its next look, long before its 30 s are over, and is counted as answered
        wait_until(lambda: _answered(client) == 1, 10, "the end of the wait")
        (replica,) = client.get("/api/v1/replicas").json()["replicas"]
        assert replica["status"] == "pending"


def test_metrics_are_of_all_processes(server: Server) -> None:
    for _ in range(20):
        # a connection of its own each, so that both processes get some
        assert plain_http.get(f"{server.url}/api/v1/nodes", headers=server.headers).status_code == 200
    wanted = 'hostler_http_requests_total{method="GET",route="/api/v1/nodes",status="200"} 20.0'
    for _ in range(6):
        assert wanted in plain_http.get(f"{server.url}/metrics", headers=server.headers).text


def test_a_lost_listener_comes_back(server: Server) -> None:
    """Streams go on when Postgres drops the one connection that listens."""
    context = Context.open(server.settings)
    stream = _open_stream(server, "/api/v1/events?kind=test")
    try:
        _read_until(stream, b"retry:")
        with psycopg.connect(plain_url(server.settings.database_url), autocommit=True) as connection:
            wait_until(lambda: _listeners(connection), 10, "a listener")
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'hostler-listen'"
            )
            events.record_event(context, "test", {"number": 1})
            _read_until(stream, b'"number":1')
            wait_until(lambda: _listeners(connection), 10, "another listener")
    finally:
        stream.close()
        context.close()


def _read_until(stream: socket.socket, wanted: bytes) -> None:
    """What was sent may come in any pieces."""
    found = b""
    while wanted not in found:
        more = stream.recv(65536)
        assert more, f"the stream ended before {wanted!r}: {found!r}"
        found += more


def _listeners(connection: psycopg.Connection) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hostler-listen'"
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def _answered(client: httpx2.Client) -> int:
    """How many creates were answered."""
    lines = client.get("/metrics").text.splitlines()
    name = 'hostler_http_requests_total{method="POST",route="/api/v1/replicas"'
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines if line.startswith(name))


def _open_stream(server: Server, path: str) -> socket.socket:
    return _send(server, "GET", path, None, "Accept: text/event-stream\r\n")


def _send(server: Server, method: str, path: str, body: object, extra: str = "") -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    content = json.dumps(body).encode() if body is not None else b""
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {server.key}\r\n{extra}"
    head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    connection.sendall(head.encode() + content)
    return connection


#: What gunicorn refuses before the application sees it, and what the application meets in the middle of a body.
UNREADABLE = {
    "no request line": (b"\x00\x01\x02\r\n\r\n", 400),
    "no path": (b"GET\r\n\r\n", 400),
    "another protocol": (b"GET / HTTP/9.9\r\n\r\n", 400),
    "a long address": (b"GET /%s HTTP/1.1\r\n\r\n" % (b"a" * 9000), 414),
    "a long header": (b"GET / HTTP/1.1\r\nX: %s\r\n\r\n" % (b"a" * 90_000), 431),
    "many headers": (b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 200 + b"\r\n", 431),
    "a bad header name": (b"GET / HTTP/1.1\r\nX A: b\r\n\r\n", 400),
    "a folded header": (b"GET / HTTP/1.1\r\nX: b\r\n c\r\n\r\n", 400),
    "NUL in a header": (b"GET / HTTP/1.1\r\nX: b\0c\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "two types": (b"POST / HTTP/1.1\r\nContent-Type: a/b\r\nContent-Type: c/d\r\n\r\n", 400),
    "two lengths": (b"POST / HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
    "a negative length": (b"POST / HTTP/1.1\r\nContent-Length: -2\r\n\r\n{}", 400),
    "length and chunks": (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n", 400),
    "an unknown coding": (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
    "an unknown wish": (b"POST / HTTP/1.1\r\nExpect: 200-ok\r\nContent-Length: 2\r\n\r\n{}", 400),
    "schemes that contradict": (
        b"GET / HTTP/1.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off\r\n\r\n",
        400,
    ),
}
CHUNKED = {
    "no size": (b"zz\r\n{}\r\n0\r\n\r\n", 400),
    "no end": (b"2\r\n{}XX0\r\n\r\n", 400),
    "a bad extension": (b"2;a=\x01\r\n{}\r\n0\r\n\r\n", 400),
    "too much": (b'100010\r\n"%s"\r\n0\r\n\r\n' % (b"a" * (0x100010 - 2)), 413),
}


def test_what_is_no_http_is_answered_with_a_problem(server: Server) -> None:
    head = b"POST /api/v1/replicas HTTP/1.1\r\nX-API-Key: %s\r\n" % server.key.encode()
    head += b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    sent = UNREADABLE | {f"chunked: {name}": (head + body, status) for name, (body, status) in CHUNKED.items()}
    for name, (request, status) in sent.items():
        # past the gateway, which lets few of these through
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(str(Layout(server.settings.state_dir).web_socket))
            connection.sendall(request)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            problem = json.loads(answer.read())
            assert answer.status == problem["status"] == status, f"{name}: {problem}"
            assert answer.headers["Content-Type"] == "application/problem+json", name
            assert answer.headers["X-Request-Id"] == problem["request_id"], name
            assert problem["code"] in ("malformed", "uri_too_long", "headers_too_large", "body_too_large"), name
            if problem["code"] == "malformed":
                # where the next request begins is unknown, so none is served
                with suppress(ConnectionError):
                    connection.sendall(b"GET /health HTTP/1.1\r\n\r\n")
                    assert connection.recv(1) == b"", name
