"""A process is known by its pid alone: whoever has the number of a dead engine is taken for it.

Taken out: the start time (and the boot) in every question who lives, of engines, shims and workers. Left in: the mark
in the environment and the port, which are asked for other ends. The stranger makes a dead engine look alive, and a
stop kills the stranger.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psutil


def _by_pid(original: Callable[..., Any]) -> Callable[..., Any]:
    look = original.__globals__

    def find(identity: Any) -> Any:
        return look["stat"](identity.pid)

    return find


def _members_by_pid(original: Callable[..., Any]) -> Callable[..., Any]:
    def members(table: Any, name: str, engine: Any) -> Any:
        session = engine.pid if engine else None
        return [item for item in table.living() if item.session == session or table.mark(item.pid) == name]

    return members


def _worker_by_pid(original: Callable[..., Any]) -> Callable[..., Any]:
    def is_alive(worker: str) -> bool:
        return bool(psutil.pid_exists(int(worker.rsplit("/", 2)[1])))

    return is_alive


PATCHES: dict[str, Callable[[Any], Any]] = {
    "workers.backends.proc:find": _by_pid,
    "workers.backends.proc:Table.members": _members_by_pid,
    "workers.bootstrap:is_alive": _worker_by_pid,
}
