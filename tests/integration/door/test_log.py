"""The access log: one whole JSON object for each request, whatever it was, and no secret in any."""

from __future__ import annotations

import json
import secrets
import stat

import pytest

from app.gateway.access_log import PIPE_BYTES, Scribe
from tests.support.embedded import wait_until
from tests.support.public_door import LOG_BYTES, Door, public_door

KEY = "hostler_" + "k" * 40


def line_of(door: Door, request_id: str) -> dict[str, object]:
    """The line of a request; the log is written when it has ended."""

    def found() -> list[dict[str, object]]:
        return [line for line in door.lines() if line["request_id"] == request_id]

    wait_until(lambda: bool(found()), 5, f"the line of {request_id}")
    [line] = found()
    return line


def test_a_line_tells_what_happened(door: Door) -> None:
    answer = door.get("/api/v1/pools?limit=3", X_Request_Id="told")
    line = line_of(door, "told")
    assert (line["method"], line["path"], line["status"]) == ("GET", "/api/v1/pools", 200)
    assert (line["backend"], line["server"], line["retries"], line["client"]) == ("control", "web", 0, "127.0.0.1")
    assert set(line) >= {
        "time",
        "route",
        "replica",
        "key_id",
        "queue_ms",
        "first_byte_ms",
        "total_ms",
        "bytes_in",
        "ended",
    }
    assert int(str(line["bytes_out"])) > len(answer.body)
    assert float(str(line["time"])) > 1e9


@pytest.mark.parametrize("path", ['/a"b\\c', "/%00%22%0a", "/" + "%C3%A4" * 900, "/" + '"' * 3000])
def test_every_line_is_json(door: Door, path: str) -> None:
    name = f"odd-{secrets.token_hex(4)}"
    door.get(path, X_Request_Id=name)
    assert line_of(door, name)["path"] == path[:1000]


def test_what_is_no_http_has_a_line_too(door: Door) -> None:
    before = len(door.lines())
    door.send(b"\x00\x01 nonsense\r\n\r\n")
    wait_until(lambda: len(door.lines()) > before, 5, "the line")
    assert door.lines()[-1]["status"] == 400


def test_no_secret_gets_in(door: Door) -> None:
    body = b'{"prompt": "a very private question"}'
    request = f"POST /v1/x?api_key={KEY}&token=secret-word HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n"
    request += f"X-API-Key: {KEY}\r\nCookie: session=secret-word\r\nX-Request-Id: hidden\r\n"
    door.send(f"{request}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    line_of(door, "hidden")
    text = door.places.access_log.read_text()
    assert KEY not in text
    assert "secret-word" not in text
    assert "private" not in text


def test_only_its_owner_reads_it(door: Door) -> None:
    for path in (door.places.access_log, door.places.config):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for folder in (door.places.folder, door.places.maps, door.layout.run):
        assert not stat.S_IMODE(folder.stat().st_mode) & 0o077


def test_it_is_bounded_while_haproxy_writes_on(door: Door) -> None:
    kept = door.places.access_log.with_name("access.log.1")
    kept.unlink(missing_ok=True)
    long = "/" + "x" * 900
    for _ in range(2 * LOG_BYTES // 1200):
        door.get(long)
    wait_until(kept.exists, 5, "the copy")
    assert LOG_BYTES < kept.stat().st_size < LOG_BYTES + PIPE_BYTES
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert all(json.loads(line) for line in kept.read_text().splitlines())
    door.get("/", X_Request_Id="after")
    assert line_of(door, "after")["status"] == 200
    assert door.places.access_log.stat().st_size <= LOG_BYTES


def test_without_a_reader_no_request_waits_for_the_log() -> None:
    """The agent is away, and the pipe is full."""
    with public_door() as door:
        door.scribe.stop()
        # one reader is the pipe itself, which HAProxy holds: nobody takes a line out
        long = "/" + "x" * 900
        with door.connect() as connection:
            connection.settimeout(10)
            for _ in range(2 * PIPE_BYTES // 1300):
                connection.sendall(f"GET {long} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        # the next agent finds what fitted, whole
        scribe = Scribe(door.places.access_pipe, door.places.access_log)
        scribe.start()
        try:
            wait_until(lambda: len(door.lines()) > 500, 5, "the lines that were kept")
            door.get("/", X_Request_Id="again")
            assert line_of(door, "again")["status"] == 200
        finally:
            scribe.stop()
