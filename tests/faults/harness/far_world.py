"""What other places say themselves, by nothing of the product: the cluster, Podman, and this host's process table, for
all of them run here.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.faults.harness import world
from tests.faults.harness.facts import PlaceFacts

_ASK_S = 10.0
_COMMANDS = "/usr/sbin:/usr/bin:/sbin:/bin"
#: The label by which containers name their attempt.
_ATTEMPT = "hostler.attempt"
_MARK, _HOME, _RUN = b"HOSTLER_MARK=", b"HOME=", b"SLURM_RESTART_COUNT="
_ROLE, _STATE = b"HOSTLER_ROLE=", b"HOSTLER_STATE_DIR="


@dataclass(frozen=True)
class Job:
    """A job that is not over. ``state`` in the cluster's words."""

    id: str
    name: str
    state: str


@dataclass(frozen=True)
class Container:
    """One that is known to Podman. ``state`` in its words."""

    id: str
    attempt: str
    state: str


@dataclass(frozen=True)
class FarProcess:
    """A living process of an attempt in another place. ``run``: how often its cluster began it anew before."""

    pid: int
    start: int
    name: str
    leads: bool
    run: str


@dataclass(frozen=True)
class Connection:
    """An ``ssh`` of the stack's: of the connection that commands share, or of the tunnels."""

    pid: int
    role: str
    words: str


def jobs(places: PlaceFacts) -> list[Job] | None:
    """Jobs of the stack; None when the cluster does not answer."""
    if places.slurm_conf is None:
        return []
    environ = {"PATH": _COMMANDS, "SLURM_CONF": str(places.slurm_conf), "LANG": "C.UTF-8"}
    try:
        said = subprocess.run(
            ["squeue", "-h", "-o", "%A|%j|%T"], env=environ, capture_output=True, text=True, timeout=_ASK_S, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found = [Job(*line.split("|")) for line in said.splitlines()]
    return [job for job in found if job.name.startswith(places.prefix)]


def containers(places: PlaceFacts) -> list[Container] | None:
    """Containers of the stack, ended ones too; None when Podman does not answer."""
    if places.podman_socket is None:
        return []
    wanted = quote(json.dumps({"label": [_ATTEMPT]}))
    try:
        found = _get(places.podman_socket, f"/v1.41/containers/json?all=1&filters={wanted}")
    except (OSError, http.client.HTTPException, ValueError):
        return None
    known = [Container(one["Id"], one["Labels"][_ATTEMPT], one["State"]) for one in found]
    return [one for one in known if one.attempt.startswith(places.prefix)]


def processes(places: PlaceFacts, state_dir: Path) -> list[FarProcess]:
    """Everything that runs for the stack's attempts in other places now."""
    prefix, attempts = os.fsencode(places.prefix), os.fsencode(state_dir / "attempts") + b"/"
    found = []
    for pid, environ in _environs():
        mark = _value(environ, _MARK)
        if mark.startswith(prefix) and not _value(environ, _HOME).startswith(attempts):
            start, leads = world.identity(pid), world.leads(pid)
            if start is not None:
                run = os.fsdecode(_value(environ, _RUN)) or "0"
                found.append(FarProcess(pid, start, os.fsdecode(mark), leads, run))
    return found


def connections(state_dir: Path) -> list[Connection]:
    """Every ``ssh`` of the stack's that keeps a connection."""
    found = []
    for pid, environ in _environs():
        if _value(environ, _STATE) != os.fsencode(state_dir) or world.identity(pid) is None:
            continue
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if os.path.basename(words[0]).startswith(b"ssh"):
            role = os.fsdecode(_value(environ, _ROLE))
            found.append(Connection(pid, role, os.fsdecode(b" ".join(words)).strip()))
    return found


def _environs() -> list[tuple[int, list[bytes]]]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                found.append((int(entry), Path(f"/proc/{entry}/environ").read_bytes().split(b"\0")))
            except OSError:
                continue
    return found


def _value(environ: list[bytes], name: bytes) -> bytes:
    return next((item[len(name) :] for item in environ if item.startswith(name)), b"")


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_ASK_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_ASK_S)
        self.sock.connect(str(self._path))


def _get(path: Path, address: str) -> Any:
    connection = _Unix(path)
    try:
        connection.request("GET", address)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()
