"""A process that surely stands still: the signal alone is only a word, and what runs goes on until it is heard."""

from __future__ import annotations

import os
import signal

import psutil

from tests.support.embedded import wait_until

_HEARD_S = 20


def freeze(*pids: int) -> None:
    """SIGSTOP, and until all of them have stopped. Whoever froze them thaws them with SIGCONT."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    for pid in pids:
        process = psutil.Process(pid)
        wait_until(lambda process=process: process.status() == psutil.STATUS_STOPPED, _HEARD_S, f"{pid} to stand still")
