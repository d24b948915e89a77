"""One agent at a time: whoever has the lock programs this gateway's HAProxy, any other waits.

The kernel lets go of it when its holder dies, at whatever line, and not while the holder is only frozen. So a newer
agent never works beside an older one, and one that thaws finds the table as it left it.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from threading import Event


class AgentLock:
    """A lock on a file in the gateway's folder."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def acquire(self, over: Event, every_s: float = 0.1) -> bool:
        """Wait for it; False when ``over`` was set first."""
        while not over.is_set():
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                over.wait(every_s)
        return False

    def close(self) -> None:
        os.close(self._descriptor)
