"""Servers that answer a probe in every way there is."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Serve = Callable[[Callable[[socket.socket], None]], "Server"]


class Server:
    """Accepts, and lets ``handler`` speak on each connection in a thread of its own."""

    def __init__(self, handler: Callable[[socket.socket], None]) -> None:
        self._handler = handler
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self.accepted: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept)
        self._speakers: list[threading.Thread] = []
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.accepted.append(connection)
            self._speakers.append(threading.Thread(target=self._speak, args=(connection,)))
            self._speakers[-1].start()

    def _speak(self, connection: socket.socket) -> None:
        try:
            self._handler(connection)
        except OSError:
            # the test is over, or the client went away
            return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for connection in self.accepted:
            with _ignoring_closed():
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        for speaker in self._speakers:
            speaker.join()


@contextmanager
def _ignoring_closed() -> Iterator[None]:
    try:
        yield
    except OSError:
        return


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:

        def serve(handler: Callable[[socket.socket], None]) -> Server:
            server = Server(handler)
            stack.callback(server.close)
            return server

        yield serve


def answering(*answers: bytes) -> Callable[[socket.socket], None]:
    """Send the answers, one per request, then close; the last one again and again when there is only one."""

    def handler(connection: socket.socket) -> None:
        with connection:
            for answer in answers if len(answers) > 1 else iter(lambda: answers[0], None):
                if not connection.recv(4096):
                    return
                connection.sendall(answer)

    return handler


def silent(connection: socket.socket) -> None:
    """Read for ever, say nothing."""
    while connection.recv(4096):
        pass


def trickling(connection: socket.socket) -> None:
    """A byte now and then: never long silent, never done."""
    stop = threading.Event()
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b"x" * 1000:
        connection.sendall(bytes([byte]))
        stop.wait(0.02)
