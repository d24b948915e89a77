"""What is told of a step of a service: events and ended tasks with it, bells and signals after its commit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from app.db.repos import events, tasks
from app.domain.lifecycle import Reason
from app.domain.tasks import TaskKind, TaskState
from app.doorbell.queues import queue_for
from app.usecases.context import Actor, Context

#: Who acts when nobody asked.
HOSTLER = "hostler"


@dataclass
class Effects:
    """What is to be told after the commit."""

    rings: set[tuple[TaskKind, str, str | None]] = field(default_factory=set)
    topics: set[str] = field(default_factory=set)
    #: replicas that were made or asked to end
    made: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)

    def add(self, other: Effects) -> None:
        """These too."""
        self.rings |= other.rings
        self.topics |= other.topics
        self.made += other.made
        self.stopped += other.stopped

    def tell(self, ctx: Context) -> None:
        """Ring and wake whoever waits. Call it after the commit."""
        for kind, pool, node in self.rings:
            scope = {"node": node} if node else {"pool": pool}
            ctx.doorbell.ring(kind, queue_for(kind, pool, node), **scope)
        if self.topics:
            ctx.notify(*sorted(self.topics))


def finish(
    connection: Connection,
    open_tasks: Sequence[Any],
    state: TaskState,
    effects: Effects,
    *,
    reason: Reason | None = None,
    message: str = "",
    actor: str = HOSTLER,
) -> None:
    """End a service's tasks; whoever waits for them is woken after the commit."""
    ended = tasks.finish(
        connection, [task.id for task in open_tasks], state, actor=actor, reason=reason, message=message
    )
    effects.topics |= {"events", *(f"task:{one}" for one in ended)}


def tell(
    connection: Connection,
    row: Any,
    kind: str,
    message: str,
    who: Actor | None,
    *,
    cause: str = "reconciled",
    reason: str | None = None,
    replica_id: str | None = None,
    task_id: str | None = None,
    **data: Any,
) -> None:
    """Write an event of a service, in the transaction of what it tells."""
    events.insert(
        connection,
        kind=kind,
        actor=who.name if who else HOSTLER,
        cause=cause if who is None else "request",
        message=message,
        reason=reason,
        replica_id=replica_id,
        task_id=task_id,
        pool=row.pool,
        request_id=who.request_id if who else "",
        data={"service_id": row.id, **data},
    )
