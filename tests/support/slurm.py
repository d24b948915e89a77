"""A real Slurm cluster on this host: munged, slurmctld and two slurmd, in a folder of their own and on loopback only.

Everything is the cluster's own: ports, munge key, names. Two test runs at once do not hear each other.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest

from tests.support.embedded import wait_until
from tests.support.ports import free_ports, listens

_SBIN = "/usr/sbin:/usr/bin:/sbin:/bin"
_UP_S = 30
#: What a node pretends to have; the jobs of tests need next to nothing of it.
CPUS, MEMORY_MB, GPUS = 32, 64_000, 4

_CONF = """\
ClusterName={cluster}
SlurmctldHost={host}({ctld_address})
SlurmctldPort={ctld_port}
{binding}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobcomp.txt
ReturnToService=2
GetEnvTimeout=0
MinJobAge=30
KillWait=2
MessageTimeout=3
SlurmctldTimeout=10
SlurmdTimeout=15
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=1,sched_min_interval=0,default_queue_depth=1000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
NodeName={nodes} NodeHostname={host} NodeAddr={node_address} Port={ports} CPUs={cpus} RealMemory={memory} \\
 Gres=gpu:{gpus} State=UNKNOWN
PartitionName=main Nodes={nodes} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 OverSubscribe=NO
PartitionName=urgent Nodes={nodes} MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=short Nodes={nodes} MaxTime=1 State=UP PriorityTier=1
"""


def lacks() -> str | None:
    """Why no cluster can be started on this machine; None where it can."""
    missing = [
        name
        for name in ("slurmctld", "slurmd", "munged", "sbatch", "setpriv")
        if shutil.which(name, path=_SBIN) is None
    ]
    if missing:
        return f"there is no {', '.join(missing)} here (Debian: slurm-wlm munge)"
    if os.geteuid() != 0:
        return "only root can start slurmd, which becomes the user of each job"
    return None


@dataclass
class Cluster:
    """A running cluster. Its parts may be stopped and started again."""

    folder: Path
    name: str
    nodes: tuple[str, ...]
    ctld_port: int
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def conf(self) -> Path:
        return self.folder / "slurm.conf"

    def argv(self, part: str, *argv: str) -> list[str]:
        """How a part of the cluster, or with ``""`` a command for it, is started on its host."""
        return list(argv)

    def listens(self) -> bool:
        """Whether the controller does."""
        return listens(self.ctld_port)

    def ask(self, *argv: str, stdin: str = "") -> str:
        """What a Slurm command says. Raises CalledProcessError."""
        done = subprocess.run(
            self.argv("", *argv), input=stdin, capture_output=True, text=True, check=True, timeout=20, env=self.environ
        )
        return done.stdout.strip()

    @property
    def environ(self) -> Mapping[str, str]:
        return {"PATH": _SBIN, "SLURM_CONF": str(self.conf), "LANG": "C.UTF-8"}

    def options(self, folder: Path) -> dict[str, Any]:
        """Of a pool that runs on it, with its attempts in ``folder``."""
        return {"folder": str(folder), "slurm_conf": str(self.conf), "network": "127.0.0.0/8"}

    def jobs(self, *more: str) -> list[list[str]]:
        """``[id, name, state]`` of each job that is not over."""
        lines = self.ask("squeue", "-h", "-o", "%A|%j|%T", *more).splitlines()
        return [line.split("|") for line in lines]

    def hasten(self, job: str) -> None:
        """Run a requeued job in a moment: Slurm lets two minutes pass of its own.

        Not at once: a node refuses a job that is started within the second in which its last run was ended ("already
        killed, do not launch batch job": what it remembers of that has no fractions), and Slurm then fails the job.
        """
        self.ask("scontrol", "update", f"JobId={job}", "StartTime=now+2")

    def start(self, part: str) -> None:
        """``munged``, ``slurmctld`` or the name of a node."""
        argv = {
            "munged": [
                "munged", "--foreground", f"--key-file={self.folder}/munge.key", f"--socket={self.folder}/munge.socket",
                f"--pid-file={self.folder}/munged.pid", f"--log-file={self.folder}/munged.log",
                f"--seed-file={self.folder}/munged.seed", "--num-threads=2",
            ],
            "slurmctld": ["slurmctld", "-D", "-f", str(self.conf)],
        }.get(part, ["slurmd", "-D", "-f", str(self.conf), "-N", part])  # fmt: skip
        program = shutil.which(argv[0], path=_SBIN)
        assert program is not None
        # a test run that is killed takes its cluster along
        words = self.argv(part, "/usr/bin/setpriv", "--pdeathsig", "KILL", program, *argv[1:])
        self.running[part] = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env=dict(self.environ), cwd=self.folder, start_new_session=True,
        )  # fmt: skip

    def stop(self, part: str, number: signal.Signals = signal.SIGTERM) -> None:
        process = self.running.pop(part)
        process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)

    def signal(self, part: str, number: signal.Signals) -> None:
        self.running[part].send_signal(number)

    def repair(self) -> None:
        """All parts run, no node is drained and no job of others is left."""
        for part in ("munged", "slurmctld", *self.nodes):
            if part in self.running and self.running[part].poll() is None:
                self.signal(part, signal.SIGCONT)
            else:
                self.start(part)
        wait_until(lambda: listens(self.ctld_port), _UP_S, "slurmctld")
        for node in self.nodes:
            # refused when there is nothing to resume
            subprocess.run(
                ["/usr/bin/scontrol", "update", f"nodename={node}", "state=resume"], env=dict(self.environ), timeout=20,
                capture_output=True, check=False,
            )  # fmt: skip
        self.wait_ready()

    def wait_ready(self) -> None:
        """Until the controller answers and each node takes jobs."""
        wait_until(self._is_ready, _UP_S, f"the cluster being ready; see {self.folder}")

    def _is_ready(self) -> bool:
        done = subprocess.run(
            self.argv("", "/usr/bin/sinfo", "-h", "-N", "-o", "%N %T"), capture_output=True, text=True,
            env=dict(self.environ), timeout=20, check=False,
        )  # fmt: skip
        seen = set(done.stdout.splitlines())
        fit = ("idle", "mixed", "allocated")
        return all(any(f"{node} {state}" in seen for state in fit) for node in self.nodes)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One for all tests of a run that import this; skips where there can be none."""
    missing = lacks()
    if missing:
        pytest.skip(missing)
    with running_cluster() as cluster:
        yield cluster


@contextmanager
def running_cluster(
    nodes: int = 2, more: str = "", kind: type[Cluster] = Cluster, addresses: tuple[str, str] = ("127.0.0.1",) * 2
) -> Iterator[Cluster]:
    """A cluster of so many nodes; ``more``: lines of slurm.conf; ``addresses``: the controller's and the nodes'."""
    # not in a folder of pytest's: munged wants everybody to reach its socket, whose path must be short
    home = Path(tempfile.mkdtemp(prefix="slurm-"))
    home.chmod(0o755)
    cluster = _configure(home, nodes, more, kind, addresses)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        stack.callback(_stop_all, cluster)
        cluster.start("munged")
        wait_until((home / "munge.socket").exists, _UP_S, "munged")
        cluster.start("slurmctld")
        wait_until(cluster.listens, _UP_S, "slurmctld")
        for node in cluster.nodes:
            cluster.start(node)
        cluster.wait_ready()
        yield cluster


def _configure(home: Path, nodes: int, more: str, kind: type[Cluster], addresses: tuple[str, str]) -> Cluster:
    host = socket.gethostname().partition(".")[0]
    name = f"t{uuid4().hex[:6]}"
    ctld_port, *ports = free_ports(1 + nodes)
    # the environment that jobs begin with is not to be asked of the login shell of whoever runs the tests
    (home / "state" / "env_cache").mkdir(parents=True)
    for user in {"hostler", *(account.pw_name for account in pwd.getpwall())}:
        (home / "state" / "env_cache" / user).write_text("HOME=/tmp\nPATH=/usr/local/bin:/usr/bin:/bin\n")
    key = home / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    # nothing of it listens beyond loopback, unless it has hosts of its own
    binding = "CommunicationParameters=NoInAddrAny,NoCtldInAddrAny" if addresses[0] == "127.0.0.1" else ""
    conf = _CONF.format(
        cluster=name, host=host, ctld_address=addresses[0], node_address=addresses[1], binding=binding, folder=home,
        ctld_port=ctld_port, nodes=f"{name}n[1-{nodes}]", ports=",".join(map(str, ports)), cpus=CPUS,
        memory=MEMORY_MB, gpus=GPUS,
    )  # fmt: skip
    (home / "slurm.conf").write_text(conf + more)
    # any character device will do as a pretended GPU
    (home / "gres.conf").write_text(f"Name=gpu File=/dev/tty[0-{GPUS - 1}]\n")
    (home / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    return kind(home, name, tuple(f"{name}n{number + 1}" for number in range(nodes)), ctld_port)


def _stop_all(cluster: Cluster) -> None:
    """Jobs first, so that nothing of them outlives the cluster; then the parts, in the order of who needs whom."""
    if {"slurmctld", "munged"} <= cluster.running.keys() and cluster.running["slurmctld"].poll() is None:
        for part in cluster.running:
            cluster.signal(part, signal.SIGCONT)
        subprocess.run(
            cluster.argv("", "/usr/bin/scancel", "--signal=KILL", "--full", "--user=root"), env=dict(cluster.environ),
            timeout=20, capture_output=True, check=False,
        )  # fmt: skip
        subprocess.run(
            cluster.argv("", "/usr/bin/scancel", "--user=root"), env=dict(cluster.environ), timeout=20,
            capture_output=True, check=False,
        )  # fmt: skip
        end = time.monotonic() + 10
        # one that does not answer ends as it is
        with suppress(subprocess.CalledProcessError):
            while time.monotonic() < end and cluster.jobs():
                time.sleep(0.1)
    for part in [*cluster.nodes, "slurmctld", "munged"]:
        if part in cluster.running:
            cluster.stop(part)
    for process in _left(cluster):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    wait_until(lambda: not _left(cluster), _UP_S, f"the end of all that ran on {cluster.folder}")


def _left(cluster: Cluster) -> list[psutil.Process]:
    """What still runs of the cluster or of its jobs: they know its slurm.conf."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SLURM_CONF") == str(cluster.conf) and process.pid != os.getpid():
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def submitted(cluster: Cluster, *options: str, script: str) -> str:
    """Submit a script of one's own, as somebody else would; the job's id."""
    words: Sequence[str] = ("sbatch", "--parsable", "--output=/dev/null", *options)
    return cluster.ask(*words, stdin=f"#!/bin/sh\n{script}\n")
