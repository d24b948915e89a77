"""How other places break: their parts are killed and frozen, and what runs there is taken away behind our back."""

from __future__ import annotations

import random
import signal
import subprocess
from collections.abc import Callable, Mapping
from signal import SIGKILL, SIGSTOP
from typing import Any

import psutil

from tests.faults.harness import far_world
from tests.faults.harness.faults.base import Fault, Hit
from tests.faults.harness.faults.points import ArmPoint
from tests.faults.harness.faults.signals import Freeze, Kill
from tests.faults.harness.places.acts import serving
from tests.faults.harness.places.parts import SLURMCTLD, Parts
from tests.faults.harness.places.points import PLACE_POINTS
from tests.faults.harness.places.pools import CLUSTER, PODMAN, SSHD
from tests.faults.harness.stack import FaultyStack
from tests.support.slurm import Cluster

#: The stack's own processes that reach other places.
REACHING: tuple[tuple[str, str, int], ...] = (
    ("ssh", "all", 3),
    ("tunnels", "parent", 4),
    ("tunnels", "child", 3),
    ("agent", "parent", 3),
    ("worker", "child", 2),
    ("worker-control", "child", 2),
)
#: A controller that is frozen meanwhile answers nobody.
_COMMAND_S = 10.0
Pids = Callable[[Parts], list[int]]


class Part:
    """One part is gone for a while, or stands still; it comes back as its owner would bring it back."""

    weight = 3

    def __init__(self, part: str, pids: Pids, number: signal.Signals, again: Callable[[Parts], None]) -> None:
        """``again`` starts it; for one that was frozen nothing but SIGCONT is needed."""
        self._part, self._pids, self._number, self._again = part, pids, number, again

    def draw(self, rng: random.Random) -> Mapping[str, Any]:
        return {"for_s": round(rng.uniform(1.0, 5.0), 2)}

    def inject(self, stack: FaultyStack, arguments: Mapping[str, Any]) -> Hit:
        if stack.parts is None or not stack.parts.has(self._part):
            return {}
        return {"pids": stack.send(self._pids(stack.parts), self._number)}

    def heal(self, stack: FaultyStack, arguments: Mapping[str, Any], hit: Hit) -> None:
        if stack.parts is None or not hit:
            return
        if self._number is SIGSTOP:
            stack.send(list(hit["pids"]), signal.SIGCONT)
        else:
            for pid in hit["pids"]:
                _await_end(pid)
            self._again(stack.parts)


class CutSessions:
    """Every connection to the far host breaks off; what runs there goes on."""

    weight = 5

    def draw(self, rng: random.Random) -> Mapping[str, Any]:
        return {}

    def inject(self, stack: FaultyStack, arguments: Mapping[str, Any]) -> Hit:
        if stack.parts is None or not stack.parts.has(SSHD):
            return {}
        return {"pids": stack.send(stack.parts.sessions(), SIGKILL)}

    def heal(self, stack: FaultyStack, arguments: Mapping[str, Any], hit: Hit) -> None:
        """Whoever needs one connects again."""


class OfTheCluster:
    """Somebody types a command of the cluster about one of our jobs; ``then`` he makes it run again."""

    weight = 5

    def __init__(self, *command: str, then: bool = False) -> None:
        self._command, self._then = command, then

    def draw(self, rng: random.Random) -> Mapping[str, Any]:
        return {"pick": rng.randrange(1000), "for_s": round(rng.uniform(0.5, 3.0), 2)}

    def inject(self, stack: FaultyStack, arguments: Mapping[str, Any]) -> Hit:
        if stack.parts is None or stack.parts.cluster is None or stack.facts.places is None:
            return {}
        jobs = far_world.jobs(stack.facts.places)
        if not jobs:
            return {}
        job = jobs[arguments["pick"] % len(jobs)]
        return {"job": job.id, "code": _type(stack.parts.cluster, *self._command, job.id)}

    def heal(self, stack: FaultyStack, arguments: Mapping[str, Any], hit: Hit) -> None:
        if self._then and hit and stack.parts is not None and stack.parts.cluster is not None:
            # by itself it would wait for two minutes; at once, its node might refuse it
            _type(stack.parts.cluster, "scontrol", "update", f"JobId={hit['job']}", "StartTime=now+2")


class KillContainer:
    """Somebody removes one of our containers, whatever it does."""

    weight = 5

    def draw(self, rng: random.Random) -> Mapping[str, Any]:
        return {"pick": rng.randrange(1000)}

    def inject(self, stack: FaultyStack, arguments: Mapping[str, Any]) -> Hit:
        if stack.parts is None or stack.parts.podman is None or stack.facts.places is None:
            return {}
        found = [one for one in far_world.containers(stack.facts.places) or () if one.state == "running"]
        if not found:
            return {}
        chosen = found[arguments["pick"] % len(found)]
        with stack.parts.podman.client() as client:
            client.remove_container(chosen.id, force=True, v=True)
        return {"container": chosen.id, "attempt": chosen.attempt}

    def heal(self, stack: FaultyStack, arguments: Mapping[str, Any], hit: Hit) -> None:
        """It was meant."""


