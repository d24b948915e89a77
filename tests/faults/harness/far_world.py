"""What other places say themselves, by nothing of the product: the cluster, Podman, and this host's process table, for
all of them run here.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.faults.harness import world
from tests.faults.harness.facts import PlaceFacts

_ASK_S = 10.0
_OVER = frozenset({"COMPLETING", "COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED"})
_COMMANDS = "/usr/sbin:/usr/bin:/sbin:/bin"
#: The label by which containers name their attempt.
_ATTEMPT = "hostler.attempt"
_MARK, _HOME, _RUN = b"HOSTLER_MARK=", b"HOME=", b"SLURM_RESTART_COUNT="
_JOB, _NODE, _GPUS = b"SLURM_JOB_NAME=", b"SLURMD_NODENAME=", b"CUDA_VISIBLE_DEVICES="
#: Behind the prefix of the stack's names, how those of shared jobs go on.
_SHARED = b"shared-"
#: Ended, and Podman says that it runs, or stops, for ever: it hears of ends from conmon, and that was killed.
_ABANDONED = "abandoned"
_ROLE, _STATE = b"HOSTLER_ROLE=", b"HOSTLER_STATE_DIR="


@dataclass(frozen=True)
class Job:
    """A job that is not over. ``state`` in the cluster's words."""

    id: str
    name: str
    state: str

    @property
    def is_shared(self) -> bool:
        """Of several attempts, none of which it is called after."""
        return "-shared-" in self.name

    @property
    def share(self) -> str:
        """How the folder of such a job is called."""
        return self.name.partition("-shared-")[2]

    @property
    def is_over(self) -> bool:
        """Also one whose processes the cluster is still taking away."""
        return self.state in _OVER


@dataclass(frozen=True)
class Container:
    """One that is known to Podman. ``state`` in its words, or ours where it cannot know."""

    id: str
    attempt: str
    state: str

    @property
    def is_living(self) -> bool:
        return self.state not in ("exited", "dead", "stopped", _ABANDONED)


@dataclass(frozen=True)
class FarProcess:
    """A living process of an attempt in another place. ``run``: how often its cluster began it anew before."""

    pid: int
    start: int
    name: str
    leads: bool
    run: str
    #: GPUs of a cluster that it was given: ``NODE/NUMBER``
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Connection:
    """An ``ssh`` of the stack's: of the connection that commands share, or of the tunnels."""

    pid: int
    role: str
    words: str

    @property
    def keeps(self) -> bool:
        """It is the one that others go through (``-M``)."""
        return " -M " in f" {self.words} "


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
    running = {os.fsdecode(_value(environ, _MARK)) for _, environ in _environs()}
    return without_abandoned([one for one in known if one.attempt.startswith(places.prefix)], _kept(), running)


def without_abandoned(known: list[Container], kept: set[str], running: set[str]) -> list[Container]:
    """The same, with the ends that Podman will never hear of. ``kept``: ids that a conmon names; ``running``: attempts
    of which something runs."""
    return [
        replace(one, state=_ABANDONED)
        if one.state in ("running", "stopping") and one.id not in kept and one.attempt not in running
        else one
        for one in known
    ]


def _kept() -> set[str]:
    words = (_words(pid) for pid in _pids())
    return {os.fsdecode(word) for line in words if os.path.basename(line[0]) == b"conmon" for word in line}


def volumes(places: PlaceFacts) -> list[str] | None:
    """Volumes that no container has; None when Podman does not answer. All are the stack's: it is alone there."""
    return _listed(places, "volumes?filters=" + quote(json.dumps({"dangling": ["true"]})), "Volumes")


def networks(places: PlaceFacts) -> list[str] | None:
    """Networks beside the one that is always there, which has two names."""
    found = _listed(places, "networks")
    return None if found is None else [name for name in found if name not in ("podman", "bridge")]


