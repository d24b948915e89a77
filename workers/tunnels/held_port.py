"""A port of loopback that nobody else can listen on, also while nobody listens there.

HAProxy sends requests, with the engine key, to whoever listens on a local end. When its ``ssh`` dies the port would be
free for any user of this host: so the port stays bound here, by a socket that never listens. The kernel lets two
sockets share a port only while both allow it and neither listens; ours allows it for the moment in which ``ssh`` takes
the port.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from app.usecases.reach import LOOPBACK


class PortTaken(Exception):
    """Somebody else has the port."""


class HeldPort:
    """Held until ``close``. Raises PortTaken."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            # while it binds: connections of the last listener may linger in TIME_WAIT
            self._share(allowed=True)
            self._socket.bind((LOOPBACK, port))
            self._share(allowed=False)
        except OSError as error:
            self._socket.close()
            raise PortTaken(f"port {port}: {error.strerror}") from error

    @contextmanager
    def offered(self) -> Iterator[None]:
        """Within, another process may begin to listen there; whoever did is the caller's to find out."""
        self._share(allowed=True)
        try:
            yield
        finally:
            self._share(allowed=False)

    def close(self) -> None:
        self._socket.close()

    def _share(self, *, allowed: bool) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(allowed))
