"""Event streams that stay open, and that break and go on: each must show every event once, in one order."""

from __future__ import annotations

import random
import selectors
import socket
import threading
import time

from benchmarks.stack import Stack

#: Between two streams that are broken off.
BREAK_EVERY_S = 5.0


class Readers:
    """One thread that reads ``count`` streams. ``events`` counts what they told, ``resets`` what retention took."""

    def __init__(self, stack: Stack, count: int, drawn_from: random.Random) -> None:
        self._stack = stack
        self._count = count
        self._random = drawn_from
        self._over = threading.Event()
        self._selector = selectors.EpollSelector()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.events = self.breaks = self.resets = self.out_of_order = 0

    def start(self) -> None:
        for _ in range(self._count):
            self._open(_Stream())
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(10)
        for key in list(self._selector.get_map().values()):
            self._close(key.data)
        self._selector.close()

    def _run(self) -> None:
        break_at = time.monotonic() + BREAK_EVERY_S
        while not self._over.is_set():
            for key, _ in self._selector.select(0.5):
                self._read(key.data)
            if time.monotonic() >= break_at:
                break_at = time.monotonic() + BREAK_EVERY_S
                self._again(self._random.choice(list(self._selector.get_map().values())).data)

    def _open(self, stream: _Stream) -> None:
        stream.sock = socket.create_connection(("127.0.0.1", self._stack.port), timeout=10)
        resume = f"Last-Event-ID: {stream.last}\r\n" if stream.last else ""
        stream.sock.sendall(
            f"GET /api/v1/events HTTP/1.1\r\nHost: stack\r\nX-API-Key: {self._stack.key}\r\n{resume}"
            "Accept: text/event-stream\r\n\r\n".encode()
        )
        stream.rest = b""
        self._selector.register(stream.sock, selectors.EVENT_READ, stream)

    def _close(self, stream: _Stream) -> None:
        self._selector.unregister(stream.sock)
        stream.sock.close()

    def _again(self, stream: _Stream) -> None:
        self.breaks += 1
        self._close(stream)
        self._open(stream)

    def _read(self, stream: _Stream) -> None:
        data = stream.sock.recv(65536)
        if not data:
            self._again(stream)
            return
        *lines, stream.rest = (stream.rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"id: "):
                self._take(stream, line[4:].decode().strip())
            elif line == b"event: reset":
                self.resets += 1

    def _take(self, stream: _Stream, place: str) -> None:
        self.events += 1
        if stream.last and _key(place) <= _key(stream.last):
            self.out_of_order += 1
        stream.last = place


class _Stream:
    """Where one stream is."""

    def __init__(self) -> None:
        self.sock = socket.socket()
        self.rest = b""
        self.last = ""


def _key(place: str) -> tuple[int, int]:
    xid, _, number = place.partition("-")
    return int(xid), int(number)
