"""The parts that places are made of, started once per run of the harness and ended by pid with it.

What this machine lacks is left out and told: its pools are not made, and what scripts ask of them is skipped.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.faults.harness.facts import PlaceFacts
from tests.faults.harness.places.pools import ALL, CLUSTER, PODMAN, SEATS, SHARED, SSHD
from tests.support import podman as podmen
from tests.support import slurm
from tests.support.podman import Podman, running_podman
from tests.support.slurm import Cluster, running_cluster
from tests.support.sshd import Sshd, running_sshd
from tests.support.stacks import gone

SLURMCTLD = "slurmctld"
#: For engines of other places: no port that a stack leases on this host, where they run in truth, nor one of another
#: run of the harness at the same time, whose engines would be strangers who answer in the place of ours.
_OWN = os.getpid() % 25 * 40
JOB_PORTS, FAR_PORTS = [30000 + _OWN, 30000 + _OWN + 39], [31000 + _OWN, 31000 + _OWN + 39]
_START_S = 60
#: With a volume, as many have: one more thing that must go with each container.
IMAGE = "localhost/hostler-faults:latest"
#: What the engine of a job is told of it, for who counts the starts, and looks whose GPUs are whose.
_COUNTED = ["SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURMD_NODENAME"]


@dataclass
class Parts:
    """Those that run here. ``missing`` says of the others why not."""

    folder: Path
    cluster: Cluster | None = None
    sshd: Sshd | None = None
    podman: Podman | None = None
    missing: dict[str, str] = field(default_factory=dict)
    _starter: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    def has(self, *parts: str) -> bool:
        return not self.missing.keys() & set(parts)

    def left_out(self) -> dict[str, str]:
        """Pools that cannot be here, and why."""
        whys = {pool: [self.missing[one] for one in needs if one in self.missing] for pool, (*_, needs) in ALL.items()}
        return {pool: why[0] for pool, why in whys.items() if why}

    def options(self, pool: str, folder: Path) -> dict[str, Any] | None:
        """Of that pool, for a stack whose harness's folder is ``folder``; None where a part of it is missing."""
        if not self.has(*ALL[pool][2]):
            return None
        if pool == "pod":
            assert self.podman is not None
            return self._contained(folder)
        if pool in ("queue", "login", SHARED):
            assert self.cluster is not None
            options = {**self.cluster.options(folder / pool), "passes": _COUNTED, "ports": JOB_PORTS}
            if pool == SHARED:
                return {**options, "replicas_per_job": SEATS, "job_stay_s": 2}
            return options if pool == "queue" else {**options, "ssh": self._ssh}
        options = {"ssh": self._ssh, "folder": str(folder / "far"), "python": sys.executable, "ports": FAR_PORTS}
        return {**options, "tunnel": True} if pool == "tunnelled" else options

    def facts(self, prefix: str) -> PlaceFacts:
        """What the checker needs to ask the parts itself."""
        return PlaceFacts(
            prefix,
            self.cluster.conf if self.cluster else None,
            self.podman.socket if self.podman else None,
        )

    def start(self, act: Callable[[], None]) -> None:
        """Start something again. Always by one thread that stays: what it starts may be bound to the thread's life."""
        self._starter.submit(act).result(_START_S)

    def mend(self) -> None:
        """Let everything run again, whatever a fault left."""
        if self.cluster is not None:
            for name in (SLURMCTLD, *self.cluster.nodes):
                self.start_of_cluster(name)
                self.cluster.signal(name, signal.SIGCONT)
        if self.sshd is not None:
            self.start_sshd()
            _send([self.sshd_pid(), *self.sessions()], signal.SIGCONT)
        if self.podman is not None:
            self.start_podman()
            _send([self.podman.pid, *_below(self.podman.pid)], signal.SIGCONT)

    def start_of_cluster(self, name: str) -> None:
        assert self.cluster is not None
        running = self.cluster.running.get(name)
        if running is None or running.poll() is not None:
            self.start(lambda: self.cluster and self.cluster.start(name))

    def start_sshd(self) -> None:
        assert self.sshd is not None
        if self.sshd.process is None or self.sshd.process.poll() is not None:
            self.start(self.sshd.start)

    def start_podman(self) -> None:
        assert self.podman is not None
        if gone(self.podman.pid):
            self.podman.stop()
            self.start(self.podman.start)

    def sshd_pid(self) -> int:
        assert self.sshd is not None
        assert self.sshd.process is not None
        return self.sshd.process.pid

    def sessions(self) -> list[int]:
        """Of sshd those processes that serve one connection each, and what these became for their users."""
        if self.sshd is None or self.sshd.process is None:
            return []
        return [pid for pid in _below(self.sshd.process.pid) if _name(pid).startswith("sshd")]

    def close(self) -> None:
        self._starter.shutdown()

    @property
    def _ssh(self) -> dict[str, Any]:
        assert self.sshd is not None
        return self.sshd.ssh

    def _contained(self, folder: Path) -> dict[str, Any]:
        """With the interpreter of the stack mounted too, and where starts are counted."""
        assert self.podman is not None
        options = {**self.podman.options(folder / "starts", folder / "talks"), "image": IMAGE}
        more = {"source": str(folder / "python")}
        return {**options, "mounts": [*options["mounts"], more], "allowed_mounts": [*options["allowed_mounts"], more]}


@contextmanager
def running_parts(folder: Path) -> Iterator[Parts]:
    """Everything that this machine has, in ``folder``."""
    parts = Parts(folder)
    with ExitStack() as held:
        held.callback(parts.close)
        lacks = slurm.lacks()
        if lacks:
            parts.missing[CLUSTER] = lacks
        else:
            parts.cluster = held.enter_context(running_cluster())
        lacks = podmen.lacks()
        if lacks:
            parts.missing[PODMAN] = lacks
        else:
            parts.podman = held.enter_context(running_podman())
            with parts.podman.client() as client:
                named = {"repository": IMAGE.rpartition(":")[0], "tag": "latest"}
                client.import_image_from_data(podmen.image_tar(), **named, changes=["VOLUME /scratch"])
        run_dir = Path(tempfile.mkdtemp(prefix="hs"))
        held.callback(shutil.rmtree, run_dir, ignore_errors=True)
        try:
            parts.sshd = held.enter_context(running_sshd(folder / "sshd", run_dir))
        except pytest.skip.Exception as why:
            parts.missing[SSHD] = str(why)
        held.callback(parts.mend)
        yield parts


def _send(pids: list[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _below(pid: int) -> list[int]:
    try:
        return [one.pid for one in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _name(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.NoSuchProcess:
        return ""
