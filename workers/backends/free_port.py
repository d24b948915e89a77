"""A port for an engine on a host where nobody leases ports: free now, and given to no other attempt there."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import socket
import time
from pathlib import Path
from typing import Self

from workers.backends.attempt_folder import AttemptFolder
from workers.backends.base import BackendError, BackendUnavailable

_LOOK_S = 0.01


class Ports:
    """The ports from ``first`` to ``last``. Held (``with``) from the choice until the attempt's record names it.

    ``deadline_ns`` is of the host's boot clock. Raises BackendUnavailable when somebody else holds it until then.
    """

    def __init__(self, folder: Path, first: int, last: int, deadline_ns: int) -> None:
        self._folder = folder
        self._range = range(first, last + 1)
        self._deadline_ns = deadline_ns

    def __enter__(self) -> Self:
        self._lock = os.open(self._folder / "ports.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.clock_gettime_ns(time.CLOCK_BOOTTIME) > self._deadline_ns:
                    os.close(self._lock)
                    raise BackendUnavailable("another launch holds the list of ports; nothing was started") from None
                time.sleep(_LOOK_S)
            else:
                return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def free(self, host: str) -> int:
        """Raises BackendError when there is none."""
        taken = self._taken()
        # at random: what just ended may still be spoken to
        candidates = [port for port in self._range if port not in taken]
        random.shuffle(candidates)
        for port in candidates:
            if _can_bind(host, port):
                return port
        raise BackendError(f"no port from {self._range.start} to {self._range.stop - 1} is free on {host}")

    def _taken(self) -> set[int]:
        """Ports of attempts that have not ended, those that are on their way to being launched among them."""
        found = set()
        attempts = self._folder / "attempts"
        for entry in os.scandir(attempts) if attempts.is_dir() else ():
            folder = AttemptFolder(Path(entry.path))
            port = (folder.read("launch.json") or {}).get("port")
            if port is not None and folder.read("exit.json") is None:
                found.add(int(port))
        return found


def _can_bind(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        try:
            probe.bind((host, port))
        except PermissionError:
            return False
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise BackendError(f"engines cannot listen on {host} there ({error.strerror}); set address") from error
    return True
