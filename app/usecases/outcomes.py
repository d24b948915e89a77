"""What asking for work on a replica comes to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TaskOutcome:
    """The task that carries the wish out. ``already``: nothing is left to do, ``task_id`` may be None then."""

    replica_id: str
    task_id: str | None
    already: bool = False
    replayed: bool = False
    #: it is gone with the wish, and what it held is free: ring for those that wait for that
    freed: bool = False


def found(replayed: dict[str, str]) -> TaskOutcome:
    """The outcome that an Idempotency-Key had the first time."""
    return TaskOutcome(replayed["replica_id"], replayed.get("task_id"), replayed=True)
