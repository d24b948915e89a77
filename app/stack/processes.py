"""Processes of this host: found by their own marks, told apart from a later holder of the same pid, ended by pid."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

#: Set for every process of the control plane, and for none of the engines.
ROLE_MARK = "HOSTLER_ROLE"
STATE_MARK = "HOSTLER_STATE_DIR"
#: Set for every process of an engine: the attempt's name.
ENGINE_MARK = "HOSTLER_MARK"


def working_in(folder: Path) -> list[psutil.Process]:
    """Processes whose working folder is ``folder`` or lies below it.

    So are Postgres and Redis found: both overwrite the environment they were started with.
    """
    top = os.path.realpath(folder)
    found = []
    for process in _visible():
        cwd = _read(process.cwd)
        if cwd is not None and (cwd == top or cwd.startswith(top + "/")):
            found.append(process)
    return found


def marked(**marks: str) -> Iterator[tuple[psutil.Process, dict[str, str]]]:
    """Processes whose environment holds each of ``marks`` (an empty value: any), with that environment."""
    for process in _visible():
        environ = _read(process.environ)
        if environ and all(environ.get(name) and value in ("", environ[name]) for name, value in marks.items()):
            yield process, environ


def end_processes(processes: Iterable[psutil.Process], *, wait_s: float) -> list[int]:
    """SIGTERM, and SIGKILL for what is left after ``wait_s``. Returns the pids that had to be killed.

    psutil checks the start time before each signal, so a pid that was used again is left alone.
    """
    alive = []
    for process in processes:
        if process.pid == os.getpid():
            continue
        try:
            process.terminate()
            alive.append(process)
        except psutil.NoSuchProcess:
            continue
    _, alive = psutil.wait_procs(alive, timeout=wait_s)
    for process in alive:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, timeout=5)
    return [process.pid for process in alive]


def is_zombie(process: psutil.Process) -> bool:
    return _read(process.status) == psutil.STATUS_ZOMBIE


def _visible() -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        if process.pid != os.getpid():
            yield process


def _read(verb):  # type: ignore[no-untyped-def]
    """What ``verb`` returns, or None when the process ended or is another user's."""
    try:
        return verb()
    except (psutil.Error, OSError):
        return None
