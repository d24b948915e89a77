"""Commands given on another host by OpenSSH, all over one connection (``master.py``)."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from workers.transports.base import Completed, TransportError
from workers.transports.channel import Channel
from workers.transports.framing import Frame
from workers.transports.master import Master, ssh_environ
from workers.transports.options import SshOptions

#: A host that let nothing begin for as long as this is asked over a new connection next time.
_SILENT_S = 2.0
_PAUSE_S = 0.05
#: The code of ssh itself.
_OWN_ERROR = 255


class SshTransport:
    """One host behind SSH: the user's ssh_config, keys, agent and jumps; host keys are always checked.

    A command that a connection never took is given again within its time; one that may have begun never is.
    """

    def __init__(self, options: SshOptions, run_dir: Path) -> None:
        self.name = f"{options.host} (ssh)"
        self.master = Master(options, run_dir)

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 10) -> Completed:
        deadline = time.monotonic() + timeout_s
        channel = self._begin(argv, deadline, stdin)
        try:
            return channel.finish(deadline)
        finally:
            channel.close()

    def open(self, argv: Sequence[str], *, timeout_s: float = 10) -> Channel:
        """Begin a program there that answers lines with lines. Raises TransportError."""
        return self._begin(argv, time.monotonic() + timeout_s)

    def _begin(self, argv: Sequence[str], deadline: float, stdin: bytes | None = None) -> Channel:
        """A program that has begun. What no connection took is given again, in time; what may have begun never is."""
        frame, no_way = Frame.new(), f"no-way-{os.urandom(12).hex()}"
        try:
            command = frame.command(argv)
        except ValueError as error:
            raise TransportError(f"cannot run this on {self.name}: {error}") from error
        pause_s = _PAUSE_S
        while True:
            self.master.ensure(deadline)
            channel = self._spawn(self.master.command("--", "there", command, no_way=no_way), frame)
            try:
                if stdin is not None:
                    channel.say(stdin, last=True)
                if self._has_begun(channel, deadline):
                    return channel
            except BaseException:
                channel.close()
                raise
            channel.close()
            said = channel.said
            if no_way not in said:
                raise TransportError(self._without_sign(channel))
            # the connection ended in this moment, or has as many commands under way as the host allows
            if time.monotonic() + pause_s >= deadline:
                raise TransportError(f"{self.name} takes no more commands: {said.replace(no_way, '')[-300:]}")
            time.sleep(pause_s)
            pause_s = min(1.0, 2 * pause_s)

    def _without_sign(self, channel: Channel) -> str:
        """Why a command that was given never said that it begins."""
        if channel.code == _OWN_ERROR:
            return f"the connection to {self.name} was lost before a command was seen to begin: {channel.said[-300:]}"
        words = channel.all_said[-300:] or "nothing"
        return f"the login shell of {self.name} ended with code {channel.code} before our command; it said: {words}"

    def _has_begun(self, channel: Channel, deadline: float) -> bool:
        asked = time.monotonic()
        try:
            return channel.has_begun(deadline)
        except TransportError:
            if time.monotonic() - asked >= _SILENT_S:
                self.master.drop()
            raise

    def _spawn(self, argv: list[str], frame: Frame) -> Channel:
        try:
            process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env=ssh_environ(), start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise TransportError(f"cannot run ssh: {os.strerror(error.errno or 0)}") from error
        return Channel(self.name, process, frame)