def _listed(places: PlaceFacts, what: str, key: str = "") -> list[str] | None:
    if places.podman_socket is None:
        return []
    try:
        found = _get(places.podman_socket, f"/v1.41/{what}")
    except (OSError, http.client.HTTPException, ValueError):
        return None
    return [one["Name"] for one in ((found[key] or ()) if key else found)]


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
                found.append(FarProcess(pid, start, os.fsdecode(mark), leads, run, _devices(environ)))
    return found


def connections(state_dir: Path) -> list[Connection]:
    """Every ``ssh`` of the stack's that keeps a connection."""
    found = []
    for pid, environ in _environs():
        if _value(environ, _STATE) != os.fsencode(state_dir) or world.identity(pid) is None:
            continue
        words = _words(pid)
        if os.path.basename(words[0]).startswith(b"ssh"):
            role = os.fsdecode(_value(environ, _ROLE))
            found.append(Connection(pid, role, os.fsdecode(b" ".join(words)).strip()))
    return found


def is_closed(job: Job, folder: Path) -> bool:
    """Whether a job that several share takes nobody any more, by its folder in ``folder``: begun anew, by a controller
    that forgot its end, it ends at once."""
    return job.is_shared and not (folder / ".shared" / job.share / "seats").is_dir()


def left(places: PlaceFacts, state_dir: Path, shared: Path) -> list[str]:
    """What still is there of a stack, in words; ``shared``: folder of the pool whose replicas share jobs."""
    found = [f"a process of {one.name} elsewhere" for one in processes(places, state_dir)]
    living = [one for one in jobs(places) or () if not one.is_over and not is_closed(one, shared)]
    found += [f"job {one.id} of {one.name}, {one.state}" for one in living]
    found += [f"a container of {one.attempt}" for one in containers(places) or () if one.is_living]
    return found + [f"an ssh of {one.role}: {one.words[:80]}" for one in connections(state_dir)]


def job_programs(places: PlaceFacts, *, of_shared: bool = False) -> list[int]:
    """Pids of the programs of ours around the engines of jobs; ``of_shared``: of those that share one."""
    return [pid for pid in _in_jobs(places, of_shared=of_shared) if b"job.py" in _words(pid)]


def share_programs(places: PlaceFacts) -> list[int]:
    """Pids of the programs of ours that look after the seats of a shared job."""
    return [pid for pid in _in_jobs(places, of_shared=True) if b"share.pyz" in _words(pid)]


def _in_jobs(places: PlaceFacts, *, of_shared: bool) -> list[int]:
    prefix = os.fsencode(places.prefix)
    named = ((pid, _value(environ, _JOB)) for pid, environ in _environs())
    return [pid for pid, name in named if name.startswith(prefix) and name.startswith(prefix + _SHARED) == of_shared]


def conmons(places: PlaceFacts) -> list[int]:
    """Pids of Podman's programs that keep one container of ours each: its output, and how it ended."""
    prefix = os.fsencode(places.prefix)
    found = [(pid, _words(pid)) for pid in _pids()]
    return [
        pid
        for pid, words in found
        if os.path.basename(words[0]) == b"conmon" and any(word.startswith(prefix) for word in words)
    ]


def far_ends(folder: Path) -> list[int]:
    """Pids of our code on a host behind SSH whose attempts lie in ``folder``, while it answers."""
    code = os.fsencode(folder) + b"/code-"
    return [pid for pid in _pids() if any(word.startswith(code) for word in _words(pid))]


def _pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def _words(pid: int) -> list[bytes]:
    """Of its command line; one empty word when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return [b""]


def _environs() -> list[tuple[int, list[bytes]]]:
    found = []
    for pid in _pids():
        try:
            found.append((pid, Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")))
        except OSError:
            continue
    return found


def _devices(environ: list[bytes]) -> tuple[str, ...]:
    node, gpus = os.fsdecode(_value(environ, _NODE)), os.fsdecode(_value(environ, _GPUS))
    return tuple(f"{node}/{gpu}" for gpu in gpus.split(",")) if node and gpus else ()


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
