"""One program on a far host, from its first sign to its end: it is heard out, or asked line by line."""

from __future__ import annotations

import os
import subprocess
import time

from workers.transports.base import MOST_OUTPUT_BYTES, Completed, TransportError
from workers.transports.framing import Frame
from workers.transports.local import end_group
from workers.transports.pump import Conversation, Heard

#: Room for the noise around an answer.
_NOISE_BYTES = 65536


class Ended(TransportError):
    """The program ended in its own way before it answered; ``how`` tells."""

    def __init__(self, how: Completed) -> None:
        super().__init__(f"it ended with code {how.code}")
        self.how = how


class Channel:
    """Belongs to the process that made it: after a fork, the child may only ``forget`` it."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], frame: Frame) -> None:
        self._name = name
        self._process = process
        self._frame = frame
        self._heard = Heard()
        self._conversation = Conversation(process, self._heard)
        self.owner = os.getpid()
        self.used_at = time.monotonic()

    def say(self, data: bytes, *, last: bool) -> None:
        self._conversation.say(data, last=last)

    def has_begun(self, deadline: float) -> bool:
        """Wait for the program's first sign; False when ssh ended without one. Raises TransportError in the end."""
        while not self._frame.has_begun(self._heard):
            if self._go_on(deadline, f"{self._name} did not answer in time"):
                return self._frame.has_begun(self._heard)
        return True

    def finish(self, deadline: float) -> Completed:
        """How it ended, with all it said. Raises TransportError."""
        while not self._frame.is_whole(self._heard):
            if self._go_on(deadline, f"the command on {self._name} took longer than it was given"):
                break
        return self._completed()

    def ask(self, line: bytes, timeout_s: float) -> bytes:
        """The line that answers ``line``, both without their ends. Raises TransportError: then it is of no more use.

        Ended, when the program would not go on.
        """
        deadline = time.monotonic() + timeout_s
        self._conversation.say(line + b"\n")
        over = False
        while True:
            answer = self._next_line()
            if answer is not None:
                self.used_at = time.monotonic()
                return answer
            if over or self._frame.is_whole(self._heard):
                raise Ended(self._completed())
            over = self._go_on(deadline, f"{self._name} did not answer within {timeout_s:g} s")

    def close(self) -> None:
        """End it. What it began goes on."""
        self._conversation.close()
        end_group(self._process)

    def forget(self) -> None:
        """In a forked child: let go of what the parent goes on using."""
        self._conversation.close()
        self._process.returncode = 0  # it is not this process's child

    @property
    def said(self) -> str:
        """On stderr, for people: without what start-up files said, once the program has begun."""
        stderr = self._heard.stderr
        start = self._frame.start(stderr) if self._frame.has_begun(self._heard) else 0
        return " ".join(bytes(stderr[start:]).decode(errors="replace").split())

    @property
    def all_said(self) -> str:
        """On both streams, start-up files and all."""
        return " ".join((self._heard.stdout + b" " + self._heard.stderr).decode(errors="replace").split())

    @property
    def code(self) -> int | None:
        """The exit code of ssh, once it was closed."""
        return self._process.returncode

    def _go_on(self, deadline: float, late: str) -> bool:
        over = self._conversation.go_on(max(0.0, deadline - time.monotonic()), MOST_OUTPUT_BYTES)
        if self._heard.size_bytes > MOST_OUTPUT_BYTES + _NOISE_BYTES:
            raise TransportError(f"what {self._name} said has more than {MOST_OUTPUT_BYTES} bytes")
        if not over and time.monotonic() >= deadline:
            raise TransportError(late)
        return over

    def _completed(self) -> Completed:
        answer = self._frame.answer(self._heard)
        if answer is None:
            said = f": {self.said[-300:]}" if self.said else ""
            raise TransportError(f"the connection to {self._name} was lost while the command ran{said}")
        return Completed(*answer)

    def _next_line(self) -> bytes | None:
        """Taken out of what was heard."""
        stdout, stderr = self._heard.stdout, self._heard.stderr
        start = self._frame.start(stdout)
        end = stdout.find(b"\n", start)
        if end <= start:  # an empty line begins the frame's end
            return None
        line = bytes(stdout[start:end])
        del stdout[start : end + 1]
        del stderr[self._frame.start(stderr) :]
        return line
