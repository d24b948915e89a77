"""The smallest HTTP server that answers: one epoll loop, one fixed answer. What probes and loads are measured against.

``python -m benchmarks.responder`` prints its port and ends when its stdin does.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import subprocess
import sys
from collections.abc import Iterator

BODY = b'{"status":"ok"}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


@contextlib.contextmanager
def responder() -> Iterator[int]:
    """A responder in a process of its own; gives its port, ends it at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.responder"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.communicate(timeout=10)


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    listener.setblocking(False)
    selector = selectors.EpollSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    print(listener.getsockname()[1], flush=True)
    while True:
        for key, _ in selector.select():
            if key.fileobj is sys.stdin:
                return
            if key.fileobj is listener:
                _accept(listener, selector)
            else:
                _answer(key.fileobj, selector)  # type: ignore[arg-type]


def _accept(listener: socket.socket, selector: selectors.BaseSelector) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            sock, _ = listener.accept()
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(sock, selectors.EVENT_READ)


def _answer(sock: socket.socket, selector: selectors.BaseSelector) -> None:
    try:
        data = sock.recv(65536)
    except ConnectionError:
        data = b""
    if data:
        sock.send(ANSWER)
    else:
        selector.unregister(sock)
        sock.close()


if __name__ == "__main__":
    main()
