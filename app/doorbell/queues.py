"""Names of the queues, and the verbs that ring on each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.domain.tasks import TaskKind, is_control

if TYPE_CHECKING:
    from kombu import Queue

#: Sweeps and canaries of the whole stack.
STACK_QUEUE = "stack"


def pool_queue(pool: str, *, control: bool) -> str:
    """Where work waits that any host of the pool may do."""
    return f"pool.{pool}.control" if control else f"pool.{pool}"


def node_queue(node: str, *, control: bool) -> str:
    """Where work waits that only this host can do."""
    return f"node.{node}.control" if control else f"node.{node}"


def queue_for(kind: TaskKind, pool: str, node: str | None) -> str:
    """The queue that a task's bell is rung on."""
    control = is_control(kind)
    return node_queue(node, control=control) if node else pool_queue(pool, control=control)


def declare(name: str) -> Queue:
    """A queue object: publishing by bare name is refused for queues that a process has not met yet."""
    # names alone are asked for everywhere
    from kombu import Exchange, Queue

    return Queue(name, Exchange(name, type="direct"), routing_key=name)


def task_name(kind: str) -> str:
    """The Celery task that carries out a verb: ``hostler.create``."""
    return f"hostler.{kind}"
