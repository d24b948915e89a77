"""Talking with one command: what it is told, what it says, until it has said all, within a bound and a time."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO

_CHUNK_BYTES = 65536


class OutOfTime(Exception):
    """The command had not ended when its time was over."""


class TooMuch(Exception):
    """The command said more than anybody wants to hear."""


@dataclass
class Heard:
    """What a command said so far."""

    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)

    @property
    def size_bytes(self) -> int:
        return len(self.stdout) + len(self.stderr)


def talk(
    process: subprocess.Popen[bytes],
    stdin: bytes,
    *,
    deadline: float,
    most_bytes: int,
    heard: Heard,
) -> None:
    """Give it ``stdin`` and fill ``heard`` until the process ended; its pipes are closed then.

    What it left running may hold its pipes open: that is waited for by nobody. ``deadline`` is of ``time.monotonic``.
    Raises OutOfTime or TooMuch; the process is the caller's to end.
    """
    conversation = Conversation(process, heard)
    conversation.say(stdin, last=True)
    try:
        while True:
            over = conversation.go_on(max(0.0, deadline - time.monotonic()), most_bytes)
            if heard.size_bytes > most_bytes:
                raise TooMuch
            if over:
                return
            if time.monotonic() >= deadline:
                raise OutOfTime
    finally:
        conversation.close()


class Conversation:
    """The pipes of one process and the descriptor that tells its end; what it says goes to ``heard``."""

    def __init__(self, process: subprocess.Popen[bytes], heard: Heard) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._stdin, self._left, self._last = process.stdin, memoryview(b""), False
        self._sinks = {process.stdout.fileno(): heard.stdout, process.stderr.fileno(): heard.stderr}
        self._pipes = (process.stdin, process.stdout, process.stderr)
        self._ended = os.pidfd_open(process.pid)
        self._ready = selectors.DefaultSelector()
        self._ready.register(self._ended, selectors.EVENT_READ)
        for pipe in self._pipes:
            os.set_blocking(pipe.fileno(), False)
        for source in self._sinks:
            self._ready.register(source, selectors.EVENT_READ)

    def say(self, data: bytes, *, last: bool = False) -> None:
        """Give it this from now on; after the ``last`` its stdin is closed."""
        self._left, self._last = memoryview(data), last
        self._ready.register(self._stdin.fileno(), selectors.EVENT_WRITE)

    def go_on(self, wait_s: float, most_bytes: int) -> bool:
        """Give and take what can be without waiting; whether the process has ended and all it said was taken."""
        ready = {key.fd for key, _ in self._ready.select(wait_s)}
        if not self._stdin.closed and self._stdin.fileno() in ready:
            self._left = _give(self._stdin.fileno(), self._left)
            if not self._left:
                self._ready.unregister(self._stdin.fileno())
                if self._last:
                    _close(self._stdin)
        over = self._ended in ready
        for source, sink in self._sinks.items():
            if source in ready and _take(source, sink) == 0:
                self._ready.unregister(source)
            while over and len(sink) <= most_bytes and _take(source, sink) > 0:
                pass
        return over

    def close(self) -> None:
        self._ready.close()
        os.close(self._ended)
        for pipe in self._pipes:
            _close(pipe)


def _give(pipe: int, left: memoryview) -> memoryview:
    """What is still to be given; nothing when nobody listens any more."""
    if not left:
        return left
    try:
        return left[os.write(pipe, left[:_CHUNK_BYTES]) :]
    except BlockingIOError:
        return left
    except BrokenPipeError:
        return left[:0]


def _take(pipe: int, sink: bytearray) -> int:
    """How many bytes there were; 0 at the end, -1 when there is nothing now."""
    try:
        part = os.read(pipe, _CHUNK_BYTES)
    except BlockingIOError:
        return -1
    sink += part
    return len(part)


def _close(pipe: IO[bytes]) -> None:
    with suppress(BrokenPipeError):
        pipe.close()
