"""Commands given on another host by OpenSSH, all over one connection (``master.py``)."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from workers.transports.base import MOST_OUTPUT_BYTES, Completed, TransportError
from workers.transports.framing import Frame
from workers.transports.local import end_group
from workers.transports.master import Master, ssh_environ
from workers.transports.options import SshOptions
from workers.transports.pump import Heard, OutOfTime, TooMuch, talk

#: A host that let nothing begin for as long as this is asked over a new connection next time.
_SILENT_S = 2.0
_PAUSE_S = 0.05


class SshTransport:
    """One host behind SSH: the user's ssh_config, keys, agent and jumps; host keys are always checked.

    A command that a connection never took is given again within its time; one that may have begun never is.
    """

    def __init__(self, options: SshOptions, run_dir: Path) -> None:
        self.name = f"{options.host} (ssh)"
        self.master = Master(options, run_dir)

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 10) -> Completed:
        deadline = time.monotonic() + timeout_s
        frame, no_way = Frame.new(), f"no-way-{os.urandom(12).hex()}"
        try:
            command = frame.command(argv)
        except ValueError as error:
            raise TransportError(f"cannot run this on {self.name}: {error}") from error
        pause_s = _PAUSE_S
        while True:
            self.master.ensure(deadline)
            process = self._begin(self.master.command("--", "there", command, no_way=no_way))
            heard = self._hear(process, frame, stdin, deadline, timeout_s)
            answer = frame.answer(heard)
            if answer is not None:
                return Completed(*answer)
            said = " ".join(heard.stderr.decode(errors="replace").split())
            if no_way not in said:
                lost = "while it ran" if frame.has_begun(heard) else "before it was seen to begin"
                raise TransportError(f"the connection to {self.name} was lost {lost}: {said[-300:]}")
            # the connection ended in this moment, or has as many commands under way as the host allows
            if time.monotonic() + pause_s >= deadline:
                raise TransportError(f"{self.name} takes no more commands: {said.replace(no_way, '')[-300:]}")
            time.sleep(pause_s)
            pause_s = min(1.0, 2 * pause_s)

    def close(self) -> None:
        """Nothing is held: the connection is everybody's and ends when it is idle."""

    def _begin(self, argv: list[str]) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env=ssh_environ(), start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise TransportError(f"cannot run ssh: {os.strerror(error.errno or 0)}") from error

    def _hear(
        self, process: subprocess.Popen[bytes], frame: Frame, stdin: bytes, deadline: float, timeout_s: float
    ) -> Heard:
        """All that one try says. Raises TransportError when its time is over."""
        begun = time.monotonic()
        heard = Heard()
        # with room for the noise around it
        most_bytes = MOST_OUTPUT_BYTES + 65536
        try:
            talk(process, stdin, deadline=deadline, most_bytes=most_bytes, heard=heard, is_done=frame.is_whole)
        except OutOfTime:
            if frame.has_begun(heard):
                raise TransportError(f"the command on {self.name} took longer than {timeout_s:g} s") from None
            if time.monotonic() - begun >= _SILENT_S:
                self.master.drop()
            raise TransportError(f"{self.name} did not answer within {timeout_s:g} s") from None
        except TooMuch:
            raise TransportError(f"the command on {self.name} said more than {MOST_OUTPUT_BYTES} bytes") from None
        finally:
            end_group(process)
        return heard
