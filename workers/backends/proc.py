"""What /proc knows of processes: who lives, who belongs to whom. A pid alone is never trusted.

A process is named by pid **and** start time (clock ticks since the host's boot) **and** boot id.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

#: In the environment of everything launched; its value is the attempt's name.
MARK = "HOSTLER_MARK"


@dataclass(frozen=True)
class Identity:
    """One process of one boot."""

    pid: int
    start: int
    boot_id: str

    @classmethod
    def of(cls, record: Mapping[str, Any] | None, boot: str) -> Identity | None:
        """From a record with ``pid`` and ``start``; None when it has none."""
        if not record or not isinstance(record.get("pid"), int) or not isinstance(record.get("start"), int):
            return None
        return cls(record["pid"], record["start"], str(record.get("boot_id", boot)))


@dataclass(frozen=True)
class Stat:
    """A line of ``/proc/<pid>/stat``: the fields that matter here."""

    pid: int
    state: str
    parent: int
    group: int
    session: int
    threads: int
    start: int
    #: as ``wait`` would give it; meaningful once the process is a zombie
    wait_status: int

    @property
    def ended(self) -> bool:
        # a zombie leader whose other threads go on is a living process
        return self.state in "XZ" and self.threads <= 1


@cache
def boot_id() -> str:
    """Changes when the host restarts."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def stat(pid: int) -> Stat | None:
    """None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            line = file.read(1024)
    except (FileNotFoundError, ProcessLookupError):
        return None
    words = line.rpartition(b")")[2].split()
    status = int(words[49]) if len(words) > 49 else 0
    return Stat(
        pid, words[0].decode(), int(words[1]), int(words[2]), int(words[3]), int(words[17]), int(words[19]), status
    )


def find(identity: Identity) -> Stat | None:
    """That very process, alive or zombie; None when it is gone or its pid belongs to another one by now."""
    if identity.boot_id != boot_id():
        return None
    seen = stat(identity.pid)
    return seen if seen is not None and seen.start == identity.start else None


def lives(identity: Identity | None) -> bool:
    """Whether that very process still runs."""
    seen = find(identity) if identity else None
    return seen is not None and not seen.ended


def open_pidfd(identity: Identity) -> int | None:
    """A descriptor that becomes readable when the process ends; None when it has."""
    try:
        pidfd = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return None
    if not lives(identity):
        os.close(pidfd)
        return None
    return pidfd


def send(identity: Identity, number: int) -> bool:
    """Signal that very process; False when it has ended. Raises PermissionError."""
    pidfd = open_pidfd(identity)
    if pidfd is None:
        return False
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def signal_name(number: int) -> str:
    """``SIGKILL``; ``signal 40`` for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class Table:
    """All processes as they were when first asked for: one reading serves a whole batch."""

    def __init__(self) -> None:
        self._stats: list[Stat] | None = None
        self._marks: dict[int, str | None] = {}

    def living(self) -> list[Stat]:
        if self._stats is None:
            found = (stat(pid) for pid in pids())
            self._stats = [item for item in found if item is not None and not item.ended]
        return self._stats

    def members(self, name: str, engine: Identity | None) -> list[Stat]:
        """What lives of the attempt: whoever carries its mark, and of its engine's session who carries none.

        Another attempt's mark is proof that it is another's, under whatever session number.
        """
        # a session's number is not given to a new process while the session lives, so only a *different* process
        # under the engine's pid makes it a foreign session
        holder = stat(engine.pid) if engine else None
        session = engine.pid if engine and engine.boot_id == boot_id() else None
        if engine and holder is not None and holder.start != engine.start:
            session = None
        # nothing it started is older than itself, which spares reading most environments
        oldest = engine.start if engine and session else 0
        return [
            item
            for item in self.living()
            if item.start >= oldest
            and (self.mark(item.pid) in (None, name) if item.session == session else self.mark(item.pid) == name)
        ]

    def marked(self, prefix: str) -> Iterator[str]:
        """The marks that begin with ``prefix``."""
        for item in self.living():
            mark = self.mark(item.pid)
            if mark is not None and mark.startswith(prefix):
                yield mark

    def mark(self, pid: int) -> str | None:
        if pid not in self._marks:
            self._marks[pid] = mark_of(pid)
        return self._marks[pid]


def words_of(pid: int) -> list[str]:
    """Of its command line; none when it is gone."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def oom_kills() -> int:
    """How often the kernel has killed for want of memory on this host since its boot, in whatever cgroup."""
    for line in Path("/proc/vmstat").read_text().splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return 0


def pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def lock_holders(lock: Path, candidates: Iterable[int]) -> list[int]:
    """Processes that hold ``lock`` exclusively: those that inherited it, not those that are asking about it."""
    try:
        wanted = os.stat(lock)
    except FileNotFoundError:
        return []
    return [pid for pid in candidates if _holds(pid, wanted)]


def _holds(pid: int, wanted: os.stat_result) -> bool:
    for number in open_files(pid):
        try:
            seen = os.stat(f"/proc/{pid}/fd/{number}")
            if (seen.st_dev, seen.st_ino) != (wanted.st_dev, wanted.st_ino):
                continue
            details = Path(f"/proc/{pid}/fdinfo/{number}").read_text()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if "FLOCK" in details and "WRITE" in details:
            return True
    return False


def open_files(pid: int) -> list[str]:
    """The numbers of its descriptors; none when it is gone or somebody else's."""
    try:
        return os.listdir(f"/proc/{pid}/fd")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


def mark_of(pid: int) -> str | None:
    """The mark that a process was begun with; None when it has none, is gone or is somebody else's."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            environ = file.read()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    for item in environ.split(b"\0"):
        if item.startswith(MARK.encode() + b"="):
            return item.partition(b"=")[2].decode(errors="replace")
    return None