class KillFarEngine:
    """An engine in another place dies."""

    weight = 4

    def draw(self, rng: random.Random) -> Mapping[str, Any]:
        return {"pick": rng.randrange(1000)}

    def inject(self, stack: FaultyStack, arguments: Mapping[str, Any]) -> Hit:
        if stack.facts.places is None:
            return {}
        found = far_world.processes(stack.facts.places, stack.facts.state_dir)
        engines = sorted(one.pid for one in found if one.leads)
        return {"pids": stack.send(engines[arguments["pick"] % len(engines) :][:1], SIGKILL) if engines else []}

    def heal(self, stack: FaultyStack, arguments: Mapping[str, Any], hit: Hit) -> None:
        """It was a failure."""


def _type(cluster: Cluster, *command: str) -> int:
    """How a command of the cluster ended; -1 while nobody answers it."""
    try:
        return subprocess.run(
            command, env=dict(cluster.environ), capture_output=True, timeout=_COMMAND_S, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        return -1


def _controller(parts: Parts) -> list[int]:
    return _running(parts, SLURMCTLD)


def _node(parts: Parts) -> list[int]:
    assert parts.cluster is not None
    return _running(parts, parts.cluster.nodes[0])


def _running(parts: Parts, name: str) -> list[int]:
    assert parts.cluster is not None
    process = parts.cluster.running.get(name)
    return [process.pid] if process is not None and process.poll() is None else []


def _nodes_again(parts: Parts) -> None:
    assert parts.cluster is not None
    parts.start_of_cluster(parts.cluster.nodes[0])


def _podman(parts: Parts) -> list[int]:
    assert parts.podman is not None
    return [parts.podman.pid]


def _host(parts: Parts) -> list[int]:
    """The far host, as far as it can be asked: who takes connections, and those that there are."""
    return [parts.sshd_pid(), *parts.sessions()]


def _await_end(pid: int) -> None:
    try:
        psutil.Process(pid).wait(10)
    except (psutil.NoSuchProcess, psutil.TimeoutExpired):
        return


#: Submitted, and its submitter dies or stands still before it can say so.
_QUEUED = ((0.05, serving("bait-queue", "queue")),)
_FAR = ((0.05, serving("bait-far", "far")),)
_POD = ((0.05, serving("bait-pod", "pod")),)

#: What breaks in other places, by name. A new one goes to the end: seeds take them in turn.
BREAKS: dict[str, Fault] = {
    "killed-submit": ArmPoint("slurm.launch.after", SIGKILL, 3, _QUEUED, PLACE_POINTS),
    "cut-sessions": CutSessions(),
    "kill-podman": Part(PODMAN, _podman, SIGKILL, Parts.start_podman),
    "kill-controller": Part(CLUSTER, _controller, SIGKILL, lambda parts: parts.start_of_cluster(SLURMCTLD)),
    "kill-reaching": Kill(REACHING),
    "place-point": ArmPoint(among=PLACE_POINTS),
    "freeze-sessions": Part(SSHD, Parts.sessions, SIGSTOP, Parts.start_sshd),
    "scancel": OfTheCluster("scancel"),
    "remove-container": KillContainer(),
    "lose-host": Part(SSHD, _host, SIGKILL, Parts.start_sshd),
    "requeue": OfTheCluster("scontrol", "requeue", then=True),
    "freeze-reaching": Freeze(REACHING),
    "freeze-controller": Part(CLUSTER, _controller, SIGSTOP, Parts.mend),
    "kill-node": Part(CLUSTER, _node, SIGKILL, _nodes_again),
    "freeze-node": Part(CLUSTER, _node, SIGSTOP, Parts.mend),
    "freeze-podman": Part(PODMAN, _podman, SIGSTOP, Parts.mend),
    "freeze-host": Part(SSHD, _host, SIGSTOP, Parts.mend),
    "kill-far-engine": KillFarEngine(),
    "killed-far-launch": ArmPoint("ssh.launch.after", SIGKILL, 3, _FAR, PLACE_POINTS),
    "frozen-far-launch": ArmPoint("ssh.launch.before", SIGSTOP, 3, _FAR, PLACE_POINTS),
    "frozen-submit": ArmPoint("slurm.launch.before", SIGSTOP, 3, _QUEUED, PLACE_POINTS),
    "killed-contain": ArmPoint("docker.launch.after", SIGKILL, 3, _POD, PLACE_POINTS),
}
#: In which pool something should serve by the time it breaks.
STANDS_ON = {
    "cut-sessions": "tunnelled",
    "freeze-sessions": "far",
    "lose-host": "far",
    "freeze-host": "tunnelled",
    "kill-controller": "queue",
    "freeze-controller": "login",
    "kill-node": "queue",
    "freeze-node": "queue",
    "scancel": "queue",
    "requeue": "queue",
    "kill-podman": "pod",
    "freeze-podman": "pod",
    "remove-container": "pod",
    "kill-reaching": "tunnelled",
    "freeze-reaching": "tunnelled",
    "kill-far-engine": "far",
}
