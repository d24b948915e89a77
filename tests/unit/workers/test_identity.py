"""Who a process is, which queues it serves, and what a Celery message may say."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys

from app.domain.tasks import REPLICA_KINDS, TaskKind
from app.doorbell.queues import STACK_QUEUE, queue_for, task_name
from workers.bootstrap import is_alive, process_of, worker_id
from workers.serving import wanted_queues
from workers.tasks import replicas


def test_a_reused_pid_is_another_worker() -> None:
    me = worker_id("n", "worker", os.getpid())
    assert is_alive(me)
    node, birth, role, pid, started = me.split("/")
    boot, ticks = birth.split(".")
    assert not is_alive(f"{node}/{boot}.{int(ticks) - 1}/{role}/{pid}/{started}")
    assert not is_alive(f"{node}/{'0' * 8}.{ticks}/{role}/{pid}/{started}")


def test_a_step_of_the_clock_makes_nobody_look_dead() -> None:
    """The kernel tells start times as seconds since the boot; as a date they move with every step of the clock."""
    me = worker_id("n", "worker", os.getpid())
    stepped = f"{process_of(me)}/{float(me.rpartition('/')[2]) + 3600:.2f}"
    assert is_alive(stepped)
    assert process_of(stepped) == process_of(me)


def test_a_worker_of_the_version_before_is_told_by_its_start_time() -> None:
    node, _, role, pid, started = worker_id("n", "worker", os.getpid()).split("/")
    for name in (node, "rack/7"):
        assert is_alive(f"{name}/{role}/{pid}/{started}")
        assert not is_alive(f"{name}/{role}/{pid}/1.00")


def test_the_dead_and_zombies_are_not_alive() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    its = worker_id("n", "worker", process.pid)
    assert is_alive(its)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(its), "a zombie works no more"
    process.communicate()
    assert not is_alive(its)


def test_node_names_with_slashes_do_not_confuse() -> None:
    assert is_alive(worker_id("rack/7", "worker", os.getpid()))


def test_control_and_launches_share_no_queue() -> None:
    launches = wanted_queues("n", ["a", "b"], control=False)
    control = wanted_queues("n", ["a", "b"], control=True)
    assert launches == {"pool.a", "pool.b", "node.n"}
    assert control == {"pool.a.control", "pool.b.control", "node.n.control", STACK_QUEUE}
    for kind in REPLICA_KINDS:
        for node in ("n", None):
            assert queue_for(kind, "a", node) in launches | control


def test_each_verb_is_a_celery_task_and_a_message_names_only_a_place() -> None:
    assert set(replicas.CARRIERS) == set(REPLICA_KINDS)
    assert task_name(TaskKind.CREATE) == "hostler.create"
    for carrier in set(replicas.CARRIERS.values()):
        names = set(inspect.signature(carrier).parameters)
        assert names <= {"runtime", "pool", "spread"}
