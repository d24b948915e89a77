"""A small HTTP/1.1 server on one thread: epoll, timers, answers as generators.

asyncio would do, but importing it costs more than the whole start of this program, and thousands of mock replicas are
started in tests. An answer is a generator of what happens next: bytes to send, seconds to wait, or None to wait for
ever. A client that goes away closes its generator, as a good engine cancels what nobody reads.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import os
import selectors
import signal
import socket
import time
from functools import partial
from types import GeneratorType

TYPE_CHECKING = False  # importing typing would take a third of the start
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Protocol

    #: bytes to send, seconds to wait, None to wait for ever
    Steps = Iterator[bytes | float | None]

    class Answering(Protocol):
        def answer(self, request: Request) -> Steps: ...


MAX_HEADER_BYTES = 64 * 1024
MAX_BODY_BYTES = 32 * 1024 * 1024
#: Until more callers are taken after the process had all the files open that it may.
FULL_S = 0.1


class Request:
    """One parsed request. Header names are lower case."""

    def __init__(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        self.method, self.path, self.headers, self.body = method, path, headers, body


class Loop:
    """Runs callbacks when their time has come or their socket is ready."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> None:
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._order), callback))

    def on_signal(self, callback: Callable[[], object]) -> None:
        """Call back, between two events, after SIGTERM or SIGINT."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)

        def ready(_mask: int) -> None:
            os.read(reader, 64)
            callback()

        self.watch(reader, selectors.EVENT_READ, ready)

    def serve(self, listener: socket.socket, answers: Answering) -> None:
        listener.setblocking(False)

        def accept(_mask: int) -> None:
            try:
                while True:
                    client, _ = listener.accept()
                    Connection(self, client, answers)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    raise
                # who is not taken now waits; the socket would be ready without an end
                self.unwatch(listener)
                self.call_later(FULL_S, watch)

        def watch() -> None:
            self.watch(listener, selectors.EVENT_READ, accept)

        watch()

    def watch(self, file: Any, events: int, callback: Callable[[int], None]) -> None:
        self._selector.register(file, events, callback)

    def rewatch(self, file: Any, events: int, callback: Callable[[int], None]) -> None:
        self._selector.modify(file, events, callback)

    def unwatch(self, file: Any) -> None:
        self._selector.unregister(file)

    def run(self) -> None:
        while True:
            wait_s = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
            for key, mask in self._selector.select(wait_s):
                key.data(mask)
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                heapq.heappop(self._timers)[2]()


class Connection:
    """One client: reads a request, plays its answer, reads the next."""

    def __init__(self, loop: Loop, client: socket.socket, answers: Answering) -> None:
        client.setblocking(False)
        # without it a kept connection waits 40 ms for each delayed acknowledgement
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop, self._socket, self._answers = loop, client, answers
        self._received = bytearray()
        self._unsent = b""
        self._answer: Steps | None = None
        self._keep = True
        self._closed = False
        loop.watch(client, selectors.EVENT_READ, self._ready)

    def _ready(self, mask: int) -> None:
        if mask & selectors.EVENT_READ:
            self._receive()
        if mask & selectors.EVENT_WRITE and not self._closed:
            self._send(b"")
            if not self._unsent and not self._closed:
                self._loop.rewatch(self._socket, selectors.EVENT_READ, self._ready)
                self._advance(self._answer)

    def _receive(self) -> None:
        try:
            data = self._socket.recv(262144)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close()
            return
        self._received += data
        if self._answer is None:
            self._next_request()

    def _next_request(self) -> None:
        parsed = self._parse()
        if parsed is None:
            return
        self._answer = self._answers.answer(parsed) if isinstance(parsed, Request) else iter((parsed,))
        self._advance(self._answer)

    def _parse(self) -> Request | bytes | None:
        """The next request, a refusal, or None while it has not all arrived."""
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return self._refuse(431) if len(self._received) > MAX_HEADER_BYTES else None
        first, *lines = self._received[:end].decode("latin-1").split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        words = first.split(" ")
        length = headers.get("content-length", "0")
        if len(words) != 3 or not length.isdigit():
            return self._refuse(400)
        if "transfer-encoding" in headers:
            return self._refuse(411)
        if int(length) > MAX_BODY_BYTES:
            return self._refuse(413)
        stop = end + 4 + int(length)
        if len(self._received) < stop:
            if headers.get("expect", "").lower() == "100-continue" and len(self._received) == end + 4:
                self._send(b"HTTP/1.1 100 Continue\r\n\r\n")
            return None
        body = bytes(self._received[end + 4 : stop])
        del self._received[:stop]
        self._keep = words[2] == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
        return Request(words[0], words[1].partition("?")[0], headers, body)

    def _refuse(self, status: int) -> bytes:
        self._keep = False
        self._received.clear()
        return b"HTTP/1.1 %d Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status

    def _advance(self, answer: Steps | None) -> None:
        """Play ``answer`` on, until it waits, the socket is full, or it ends."""
        while answer is not None and answer is self._answer and not self._closed:
            try:
                step = next(answer)
            except StopIteration:
                self._ended()
                return
            if step is None:
                return
            if isinstance(step, bytes):
                self._send(step)
                if self._unsent:
                    return
            elif step > 0:
                self._loop.call_later(step, partial(self._advance, answer))
                return

    def _ended(self) -> None:
        self._answer = None
        if not self._keep:
            self._close()
        elif self._received:
            self._next_request()

    def _send(self, data: bytes) -> None:
        data = self._unsent + data
        try:
            sent = self._socket.send(data) if data else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close()
            return
        self._unsent = data[sent:]
        if self._unsent:
            self._loop.rewatch(self._socket, selectors.EVENT_READ | selectors.EVENT_WRITE, self._ready)

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        answer, self._answer = self._answer, None
        if isinstance(answer, GeneratorType):
            # it gives back its slot and counts itself as cancelled
            answer.close()
        self._loop.unwatch(self._socket)
        self._socket.close()
