"""The program by which Podman keeps one container: the parent of its first process. It names the container."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from workers.backends.proc import Stat, pids, stat, words_of


def is_kept(pid: int, container: str) -> bool:
    """Whether that process lives and is the first one of the container: another one of that number is not."""
    process = stat(pid)
    return process is not None and not process.ended and _keeps(process.parent, container)


def end_waiting(container: str) -> None:
    """End the first process of a container that is removed; its conmon then ends by itself."""
    keepers = {pid for pid in pids() if _keeps(pid, container)}
    if not keepers:
        return
    for process in filter(None, map(stat, pids())):
        if _is_child(process, keepers):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, signal.SIGKILL)


def _is_child(process: Stat, keepers: set[int]) -> bool:
    # its conmon forks too, when it ends
    return process.parent in keepers and process.pid not in keepers and not process.ended


def _keeps(pid: int, container: str) -> bool:
    words = words_of(pid)
    return len(words) > 1 and os.path.basename(words[0]) == "conmon" and container in words
