"""Streams that are merely held open: ten thousand of them in one process, without a greenlet each.

gunicorn's greenlet of the request writes the head and hands the socket over. From then on a stream is an entry in a
table: one epoll set tells which client went away, and one timer writes the keep-alives, a slice of the streams at a
time, so that no request waits behind all of them.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from itertools import cycle
from typing import Any

import gevent
from gevent.monkey import get_original
from gevent.socket import wait_read

from app.settings import REGISTERED_ALIVE_S

log = logging.getLogger(__name__)

#: The streams' keep-alives are spread over so many moments.
SLICES = 50
#: What a client sends on a stream that it only reads is dropped; beyond this at one time the rest stays in the kernel.
_DROPPED_BYTES = 4096


class Stream:
    """One client that reads. ``on_end`` is called once, when the client is gone or the stream was closed."""

    __slots__ = ("descriptor", "is_chunked", "on_end", "slice")

    def __init__(self, descriptor: int, *, is_chunked: bool, on_end: Callable[[], None]) -> None:
        self.descriptor = descriptor
        self.is_chunked = is_chunked
        self.on_end = on_end
        self.slice: set[Stream] = set()


class Streams:
    """All held streams of this process. ``keep_alive`` is what each is sent every ``REGISTERED_ALIVE_S``."""

    def __init__(self, keep_alive: bytes) -> None:
        self._keep_alive = {is_chunked: framed(keep_alive, is_chunked) for is_chunked in (False, True)}
        # gevent takes it away, for it would block: here its file is waited for instead
        epoll, self._gone = get_original("select", ["epoll", "EPOLLIN"])
        self._watched = (self._gone, *get_original("select", ["EPOLLRDHUP", "EPOLLHUP", "EPOLLERR"]))
        self._epoll = epoll()
        self._by_descriptor: dict[int, Stream] = {}
        self._slices: list[set[Stream]] = [set() for _ in range(SLICES)]
        self._next_slice = cycle(self._slices)
        self._greenlets = [gevent.spawn(self._watch), gevent.spawn(self._tick)]

    def __len__(self) -> int:
        return len(self._by_descriptor)

    def open(
        self, connection: Any, head: bytes, first: bytes, *, is_chunked: bool, on_end: Callable[[], None]
    ) -> Stream:
        """Take over ``connection``, whose own object may be closed afterwards: send ``head`` and ``first``, hold it.

        A client that is gone already is an end like any other.
        """
        stream = Stream(os.dup(connection.fileno()), is_chunked=is_chunked, on_end=on_end)
        self._by_descriptor[stream.descriptor] = stream
        stream.slice = next(self._next_slice)
        stream.slice.add(stream)
        read, hung_up, hup, error = self._watched
        self._epoll.register(stream.descriptor, read | hung_up | hup | error)
        self._send(stream, head + framed(first, is_chunked))
        return stream

    def close(self, stream: Stream, last: bytes = b"") -> None:
        """End it from our side, with a last message. Nothing happens when it has ended."""
        if self._by_descriptor.get(stream.descriptor) is not stream:
            return
        data = framed(last, stream.is_chunked) if last else b""
        if self._send(stream, data + (b"0\r\n\r\n" if stream.is_chunked else b"")):
            self._end(stream)

    def _watch(self) -> None:
        while True:
            wait_read(self._epoll.fileno())
            for descriptor, mask in self._epoll.poll(0):
                stream = self._by_descriptor.get(descriptor)
                if stream is not None and (mask & ~self._gone or self._has_ended(stream)):
                    self._end(stream)
            # a client that sends without end must not keep everybody else from his turn
            gevent.sleep(0)

    def _tick(self) -> None:
        while True:
            for streams in self._slices:
                gevent.sleep(REGISTERED_ALIVE_S / SLICES)
                for stream in list(streams):
                    self._send(stream, self._keep_alive[stream.is_chunked])

    def _send(self, stream: Stream, data: bytes) -> bool:
        """Whether it took all; else it has ended: a client that leaves so little unread for so long is not there."""
        try:
            if os.write(stream.descriptor, data) == len(data):
                return True
        except OSError as error:
            log.debug("a stream ended: %s", error)
        self._end(stream)
        return False

    @staticmethod
    def _has_ended(stream: Stream) -> bool:
        try:
            return not os.read(stream.descriptor, _DROPPED_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _end(self, stream: Stream) -> None:
        if self._by_descriptor.get(stream.descriptor) is not stream:
            return
        del self._by_descriptor[stream.descriptor]
        stream.slice.discard(stream)
        # closing takes it out of the epoll set
        os.close(stream.descriptor)
        stream.on_end()


def framed(data: bytes, is_chunked: bool) -> bytes:
    """A piece of a body as it goes over the wire."""
    return b"%x\r\n%b\r\n" % (len(data), data) if is_chunked else data


def notice_cut_networks(connection: Any, limit_s: float) -> None:
    """Let the kernel end a TCP connection whose peer has acknowledged nothing for so long.

    A Unix socket has a process of this host at its other end, which is told by the kernel.
    """
    if connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(limit_s * 1000))
