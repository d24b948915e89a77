"""What a backend must do: eight verbs, each with a timeout and safe to call twice.

A backend knows only this module and domain values: no database, no Celery, no other backend. Nothing here waits for a
model to load; a verb returns what is so now, and the sweep asks again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from app.domain.lifecycle import Reason

#: What ``Backend.read_log`` gives at once, unless less or more is asked for.
LOG_PART_BYTES = 256 * 1024


class BackendError(Exception):
    """The backend refused or broke. ``retryable`` says whether asking again can help."""

    retryable = False


class BackendUnavailable(BackendError):
    """The backend cannot be asked now; nothing is known about what it runs."""

    retryable = True


class LaunchRefused(BackendError):
    """The backend will not run this (bad options, missing program). Nothing was started."""


class ProgramMissing(LaunchRefused):
    """The program of the argv is nowhere to be found, or cannot be run. Nothing was started."""


class AlreadyLaunched(BackendError):
    """Something with that name runs or ran. Adopt it instead of launching a second one."""


class Liveness(StrEnum):
    """What the backend knows of an attempt, from its own evidence."""

    #: accepted by the backend but not started (a cluster's queue)
    QUEUED = "queued"
    RUNNING = "running"
    #: it ended and nothing of it is left
    EXITED = "exited"
    #: its leader ended but descendants are left: not gone
    LINGERING = "lingering"
    #: no trace of it: never launched, or cleaned up
    ABSENT = "absent"
    #: it was launched, it is not where it should be, and nothing tells how it ended
    LOST = "lost"
    #: the backend cannot tell
    UNKNOWN = "unknown"

    @property
    def gone(self) -> bool:
        """Seen gone: leases may be returned."""
        return self in (Liveness.EXITED, Liveness.ABSENT)


@dataclass(frozen=True)
class Launch:
    """One attempt to launch. ``name`` is unique for replica and attempt and marks every outside thing."""

    name: str
    replica_id: str
    attempt: int
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    files: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: where the engine listens. Without a port the backend finds both where it runs, puts them in the place of
    #: ``PORT_LATER`` and ``HOST_LATER`` in argv, env and files, and tells them in what it observes
    host: str = "127.0.0.1"
    port: int | None = None
    gpus: tuple[int, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    #: hosts that it runs on, one of them its leader; more than one only where SPANS_HOSTS is not lacked
    nodes: int = 1
    #: the replica's own options for this backend, over the pool's, valid by ``options_schema``
    options: Mapping[str, Any] = field(default_factory=dict)
    #: what a stack that lost its database needs to know again; kept with the attempt, private, given back by ``recall``
    record: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Handle:
    """How to find an attempt again. JSON-able; kept in ``attempts.backend_ref``."""

    backend: str
    name: str
    ref: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Observation:
    """What was seen of one attempt at one moment."""

    liveness: Liveness
    #: the process group or job's leader, where there is one
    pid: int | None = None
    exit_code: int | None = None
    signal: int | None = None
    out_of_memory: bool = False
    message: str = ""
    #: where it listens, if the backend chose that: an IP address that others reach, for gateways look up no names
    host: str | None = None
    port: int | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    #: True or False when the backend itself answers the readiness probe (mock), None when HTTP must be asked
    answers: bool | None = None
    #: False when something foreign listens on the attempt's port; None when nobody listens or it cannot be told
    owns_port: bool | None = None
    #: why it ended, where the backend knows better than an exit code tells (``walltime``, ``preempted``)
    reason: Reason | None = None
    #: what else the backend knows, for ``explain``: ``job_id``, ``state``, ``why`` it waits, ``expected_start`` (ISO
    #: 8601), ``nodes``, ``restarts``, the ``command`` that shows it there; of a job that several share, its ``seat``
    #: of so many ``seats``. JSON-able; None leaves what is known
    told: Mapping[str, Any] | None = None
    #: what keeps it from ending though it was asked to, where asking again may not help, and what the user can do
    hindrance: str = ""

    def __post_init__(self) -> None:
        # words of other programs, and of other hosts: what a database cannot keep would keep nobody's state
        if not self.message.isprintable():
            object.__setattr__(self, "message", _plain(self.message))
        if not _is_address(self.host, self.port):
            object.__setattr__(self, "host", None)
            object.__setattr__(self, "port", None)


def _is_address(host: object, port: object) -> bool:
    """Whether it can be one, or a part of one."""
    return (host is None or (type(host) is str and host.isprintable())) and (
        port is None or (type(port) is int and 0 < port < 65536)
    )


def _plain(text: str) -> str:
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


@dataclass(frozen=True)
class Fingerprint:
    """What the backend has here: shown by ``hostler node get`` and ``doctor``, and asked before a mass verdict."""

    healthy: bool
    detail: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    #: it answers, and what the options name is not there all the same: what launches will meet
    wrong: str = ""
    #: what to type next, where it is known
    fix: str = ""


@dataclass(frozen=True)
class BackendContext:
    """What a backend may know of the stack it serves."""

    #: folder of everything the stack keeps on this host (0700)
    state_dir: Path
    #: private folder with a short path, for sockets; what lies in it may go when the stack ends
    run_dir: Path = Path("/nonexistent")
    #: output kept per attempt
    log_bytes: int = 16 * 1024 * 1024
    #: GPUs of this host as declared; below 0 the driver is asked
    node_gpus: int = -1
    #: of the pool's and the replica's options those that say where: what ``Backend.place_options`` names
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LogPart:
    """Output from some place on. ``place`` is where the next part begins, opaque and the backend's own; ``data`` ends
    anywhere, also within a character. ``gap``: what was between the place asked for and ``data`` is kept no more."""

    data: bytes
    place: str
    gap: bool = False


class Backend(Protocol):
    """One file per backend. Instances are made per process and place by ``registry.open_backend(name, context)``."""

    name: str
    summary: str
    #: what runs is bound to the worker's host: its verbs go to that node's queue, it needs a port of that host
    host_bound: bool
    #: a real HTTP server answers at host:port; False means ``Observation.answers`` is the probe
    serves_http: bool
    #: what of app/domain/abilities.py it declares that it lacks; the conformance suite skips only by these
    lacks: frozenset[str]
    #: what it took may wait there before it runs: for a cluster's turn, for an image that is pulled
    queues: bool
    #: it puts the address into the command itself, for an engine may have to bind another one than it is reached at
    puts_address: bool
    #: options that say where it runs (a host behind SSH, a socket): for each of their values there is an instance
    place_options: tuple[str, ...]
    #: JSON Schema of pool ``options`` and of a replica's own options for this backend
    options_schema: Mapping[str, Any]

    def __init__(self, context: BackendContext) -> None: ...

    def fingerprint(self, options: Mapping[str, Any], timeout_s: float = 5) -> Fingerprint: ...

    def prepare(self) -> None:
        """Do ahead what the next launch would wait for; called when no launch is under way. Raises BackendError."""

    def adopt(self, name: str, timeout_s: float = 5) -> Handle | None:
        """The handle of what was already launched under ``name``, running or ended; None if nothing was."""

    def launch(self, launch: Launch, timeout_s: float = 20) -> Handle:
        """Start it, once: nothing is started later than ``timeout_s`` from now, whatever froze meanwhile.

        Raises AlreadyLaunched when ``name`` was launched before, by whomever; LaunchRefused; BackendError.
        """

    def inspect(self, handles: Sequence[Handle], timeout_s: float = 5) -> list[Observation]:
        """One observation per handle, same order. Never raises for one bad handle: that one is UNKNOWN.

        Asked several times a second while something is expected, else each probe interval, and by several threads: who
        must ask somebody else for it keeps the answer for a while.
        """

    def stop(self, handle: Handle, *, grace_s: float, force: bool = False, timeout_s: float = 5) -> Observation:
        """Ask it to end, or, when ``grace_s`` has passed since the first ask (or ``force``), kill all of it.

        Returns what is left right now; call it again until ``liveness.gone``. A name that was never launched is
        sealed first, and then ABSENT: a launcher that thaws later gets LaunchRefused instead of an orphan.
        """

    def logs(self, handle: Handle, *, tail: int | None = None, timeout_s: float = 5) -> Iterator[str]:
        """Lines of output, oldest first, also after the end. Bounded."""

    def read_log(self, handle: Handle, place: str = "", limit: int = LOG_PART_BYTES, timeout_s: float = 5) -> LogPart:
        """At most ``limit`` bytes of output from ``place`` on, also after the end; "": from the oldest kept.

        Who hands back each ``LogPart.place`` gets every byte once and in order, over rotations. No ``data``: nothing
        more now. A place that is kept no more, or is none, goes on at the oldest kept, and says so by ``gap``. Nothing
        was launched: no data and no error. Raises BackendError; BackendUnavailable when it cannot be asked.
        """

    def tail_place(self, handle: Handle, lines: int, timeout_s: float = 5) -> str:
        """The place for ``read_log`` from which on, now, the last ``lines`` lines are ahead; "": all that is kept.

        Costs what those lines cost, not what lies before them. Raises as ``read_log`` does.
        """

    def recall(self, name: str) -> Mapping[str, Any] | None:
        """The ``Launch.record`` of what was launched under ``name``; None where nothing was kept."""

    def close(self, handle: Handle, timeout_s: float = 5) -> None:
        """Forget it: called once it is gone and its record may go. Removes folders, never a running thing."""

    def watch_fd(self, handle: Handle) -> int | None:
        """A descriptor that becomes readable when the attempt's leader ends; the caller closes it.

        None when it ended already or the backend has no such thing. A hint only: then ``inspect``.
        """

    def list_marked(self, prefix: str) -> list[str]:
        """Names of all attempts, recorded or running, that begin with ``prefix``: what nobody knows is an orphan.

        One without a record can still be inspected and stopped by ``Handle(backend, name)``.
        """

    def tidy(self, *, dry_run: bool = False) -> list[str]:
        """Remove what killed processes left half made, long ago; returns what that was, or would be."""
