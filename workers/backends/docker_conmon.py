"""The program by which Podman keeps one container: the parent of its first process. It names the container."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from workers.backends.proc import Stat, pids, stat, words_of


def is_kept(pid: int, container: str) -> bool:
    """Whether that process lives and is the first one of the container: another one of that number is not."""
    process = stat(pid)
    if process is None or process.ended or not _keeps(process.parent, container):
        return False
    # one that is ending has no words any more, a moment before it counts as ended
    return any(words_of(pid))


def end_waiting(container: str) -> None:
    """End the first process of a container that is removed; its conmon then ends by itself."""
    kept_by = keepers(container)
    if not kept_by:
        return
    for process in filter(None, map(stat, pids())):
        if _is_child(process, kept_by):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, signal.SIGKILL)


def keepers(container: str) -> set[int]:
    """The conmon of the container, if it lives, and what it forked and is not another program yet."""
    return {pid for pid in pids() if _keeps(pid, container)}


def _is_child(process: Stat, kept_by: set[int]) -> bool:
    return process.parent in kept_by and process.pid not in kept_by and not process.ended


def _keeps(pid: int, container: str) -> bool:
    words = words_of(pid)
    return len(words) > 1 and os.path.basename(words[0]) == "conmon" and container in words
