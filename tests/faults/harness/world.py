"""What the host says: who runs under which mark, who listens where, what the folders of the attempts hold.

An attempt is called ``hostler-<namespace>-<replica>-<number>``. Its engine and all that comes of it carry that name in
``HOSTLER_MARK`` and its folder, ``<state>/attempts/<name>``, in ``HOME``.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_MARK = b"HOSTLER_MARK="
_HOME = b"HOME="
_HAPROXY_S = 3.0
#: ``<replica>-<attempt>``, as the gateway names the servers it makes of replicas.
_OF_A_REPLICA = re.compile(r"[0-9a-f]{12}-\d+")
#: In maintenance or draining, set by hand, by the file or by what it follows (management guide, "show servers state").
_HELD_BACK = 0x01 | 0x02 | 0x04 | 0x08 | 0x10 | 0x20


@dataclass(frozen=True)
class Process:
    """A living process of an attempt. ``start`` is in clock ticks since the host's boot, as ``/proc`` has it."""

    pid: int
    start: int
    name: str
    #: the first of its session, as the engine's own process is
    leads: bool


def replica_of(name: str) -> tuple[str, int]:
    """(replica id, number) of an attempt's name."""
    _, replica, number = name.rsplit("-", 2)
    return replica, int(number)


def identity(pid: int) -> int | None:
    """The start time of a living process; None when there is none (a zombie does not live)."""
    stat = _stat(pid)
    return stat[1] if stat else None


def leads(pid: int) -> bool:
    """Whether that process lives and is the first of its session."""
    stat = _stat(pid)
    return stat is not None and stat[0] == pid


def processes(state_dir: Path) -> list[Process]:
    """Everything that runs for this stack's attempts now."""
    attempts = os.fsencode(state_dir / "attempts") + b"/"
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        pid = int(entry)
        name = _name_of(pid, attempts)
        stat = _stat(pid) if name else None
        if name and stat:
            found.append(Process(pid, stat[1], name, stat[0] == pid))
    return found


def shims(state_dir: Path) -> dict[int, str]:
    """Pids of the shims of this stack, with the attempt whose folder each stands in."""
    attempts = str(state_dir / "attempts")
    found = {}
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if not any("/.shim-" in word and word.startswith(attempts) for word in words):
            continue
        try:
            folder = os.readlink(f"/proc/{process.pid}/cwd")
        except OSError:
            continue
        if folder.startswith(attempts):
            found[process.pid] = Path(folder).name.removesuffix(" (deleted)")
    return found


def listeners() -> dict[int, set[int]]:
    """Pids that listen on each TCP port of this host."""
    found: dict[int, set[int]] = {}
    for one in psutil.net_connections("tcp"):
        if one.status == psutil.CONN_LISTEN and one.pid is not None:
            found.setdefault(one.laddr.port, set()).add(one.pid)
    return found


@dataclass(frozen=True)
class Server:
    """A server that HAProxy holds for one attempt of one replica. ``takes``: it may get new requests."""

    backend: str
    name: str
    port: int
    takes: bool

    @property
    def replica(self) -> str:
        return self.name.rpartition("-")[0]

    @property
    def attempt(self) -> int:
        return int(self.name.rpartition("-")[2])


def routed(haproxy: Path) -> list[Server] | None:
    """Every replica's server that HAProxy holds, by its own words; None when it does not answer."""
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_HAPROXY_S)
            sock.connect(str(haproxy))
            sock.sendall(b"show servers state\n")
            said = b""
            while piece := sock.recv(65536):
                said += piece
    except OSError:
        return None
    head, *rows = [line.removeprefix("# ").split(" ") for line in said.decode().splitlines() if line.count(" ") > 5]
    found = [dict(zip(head, row, strict=False)) for row in rows]
    return [
        Server(one["be_name"], one["srv_name"], int(one["srv_port"]), not int(one["srv_admin_state"]) & _HELD_BACK)
        for one in found
        if _OF_A_REPLICA.fullmatch(one["srv_name"])
    ]


def engine_record(state_dir: Path, name: str) -> dict[str, Any] | None:
    """``engine.json`` of an attempt: pid and start time that its engine wrote of itself."""
    try:
        found = json.loads((state_dir / "attempts" / name / "engine.json").read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def told_starts(folder: Path, state_dir: Path) -> dict[str, int]:
    """How often each attempt's engine says that it was started, by the higher of the two counts there are."""
    found: dict[str, int] = {}
    counted = [(path.name, path) for path in _files(folder / "starts")]
    counted += [(path.name, path / "starts") for path in _files(state_dir / "attempts")]
    for name, path in counted:
        try:
            lines = path.read_bytes().splitlines()
        except OSError:
            continue
        # what a cluster began anew is another run, and starts once again
        runs = Counter(line.split()[1] if b" run-" in line else b"" for line in lines)
        found[name] = max(found.get(name, 0), *runs.values(), 0)
    return found


def told_jobs(folder: Path, name: str) -> set[str]:
    """The jobs of a cluster in which that attempt's engine says that it was started."""
    words = (folder / "starts" / name).read_text().split()
    return {word.removeprefix("job-") for word in words if word.startswith("job-")}


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def _name_of(pid: int, attempts: bytes) -> str | None:
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    mark = next((item[len(_MARK) :] for item in environ if item.startswith(_MARK)), None)
    home = next((item[len(_HOME) :] for item in environ if item.startswith(_HOME)), b"")
    return os.fsdecode(mark) if mark and home == attempts + mark else None


def _stat(pid: int) -> tuple[int, int] | None:
    """(session, start) of a living process."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if words[0] in "ZX" else (int(words[3]), int(words[19]))
