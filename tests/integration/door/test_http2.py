"""HTTP/2 at the door, by frames made by hand: it is spoken, and its floods stay the flooder's own trouble."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.support.embedded import wait_until
from tests.support.public_door import Door

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
MAX_CONCURRENT_STREAMS = 3
#: ``:method GET``, ``:scheme http``, ``:path /`` of HPACK's own table, and ``:authority door``.
GET = b"\x82\x86\x84\x41\x04door"
FLOOD = 3000


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


class Caller:
    """One HTTP/2 connection without TLS, as one begins that knows what the other side speaks."""

    def __init__(self, door: Door) -> None:
        self._socket = door.connect()
        self._rest = b""
        self._socket.sendall(PREFACE + frame(SETTINGS, 0, 0))

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, *frames: bytes) -> None:
        """What the door does not want any more is lost."""
        with suppress(OSError):
            self._socket.sendall(b"".join(frames))

    def frames(self, timeout_s: float = 5) -> Iterator[tuple[int, int, int, bytes]]:
        """(kind, flags, stream, payload) of what comes, until the connection ends or nothing more does."""
        self._socket.settimeout(timeout_s)
        with suppress(OSError):
            while True:
                while len(self._rest) < 9 or len(self._rest) < 9 + self._length:
                    more = self._socket.recv(65536)
                    if not more:
                        return
                    self._rest += more
                length = self._length
                kind, flags, stream = struct.unpack(">BBI", self._rest[3:9])
                payload, self._rest = self._rest[9 : 9 + length], self._rest[9 + length :]
                yield kind, flags, stream, payload

    @property
    def _length(self) -> int:
        return int.from_bytes(self._rest[:3], "big")

    @property
    def is_open(self) -> bool:
        self._socket.settimeout(0.2)
        try:
            while self._socket.recv(65536):
                continue
        except TimeoutError:
            return True
        except OSError:
            return False
        return False


def test_it_is_spoken(door: Door) -> None:
    with Caller(door) as caller:
        caller.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, GET))
        body = next(payload for kind, _, stream, payload in caller.frames() if kind == DATA and stream == 1)
    assert body == b"ok"
    [request] = door.behind.seen
    assert request.startswith(b"GET / HTTP/1.1\r\n")
    assert b"x-forwarded-for: 127.0.0.1\r\n" in request


def test_streams_at_once_are_bounded(door: Door) -> None:
    door.behind.answer = None
    with Caller(door) as caller:
        [settings] = [payload for kind, flags, _, payload in caller.frames(0.5) if kind == SETTINGS and not flags & ACK]
        told = dict(struct.iter_unpack(">HI", settings))
        assert told[MAX_CONCURRENT_STREAMS] == 100
        caller.send(*(frame(HEADERS, END_STREAM | END_HEADERS, 2 * number + 1, GET) for number in range(300)))
        wait_until(lambda: len(door.behind.seen) >= 100, 5, "those that are let in")
        assert caller.is_open in (True, False)
        assert len(door.behind.seen) == 100
    wait_until(lambda: door.behind.gone >= 100, 10, "their end, with their caller's")


def test_streams_opened_and_reset_cost_the_others_nothing(door: Door) -> None:
    """Rapid reset: what is taken back at once must not pile up behind the door."""
    door.behind.answer = None
    with Caller(door) as caller:
        for number in range(FLOOD):
            stream = 2 * number + 1
            caller.send(frame(HEADERS, END_STREAM | END_HEADERS, stream, GET), frame(RST_STREAM, 0, stream, bytes(4)))
        door.behind.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        assert door.get("/after").status == 200
    wait_until(lambda: "CurrConns: 0" in door.ask("show info"), 10, "an empty door")


@pytest.mark.parametrize(
    "flood",
    [
        pytest.param(
            frame(HEADERS, 0, 1, GET) + frame(CONTINUATION, 0, 1, b"\x00\x01a\x01b" * 200) * 200, id="headers"
        ),
        pytest.param(frame(PING, 0, 0, bytes(8)) * FLOOD, id="pings"),
        pytest.param(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65535)) * FLOOD, id="settings"),
        pytest.param(frame(HEADERS, END_HEADERS, 1, GET) + frame(DATA, 0, 1) * FLOOD, id="empty data"),
        pytest.param(frame(99, 0, 0, b"x" * 100) * FLOOD, id="unknown frames"),
        pytest.param(frame(HEADERS, END_STREAM | END_HEADERS, 2, GET) * FLOOD, id="the server's stream ids"),
        pytest.param(b"\xff" * 100_000, id="no frames"),
    ],
)
def test_floods_hold_up_nobody(door: Door, flood: bytes) -> None:
    callers = [Caller(door) for _ in range(4)]
    try:
        for caller in callers:
            caller.send(flood)
        for _ in range(20):
            assert door.get("/").status == 200
    finally:
        for caller in callers:
            caller.__exit__()
    wait_until(lambda: "CurrConns: 0" in door.ask("show info"), 10, "an empty door")


def test_headers_without_end_close_the_connection(door: Door) -> None:
    with Caller(door) as caller:
        caller.send(
            frame(HEADERS, 0, 1, GET), *([frame(CONTINUATION, 0, 1, b"\x00\x01a\x7f\x80\x7f" + b"b" * 255)] * 600)
        )
        assert not caller.is_open
    assert door.behind.seen == []


def test_who_speaks_both_at_once_is_let_in_by_neither(door: Door) -> None:
    with socket.create_connection(("127.0.0.1", door.port), timeout=5) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n")
        with suppress(OSError):
            while connection.recv(65536):
                continue
    assert door.behind.seen == []
