"""Processes of one stack on this host: found by their own marks, whoever started them, and ended by pid."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

from app.domain.endpoints import Endpoint
from app.stack.layout import Layout
from app.stack.roles import ENGINE, POSTGRES, REDIS, SHIM

#: Set for every process of the control plane, and for none of the engines.
ROLE_MARK = "HOSTLER_ROLE"
STATE_MARK = "HOSTLER_STATE_DIR"
#: Set for every process of an engine: the attempt's name.
ENGINE_MARK = "HOSTLER_MARK"
#: Postgres and Redis overwrite the environment they were started with: program -> role.
_PROGRAMS = {"postgres": POSTGRES, "redis-server": REDIS}

_LOOK_S = 0.02

T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """One living process. ``attempt`` is set for engines and their shims."""

    role: str
    process: psutil.Process
    attempt: str = ""

    @property
    def replica_id(self) -> str | None:
        """``hostler-<namespace>-<replica>-<number>`` -> ``<replica>``."""
        parts = self.attempt.split("-")
        return parts[-2] if len(parts) >= 4 else None


def control_plane(layout: Layout) -> list[Found]:
    """Every process of the control plane of this state dir, supervisord and children's children too."""
    folders = {POSTGRES: os.path.realpath(layout.postgres_data), REDIS: os.path.realpath(layout.redis)}
    state_dir = os.path.realpath(layout.state_dir)
    found = []
    for process in _others():
        program = _PROGRAMS.get(_read(process.name) or "")
        if program is not None and _read(process.cwd) == folders[program]:
            found.append(Found(program, process))
            continue
        environ = _read(process.environ) or {}
        role = environ.get(ROLE_MARK)
        if role and ENGINE_MARK not in environ and os.path.realpath(environ.get(STATE_MARK, "")) == state_dir:
            found.append(Found(role, process))
    return [one for one in found if not is_zombie(one.process)]


def engines(layout: Layout) -> list[Found]:
    """Every process that carries the mark of one of this state dir's attempts, and the shims beside them."""
    attempts = {name for folder in (layout.attempts, layout.containers) for name in _names(folder)}
    if not attempts:
        return []
    top = os.path.realpath(layout.attempts)
    found = []
    for process in _others():
        mark = (_read(process.environ) or {}).get(ENGINE_MARK)
        folder, _, name = (_read(process.cwd) or "").rpartition("/")
        if mark in attempts:
            found.append(Found(ENGINE, process, str(mark)))
        elif not mark and folder == top and name in attempts and "shim" in " ".join(_read(process.cmdline) or []):
            found.append(Found(SHIM, process, name))
    return [one for one in found if not is_zombie(one.process)]


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def postgres_in(place: Path) -> list[Found]:
    """Servers whose data lies in ``place``, for a state dir that is gone."""
    data = os.path.realpath(place / "data")
    servers = (process for process in _others() if _read(process.name) == "postgres")
    return [Found(POSTGRES, process) for process in servers if _read(process.cwd) == data]


def end(found: Iterable[Found], *, wait_s: float, number: int = signal.SIGTERM) -> list[Found]:
    """Send ``number`` to each, and kill what is left after ``wait_s``; returns what had to be killed.

    psutil compares the start time before each signal, so a pid that was used again is left alone.
    """
    asked = list(found)
    for one in asked:
        _send(one.process, number)
    alive = wait_ended([one.process for one in asked], wait_s)
    for process in alive:
        _send(process, signal.SIGKILL)
    wait_ended(alive, 5)
    return [one for one in asked if one.process in alive]


def wait_ended(processes: Iterable[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Those that still run after ``timeout_s``. A zombie has ended: its parent, some init, may take its time."""
    deadline = time.monotonic() + timeout_s
    alive = list(processes)
    while True:
        alive = [process for process in alive if process.is_running() and not is_zombie(process)]
        if not alive or time.monotonic() > deadline:
            return alive
        time.sleep(_LOOK_S)


def start_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # the program's name stands in brackets and may hold anything
    return int(stat.rpartition(")")[2].split()[19])


def boot_id() -> str:
    """What the kernel calls this boot of the host."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def parent(process: psutil.Process) -> int | None:
    """The pid of who started it, or took it over; None when it has ended."""
    return _read(process.ppid)


def listens_on(process: psutil.Process) -> list[str]:
    """Where the process listens: ``127.0.0.1:8080`` or the path of a Unix socket."""
    found = set()
    for connection in _read(lambda: process.net_connections(kind="tcp")) or []:
        if connection.status == psutil.CONN_LISTEN:
            host, port = connection.laddr
            found.add(str(Endpoint(host, port)))
    for connection in _read(lambda: process.net_connections(kind="unix")) or []:
        # supervisor and HAProxy bind under a name with a pid, which the kernel goes on telling, and rename
        name = re.sub(r"\.\d+\.tmp$", "", connection.laddr.removesuffix(f".{process.pid}"))
        if name.startswith("../"):
            # HAProxy's, told as it was: seen from its working folder
            name = os.path.realpath(os.path.join(_read(process.cwd) or "/", name))
        if name.startswith("/"):
            found.add(name)
    return sorted(found)


def is_zombie(process: psutil.Process) -> bool:
    return _read(process.status) in (psutil.STATUS_ZOMBIE, None)


def _others() -> Iterator[psutil.Process]:
    return (process for process in psutil.process_iter() if process.pid != os.getpid())


def _send(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _read(verb: Callable[[], T]) -> T | None:
    """What ``verb`` returns, or None when the process ended or is another user's."""
    try:
        return verb()
    except (psutil.Error, OSError):
        return None
