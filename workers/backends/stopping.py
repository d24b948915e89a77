"""Ending an attempt: first its process group is asked, then everything that is left of it is killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from workers.backends.attempt_folder import AttemptFolder
from workers.backends.base import BackendError
from workers.backends.proc import Identity, Stat, Table, boot_id, find, lock_holders, pids, send

#: A killed process needs a moment to go; longer than this is for the next call.
KILL_WAIT_S = 0.2


def ask(folder: AttemptFolder, now_s: float) -> float:
    """Record the first ask; seconds passed since then, by the host's uptime, which no clock change moves."""
    if not folder.exists():
        return 0.0
    first = folder.write_once("stop.json", {"asked_s": now_s, "asked_at": time.time()})
    return max(0.0, now_s - float(first.get("asked_s", now_s)))


def terminate(name: str, folder: AttemptFolder, engine: Identity | None) -> None:
    """SIGTERM to the engine's group, once; when the engine ended before its descendants, once to each of those.

    Recorded after the signal: a stopper that dies between the two makes the next one signal again, not never.
    """
    record = folder.read("stop.json") or {}
    leads = engine is not None and find(engine) is not None
    stage = "asked_group" if leads else "asked_rest"
    if record.get(stage):
        return
    if leads and engine is not None:
        for number in (signal.SIGTERM, signal.SIGCONT):  # a stopped process would not hear it
            _guarded(partial(os.killpg, engine.pid, number), engine.pid)
    else:
        for item in Table().members(name, engine):
            _guarded(partial(send, _identity(item), signal.SIGTERM), item.pid)
    if folder.exists():
        folder.write("stop.json", record | {stage: True})


def kill(name: str, folder: AttemptFolder, engine: Identity | None) -> None:
    """SIGKILL to the group, then to whoever is of its session, carries its mark or holds its lock.

    Looks again until nobody is found, for at most ``KILL_WAIT_S``: what is killed may have forked meanwhile.
    Raises BackendError when somebody may not be signalled, after all others were.
    """
    with suppress(OSError):  # a full disk or a lost folder keeps nobody alive
        folder.write("stop.json", (folder.read("stop.json") or {}) | {"killed": True})
    refused: list[BackendError] = []
    end = time.monotonic() + KILL_WAIT_S
    while True:
        if engine is not None and find(engine) is not None:
            _collect(refused, partial(os.killpg, engine.pid, signal.SIGKILL), engine.pid)
        left = {item.pid: item for item in Table().members(name, engine)}
        if not left and folder.is_held():
            left = {item.pid: item for item in _holders(folder)}
        for item in left.values():
            _collect(refused, partial(send, _identity(item), signal.SIGKILL), item.pid)
        if refused or not left or time.monotonic() > end:
            break
        time.sleep(0.002)
    if refused:
        raise refused[0]


def _holders(folder: AttemptFolder) -> list[Stat]:
    holders = set(lock_holders(folder.path / "lock", pids()))
    return [item for item in Table().living() if item.pid in holders]


def _identity(item: Stat) -> Identity:
    return Identity(item.pid, item.start, boot_id())


def _collect(refused: list[BackendError], act: Callable[[], object], pid: int) -> None:
    try:
        _guarded(act, pid)
    except BackendError as error:
        refused.append(error)


def _guarded(act: Callable[[], object], pid: int) -> None:
    try:
        act()
    except ProcessLookupError:
        pass
    except PermissionError as error:
        raise BackendError(
            f"no permission to signal process {pid}; end it as the user who owns it, or as root"
        ) from error
