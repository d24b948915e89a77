"""Whatever runs under a mark: what a test launched, wherever it went."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.support.embedded import wait_until
from workers.backends.proc import MARK


def marked() -> dict[int, str]:
    """The mark of every living process that carries one."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            environ = Path(f"/proc/{entry}/environ").read_bytes()
            state = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        for item in environ.split(b"\0"):
            if item.startswith(f"{MARK}=".encode()) and state not in "ZX":
                found[int(entry)] = item.decode().partition("=")[2]
    return found


def end_marked(prefix: str) -> dict[int, str]:
    """Kill whatever carries a mark with that prefix; returns what there was."""
    left = {pid: mark for pid, mark in marked().items() if mark.startswith(prefix)}
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    wait_until(lambda: not left.keys() & marked().keys(), 30, "what was killed to be gone")
    return left
