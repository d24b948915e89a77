"""Probe thousands of engines at once from one thread, on connections that are kept between rounds.

Plain sockets and epoll: see docs/decisions for what the libraries cost beside it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import select
import socket
import time
from collections import deque
from collections.abc import Sequence

from workers.probes.wire import NotHttp, ProbeResult, ProbeTarget, no_answer, parse_answer, request_bytes, verdict

#: How late a timeout may be noticed.
_EXPIRY_STEP_S = 0.05
_READ = select.EPOLLIN | select.EPOLLRDHUP
_Endpoint = tuple[str, int]


class Prober:
    """Keeps connections between calls. For one thread at a time; not to be taken across a fork.

    ``at_once`` bounds the probes in flight, ``kept`` the idle connections (default: half the open-file limit).
    """

    def __init__(self, *, at_once: int = 1000, kept: int | None = None) -> None:
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._at_once = max(1, min(at_once, files // 4))
        self._kept = files // 2 if kept is None else kept
        self._epoll = select.epoll()
        self._idle: dict[_Endpoint, socket.socket] = {}
        self._idle_by_number: dict[int, _Endpoint] = {}
        self._active: dict[int, _Exchange] = {}

    def probe(self, targets: Sequence[ProbeTarget]) -> list[ProbeResult]:
        """One result per target, same order. Never raises for one target.

        Each has its own ``timeout_s`` from the moment it is asked; no round takes longer than the largest timeout for
        every ``at_once`` targets. Host names, unlike addresses, are resolved in this thread.
        """
        results: list[ProbeResult | None] = [None] * len(targets)
        waiting = deque(range(len(targets)))
        next_expiry = 0.0
        while waiting or self._active:
            while waiting and len(self._active) < self._at_once:
                index = waiting.popleft()
                self._begin(_Exchange(index, targets[index]), results)
            for number, mask in self._epoll.poll(_EXPIRY_STEP_S if self._active else 0):
                self._happened(number, mask, results)
            now = time.monotonic()
            if now >= next_expiry:
                self._expire(now, results)
                next_expiry = now + _EXPIRY_STEP_S
        return [result for result in results if result is not None]

    async def probe_async(self, targets: Sequence[ProbeTarget]) -> list[ProbeResult]:
        """``probe`` beside an event loop: it runs in a thread. Do not start a second one before the first ends."""
        return await asyncio.to_thread(self.probe, targets)

    def forget(self, host: str, port: int) -> None:
        """Close the kept connection to an endpoint that is no more."""
        self._drop_idle((host, port))

    def close(self) -> None:
        for endpoint in list(self._idle):
            self._drop_idle(endpoint)
        self._epoll.close()

    def __enter__(self) -> Prober:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, exchange: _Exchange, results: list[ProbeResult | None]) -> None:
        """Send on a kept connection, or open one. The first try to send often succeeds at once on loopback."""
        kept = self._take_idle(exchange.endpoint)
        exchange.kept = kept is not None
        try:
            exchange.socket = kept or _connect(exchange.endpoint)
            number = exchange.socket.fileno()
            self._active[number] = exchange
            sent = exchange.send()
            if kept is None:
                self._epoll.register(number, _READ if sent else _READ | select.EPOLLOUT)
            elif not sent:
                self._epoll.modify(number, _READ | select.EPOLLOUT)
        except (OSError, ValueError) as error:
            self._failed(exchange, error, results)

    def _happened(self, number: int, mask: int, results: list[ProbeResult | None]) -> None:
        exchange = self._active.get(number)
        if exchange is None:
            # an idle connection whose engine closed it
            endpoint = self._idle_by_number.get(number)
            if endpoint is not None:
                self._drop_idle(endpoint)
            return
        try:
            if mask & select.EPOLLOUT and not exchange.sent:
                exchange.raise_connect_error()
                if exchange.send():
                    self._epoll.modify(number, _READ)
            if mask & ~select.EPOLLOUT:
                self._receive(exchange, results)
        except (OSError, NotHttp) as error:
            self._failed(exchange, error, results)

    def _receive(self, exchange: _Exchange, results: list[ProbeResult | None]) -> None:
        exchange.raise_connect_error()
        data = exchange.socket.recv(16384)
        exchange.received += data
        answer = parse_answer(exchange.received) if exchange.received else None
        if answer is not None:
            del self._active[exchange.socket.fileno()]
            results[exchange.index] = verdict(answer.status, exchange.age_ms())
            self._put_idle(exchange.endpoint, exchange.socket, answer.reusable and bool(data))
        elif not data:
            raise ConnectionResetError(errno.ECONNRESET, "connection closed without an answer")

    def _failed(self, exchange: _Exchange, error: Exception, results: list[ProbeResult | None]) -> None:
        if isinstance(error, BlockingIOError):
            return
        self._abandon(exchange)
        if exchange.kept and not exchange.received and not isinstance(error, TimeoutError):
            # the engine had closed the kept connection; that says nothing about its health
            self._begin(exchange.again(), results)
            return
        results[exchange.index] = no_answer(exchange.age_ms(), _in_words(error, exchange.target))

    def _expire(self, now: float, results: list[ProbeResult | None]) -> None:
        for exchange in [item for item in self._active.values() if now >= item.deadline]:
            self._failed(exchange, TimeoutError(), results)

    def _abandon(self, exchange: _Exchange) -> None:
        if exchange.socket is not None:
            self._active.pop(exchange.socket.fileno(), None)
            # closing takes it out of the epoll set
            exchange.socket.close()

    def _take_idle(self, endpoint: _Endpoint) -> socket.socket | None:
        found = self._idle.pop(endpoint, None)
        if found is not None:
            del self._idle_by_number[found.fileno()]
        return found

    def _put_idle(self, endpoint: _Endpoint, connection: socket.socket, reusable: bool) -> None:
        if not reusable or endpoint in self._idle or self._kept <= 0:
            connection.close()
            return
        if len(self._idle) >= self._kept:
            self._drop_idle(next(iter(self._idle)))
        self._idle[endpoint] = connection
        self._idle_by_number[connection.fileno()] = endpoint

    def _drop_idle(self, endpoint: _Endpoint) -> None:
        connection = self._take_idle(endpoint)
        if connection is not None:
            connection.close()


class _Exchange:
    """One probe under way."""

    __slots__ = ("begun", "deadline", "endpoint", "index", "kept", "received", "sent", "socket", "target")

    def __init__(self, index: int, target: ProbeTarget, begun: float | None = None) -> None:
        self.index, self.target = index, target
        self.endpoint = (target.host, target.port)
        self.begun = time.monotonic() if begun is None else begun
        self.deadline = self.begun + target.timeout_s
        self.received = bytearray()
        self.socket: socket.socket = None  # type: ignore[assignment]
        self.kept = self.sent = False

    def again(self) -> _Exchange:
        """The same probe from its beginning, with the clock it had."""
        return _Exchange(self.index, self.target, self.begun)

    def send(self) -> bool:
        """Whether the request is out; False while the connection is being made."""
        try:
            # a few hundred bytes into an empty buffer: whole or not at all
            self.socket.send(request_bytes(self.target))
        except BlockingIOError:
            return False
        self.sent = True
        return True

    def raise_connect_error(self) -> None:
        if not self.sent:
            code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))

    def age_ms(self) -> float:
        return (time.monotonic() - self.begun) * 1000


def _connect(endpoint: _Endpoint) -> socket.socket:
    host = endpoint[0]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    code = connection.connect_ex(endpoint)
    if code not in (0, errno.EINPROGRESS):
        connection.close()
        raise OSError(code, os.strerror(code))
    return connection


def _in_words(error: Exception, target: ProbeTarget) -> str:
    if isinstance(error, TimeoutError) and not error.errno:
        return f"no answer within {target.timeout_s:g} s"
    if isinstance(error, NotHttp):
        return "what listens there does not speak HTTP"
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    return str(error)
