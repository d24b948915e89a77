"""A program on a far host that is asked often: one that runs already spares the next question its start."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Sequence

from workers.transports.base import TransportError
from workers.transports.channel import Channel
from workers.transports.ssh import SshTransport

#: It goes when it was not asked for so long: a host allows few commands at once, and others wait for one.
KEPT_S = 2.0


class Asked:
    """Used by any thread, and after a fork. Whoever finds it busy begins another one for the one question."""

    def __init__(self, transport: SshTransport, argv: Sequence[str]) -> None:
        self._transport = transport
        self._argv = argv
        # a list, whose pop and append no thread can divide, and no fork can leave locked
        self._kept: list[Channel] = []
        weakref.finalize(self, _dismiss, self._kept)

    def ask(self, line: bytes, timeout_s: float, *, may_repeat: bool = False) -> bytes:
        """Its answer. Raises TransportError; then it may have been heard.

        With ``may_repeat``, a connection that was found lost is replaced, in time, and the question asked again.
        """
        until = time.monotonic() + timeout_s
        channel = self._take()
        if channel is not None:
            try:
                return self._through(channel, line, until)
            except TransportError:
                if not may_repeat or time.monotonic() >= until:
                    raise
        return self._through(self._open(until), line, until)

    def _open(self, until: float) -> Channel:
        return self._transport.open(self._argv, timeout_s=max(0.0, until - time.monotonic()))

    def _through(self, channel: Channel, line: bytes, until: float) -> bytes:
        try:
            answer = channel.ask(line, max(0.0, until - time.monotonic()))
        except BaseException:
            channel.close()
            raise
        if self._kept:
            channel.close()
        else:
            self._kept.append(channel)
        return answer

    def _take(self) -> Channel | None:
        try:
            channel = self._kept.pop()
        except IndexError:
            return None
        if channel.owner == os.getpid() and time.monotonic() - channel.used_at < KEPT_S:
            return channel
        _dismiss([channel])
        return None


def _dismiss(channels: list[Channel]) -> None:
    while channels:
        channel = channels.pop()
        if channel.owner == os.getpid():
            channel.close()
        else:
            channel.forget()
