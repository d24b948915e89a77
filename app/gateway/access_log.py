"""The access log: HAProxy writes lines into a named pipe, the agent writes them down and keeps the file bounded.

Not a file of HAProxy's own: it holds the file open for ever, and without the flag by which it would go on at the end of
one that was cut. The pipe never holds a request up: what does not fit while nobody reads is lost, for this is a log of
traffic and not of record.
"""

from __future__ import annotations

import fcntl
import logging
import os
import select
import threading
from contextlib import suppress
from pathlib import Path

#: With its one copy: what a busy hour may take of the disk.
MOST_BYTES = 64 * 1024 * 1024
#: A few thousand lines, while the agent is being restarted.
PIPE_BYTES = 1 << 20
#: Lines are taken together: a busy door would wake the agent for each.
PAUSE_S = 0.02
_LOOK_S = 0.5

log = logging.getLogger(__name__)


def open_pipe(path: Path) -> int:
    """The end for HAProxy, as a descriptor; the pipe (0600) is made where there is none.

    Open for reading too, so that writing to it never fails for want of a reader.
    """
    # both ends may be the first
    with suppress(FileExistsError):
        os.mkfifo(path, 0o600)
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    except PermissionError:
        # the user has used up what the host allows; the pipe is as large as others
        log.info("the access log's pipe keeps its size")
    return descriptor


class Scribe(threading.Thread):
    """Writes down what comes through the pipe, until ``stop``."""

    def __init__(self, pipe: Path, target: Path, most_bytes: int = MOST_BYTES) -> None:
        """``target`` and one copy of it, ``<name>.1``, take ``most_bytes`` each."""
        super().__init__(name="access-log", daemon=True)
        self._pipe, self._file, self._most_bytes = pipe, target, most_bytes
        self._over = threading.Event()
        self._told = False
        #: the beginning of a line whose end has not come yet
        self._rest = b""

    def stop(self, wait_s: float = 2.0) -> None:
        """End it; what is in the pipe by then is written."""
        self._over.set()
        self.join(wait_s)

    def run(self) -> None:
        descriptor = open_pipe(self._pipe)
        try:
            while not self._over.is_set():
                if select.select([descriptor], [], [], _LOOK_S)[0]:
                    self._over.wait(PAUSE_S)
                    self._write(_take(descriptor))
            self._write(_take(descriptor))
        finally:
            os.close(descriptor)

    def _write(self, taken: bytes) -> None:
        *whole, self._rest = (self._rest + taken).split(b"\n")
        # HAProxy tells the same log when a server goes down; it says so to the supervisor too
        lines = b"".join(line + b"\n" for line in whole if line.startswith(b"{"))
        if not lines:
            return
        try:
            with open(os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as file:
                file.write(lines)
                size = file.tell()
            if size > self._most_bytes:
                self._file.rename(self._file.with_name(f"{self._file.name}.1"))
            self._told = False
        except OSError as error:
            if not self._told:
                log.warning("the access log cannot be written and is not, until it can: %s", error)
            self._told = True


def _take(descriptor: int) -> bytes:
    """All that is in the pipe."""
    try:
        return os.read(descriptor, PIPE_BYTES)
    except BlockingIOError:
        return b""
