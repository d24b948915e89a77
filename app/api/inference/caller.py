"""Who waits for an answer, and noticing that nobody does any more."""

from __future__ import annotations

import select
import socket
import time

from flask import request

from app.api import waiting

#: Between two looks at a caller that cannot be waited for.
LOOK_S = 0.25
_READ, _WRITE = select.POLLIN, select.POLLOUT


class CallerLeft(Exception):
    """Nobody waits for the answer any more."""


class Caller:
    """``connection`` is its socket; None where the server does not show it, then it stays to the end."""

    def __init__(self, connection: socket.socket | None = None) -> None:
        self._connection = connection
        self._left = False

    @classmethod
    def of_request(cls) -> Caller:
        """Whoever sent the present request."""
        return cls(waiting.connection_of(request.environ))

    def leave(self) -> None:
        """Act as if it had gone: what others of the same request wait for is of no use any more."""
        self._left = True

    def wait(self, wire: socket.socket, timeout_s: float, *, to_write: bool = False) -> tuple[bool, bool]:
        """Whether ``wire`` can be read and written, once it can or ``timeout_s`` is over.

        Raises CallerLeft within ``LOOK_S`` after the caller has gone.
        """
        end = time.monotonic() + timeout_s
        own = wire.fileno()
        while True:
            if self._left:
                raise CallerLeft
            # not select(): the process may hold more files than fit into its sets
            poll = select.poll()
            poll.register(own, _READ | _WRITE if to_write else _READ)
            if self._connection is not None:
                poll.register(self._connection, _READ)
            left_s = max(0.0, end - time.monotonic())
            found = dict(poll.poll(min(left_s, LOOK_S) * 1000))
            event = found.get(own, 0)
            if event:
                # an error or an end is for whoever reads
                return bool(event & ~_WRITE), bool(event & _WRITE)
            if found:
                self._look()
            elif left_s <= 0:
                return False, False

    def _look(self) -> None:
        if self._connection is not None and waiting.closed(self._connection):
            self._left = True
        # it sent its next request already: behind that nothing can be seen
        self._connection = None
