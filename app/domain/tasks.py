"""Tasks: what a worker must carry out, and the states it goes through."""

from __future__ import annotations

from enum import StrEnum


class TaskKind(StrEnum):
    """The verb. Each of a replica's is one Celery task, so that Flower shows what runs.

    Those of a service are never queued: no worker claims them, reconciling carries them to their end.
    """

    CREATE = "create"
    STOP = "stop"
    RESTART = "restart"
    HEALTH = "health"
    DIAGNOSE = "diagnose"
    SERVICE_CREATE = "service_create"
    SERVICE_SCALE = "service_scale"
    SERVICE_UPDATE = "service_update"
    SERVICE_STOP = "service_stop"


class TaskState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Phase(StrEnum):
    """What an open task is doing now; finer than its state, coarser than the replica's events."""

    QUEUED = "queued"
    CLAIMED = "claimed"
    LAUNCHING = "launching"
    WAITING_FOR_READY = "waiting_for_ready"
    DIAGNOSING = "diagnosing"
    PROBING = "probing"
    STOPPING = "stopping"
    DONE = "done"


OPEN = (TaskState.QUEUED, TaskState.RUNNING)
ENDED = (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED)
SERVICE_KINDS = (TaskKind.SERVICE_CREATE, TaskKind.SERVICE_SCALE, TaskKind.SERVICE_UPDATE, TaskKind.SERVICE_STOP)
REPLICA_KINDS = tuple(kind for kind in TaskKind if kind not in SERVICE_KINDS)
#: These launch an attempt, and need its capacity first.
LAUNCH_KINDS = (TaskKind.CREATE, TaskKind.RESTART)
#: Of these a replica has at most one open at a time (a partial unique index says so).
LIFECYCLE_KINDS = (TaskKind.CREATE, TaskKind.STOP, TaskKind.RESTART)
#: These overtake launches: they travel on the control queues. A diagnose may take minutes, so it is none of them.
CONTROL_KINDS = (TaskKind.STOP, TaskKind.HEALTH)

#: Progress in percent that a phase stands for.
PROGRESS: dict[Phase, int] = {
    Phase.QUEUED: 0,
    Phase.CLAIMED: 10,
    Phase.LAUNCHING: 30,
    Phase.STOPPING: 50,
    Phase.PROBING: 50,
    Phase.WAITING_FOR_READY: 60,
    Phase.DIAGNOSING: 90,
    Phase.DONE: 100,
}

#: ``p0`` first. The number is what the claim orders by.
PRIORITIES = {"p0": 0, "p1": 1, "p2": 2, "p3": 3}
DEFAULT_PRIORITY = "p2"


def is_control(kind: TaskKind) -> bool:
    """Whether the verb goes to the control queue, where nothing waits behind a launch."""
    return kind in CONTROL_KINDS
