"""What is seen of attempts on this host: one look serves a batch of them and reads each table of /proc at most once."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from workers.backends.attempt_folder import AttemptFolder
from workers.backends.base import Liveness, Observation
from workers.backends.ports import Listeners, owns_all
from workers.backends.proc import Identity, Table, boot_id, find, lives, signal_name

#: How long a look waits in all for shims that are just now writing down how their engines ended.
RECORDING_S = 0.25
_NO_TRACE = "was never launched, or its record was removed"


class Look:
    """One moment. Make a new one for the next."""

    def __init__(self) -> None:
        self.processes = Table()
        self._listeners = Listeners()
        self._recorded_by: float | None = None

    def observe(self, name: str, folder: AttemptFolder, ref: Mapping[str, Any]) -> Observation:
        """``ref`` may hold the engine's identity and address, which spares reading them."""
        engine = identity(folder, ref)
        if engine is None:
            return self._without_engine(name, folder)
        seen = find(engine)
        if seen is not None and not seen.ended:
            return self._running(name, folder, engine, ref)
        self._await_record(folder)
        return self._ended(name, folder, engine, seen.wait_status if seen else None)

    def _without_engine(self, name: str, folder: AttemptFolder) -> Observation:
        """The folder has no record of an engine, or there is no folder."""
        present = folder.exists()
        if present and folder.is_held():
            return Observation(Liveness.QUEUED, message="is being launched")
        left = self.processes.members(name, None)
        ended = folder.read("exit.json")
        if left:
            return Observation(Liveness.LINGERING, pid=left[0].pid, message=_left(len(left), "its record is lost"))
        if not present:
            return Observation(Liveness.ABSENT, message=_NO_TRACE)
        if ended and ended.get("sealed"):
            return Observation(Liveness.ABSENT, message="was stopped before it was launched")
        message = "its launch was killed before the program started"
        if ended and ended.get("late"):
            message = "its launch came too late and started nothing"
        return Observation(Liveness.EXITED, message=message, ended_at=_moment(ended, "ended_at"))

    def _running(self, name: str, folder: AttemptFolder, engine: Identity, ref: Mapping[str, Any]) -> Observation:
        known = ref if "port" in ref else folder.read("launch.json") or {}
        return Observation(
            Liveness.RUNNING,
            pid=engine.pid,
            host=known.get("host"),
            port=known.get("port"),
            started_at=_moment(ref, "started_at"),
            owns_port=self._owns(name, engine, known.get("host") or "127.0.0.1", known.get("port")),
        )

    def _owns(self, name: str, engine: Identity, host: str, port: int | None) -> bool | None:
        if port is None:
            return None
        sockets = self._listeners.sockets(host, port)
        if not sockets:
            return None
        if owns_all([engine.pid], sockets):
            return True
        return owns_all((item.pid for item in self.processes.members(name, engine)), sockets)

    def _await_record(self, folder: AttemptFolder) -> None:
        """The engine ended; its shim, if it lives, is saving its last output and its exit code this very moment."""
        if self._recorded_by is None:
            self._recorded_by = time.monotonic() + RECORDING_S
        while folder.read("exit.json") is None and time.monotonic() < self._recorded_by:
            if not lives(Identity.of(folder.read("shim.json"), boot_id())):
                return
            time.sleep(0.001)

    def _ended(self, name: str, folder: AttemptFolder, engine: Identity, wait_status: int | None) -> Observation:
        ended = folder.read("exit.json")
        if ended is None and wait_status is not None:  # its shim is frozen or gone, but the zombie tells
            ended = {
                "exit_code": os.WEXITSTATUS(wait_status) if os.WIFEXITED(wait_status) else None,
                "signal": os.WTERMSIG(wait_status) if os.WIFSIGNALED(wait_status) else None,
            }
        ended = ended or {}
        stop = folder.read("stop.json") or {}
        oom = bool(ended.get("oom")) and not stop.get("killed")
        left = self.processes.members(name, engine) if engine.boot_id == boot_id() else []
        message = _how(ended, oom, bool(stop), engine)
        gone = not left and not folder.is_held()
        if gone and not folder.exists():
            return Observation(Liveness.ABSENT, message=_NO_TRACE)
        return Observation(
            Liveness.EXITED if gone else Liveness.LINGERING,
            pid=engine.pid,
            exit_code=ended.get("exit_code"),
            signal=ended.get("signal"),
            out_of_memory=oom,
            message=message if gone else _left(len(left), message),
            started_at=_moment(folder.read("engine.json"), "started_at"),
            ended_at=_moment(ended, "ended_at"),
        )


def identity(folder: AttemptFolder, ref: Mapping[str, Any]) -> Identity | None:
    """The engine's, from ``ref`` or else from its own record (of the boot that ``launch.json`` names)."""
    known = Identity.of(ref, boot_id())
    if known is not None:
        return known
    record = folder.read("engine.json")
    if record is None:
        return None
    return Identity.of(record, str((folder.read("launch.json") or {}).get("boot_id", boot_id())))


def _how(ended: Mapping[str, Any], oom: bool, asked: bool, engine: Identity) -> str:
    if ended.get("errno") is not None:
        return f"its program cannot be run: {os.strerror(ended['errno'])}"
    if ended.get("exit_code") is not None:
        return f"exited with code {ended['exit_code']}"
    if oom:
        return "killed by SIGKILL while the kernel's out-of-memory killer was at work"
    if ended.get("signal") is not None:
        return f"killed by {signal_name(ended['signal'])}" + (", as asked" if asked else "")
    if engine.boot_id != boot_id():
        return "the host was restarted"
    return "ended; its exit code is unknown because its shim was killed"


def _left(count: int, message: str) -> str:
    what = {0: "a process that holds its lock is", 1: "1 process is"}.get(count, f"{count} processes are")
    return f"{message}; {what} left"


def _moment(record: Mapping[str, Any] | None, field: str) -> datetime | None:
    value = (record or {}).get(field)
    return datetime.fromtimestamp(value, UTC) if isinstance(value, (int, float)) else None
