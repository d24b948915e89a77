"""What a container's state means for its attempt."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from app.domain.lifecycle import Reason
from workers.backends.base import Liveness, Observation
from workers.backends.container_folder import ContainerFolder
from workers.backends.docker_state import why_unknown
from workers.backends.ports import Listeners, owns_all
from workers.backends.proc import Identity, Table, boot_id, lives, oom_kills, signal_name

#: A process that ended, or was killed, is known to its daemon a moment later.
RECORDED_S = 0.5
NO_TRACE = "was never launched, or its record was removed"
STOPPED_BEFORE = "was stopped before it was launched"
_FRACTION = re.compile(r"\.(\d+)")


class Look:
    """One moment: reads each table of /proc at most once."""

    def __init__(self) -> None:
        self._processes = Table()
        self._listeners = Listeners()
        self._recorded_by: float | None = None

    def may_wait(self) -> bool:
        """Whether to give a daemon a little longer to hear of the ends that the kernel knows; one wait for a batch."""
        if self._recorded_by is None:
            self._recorded_by = time.monotonic() + RECORDED_S
        return time.monotonic() < self._recorded_by

    def running(self, name: str, state: Mapping[str, Any], known: Mapping[str, Any], network: str) -> Observation:
        """``known`` has the address; ``network`` is the daemon's word for where it listens."""
        engine = Identity.of(known, boot_id())
        host, port = known.get("host"), known.get("port")
        return Observation(
            Liveness.RUNNING,
            pid=state.get("Pid") or known.get("pid"),
            host=host,
            port=port,
            started_at=moment(state.get("StartedAt") or known.get("started_at")),
            message="is paused" if state.get("Status") == "paused" else "",
            owns_port=self._owns(name, engine, host or "127.0.0.1", port) if network == "host" else None,
        )

    def _owns(self, name: str, engine: Identity | None, host: str, port: int | None) -> bool | None:
        """Only of the host's own network can it be told; the daemon itself publishes ports of others, or refuses to."""
        if port is None or engine is None or not lives(engine):
            return None
        sockets = self._listeners.sockets(host, port)
        if not sockets:
            return None
        return owns_all([engine.pid, *(item.pid for item in self._processes.members(name, engine))], sockets)


def without_container(folder: ContainerFolder, known: Mapping[str, Any]) -> Observation:
    """The daemon has no container of that name, or one that never ran."""
    ended = folder.read("exit.json") or {}
    if ended.get("sealed"):
        return Observation(Liveness.ABSENT, message=STOPPED_BEFORE)
    if not folder.exists():
        return Observation(Liveness.ABSENT, message=NO_TRACE)
    if ended.get("refused"):
        at = moment(ended.get("ended_at"))
        return Observation(Liveness.EXITED, message=ended["refused"], ended_at=at, reason=Reason.LAUNCH_FAILED)
    if folder.is_held():
        pulling = folder.read("pull.json") or {}
        if pulling.get("why"):
            told = {"state": "pulling", "why": pulling["why"]}
            return Observation(Liveness.QUEUED, message=pulling["why"], told=told)
        return Observation(Liveness.QUEUED, message="is being launched")
    if folder.read("container.json"):
        engine = Identity.of(known, boot_id())
        if lives(engine):
            return Observation(Liveness.UNKNOWN, message="its process lives, and the daemon knows no container of it")
        return Observation(Liveness.ABSENT, message="its container was removed by somebody else")
    return Observation(
        Liveness.EXITED,
        message="its launch was killed before the program started",
        reason=Reason.LAUNCH_FAILED,
    )


def ended(folder: ContainerFolder, seen: Mapping[str, Any], oom_before: int | None) -> Observation:
    """How it ended. ``oom_before``: kills for want of memory that the kernel had counted while it still ran."""
    stop = folder.read("stop.json") or {}
    if why := why_unknown(seen):
        how = "ended, as asked" if stop else "ended"
        return Observation(Liveness.EXITED, message=f"{how}; how is not known: {why}")
    state = seen["State"]
    code = int(state.get("ExitCode") or 0)
    killer = code - 128 if 128 < code <= 128 + signal.SIGRTMAX else None
    killed = killer == signal.SIGKILL and not stop.get("killed")
    # Podman misses it where the kernel has no cgroups of version 2, so the kernel is asked too
    oom = killed and (bool(state.get("OOMKilled")) or (oom_before is not None and oom_kills() > oom_before))
    return Observation(
        Liveness.EXITED,
        pid=None,
        exit_code=code if killer is None else None,
        signal=killer,
        out_of_memory=oom,
        message=_how(code, killer, oom, bool(stop), seen),
        started_at=moment(state.get("StartedAt")),
        ended_at=moment(state.get("FinishedAt")),
    )


def moment(value: Any) -> datetime | None:
    """From what daemons write (nanoseconds, year 1 for never) and from seconds of the epoch."""
    if isinstance(value, (int, float)):
        return datetime.fromtimestamp(value, UTC)
    if not isinstance(value, str) or value.startswith("0001-"):
        return None
    return datetime.fromisoformat(_FRACTION.sub(lambda match: f".{match.group(1)[:6]:0<6}", value, count=1))


def _how(code: int, killer: int | None, oom: bool, asked: bool, seen: Mapping[str, Any]) -> str:
    if oom:
        limit = (seen.get("HostConfig") or {}).get("Memory") or 0
        of = f" (its limit is {limit // 2**20} MiB)" if limit else ""
        return f"killed by SIGKILL while the kernel's out-of-memory killer was at work{of}"
    told = (seen["State"].get("Error") or "").strip()
    if killer is not None:
        return f"killed by {signal_name(killer)}" + (", as asked" if asked else "")
    return f"exited with code {code}" + (f": {told}" if told else "")
