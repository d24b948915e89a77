"""No task stuck past its deadline; at rest every task has ended, and every ended replica has let go of what it held."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from tests.faults.harness.checker.evidence import Evidence
from tests.faults.harness.facts import Finding

#: A deadline is noticed by a sweep, which comes every few seconds.
LATE = timedelta(seconds=10)
#: Where a replica may be when nothing moves any more.
AT_REST = frozenset({"ready", "unhealthy", "unreachable", "stopped", "failed"})
_SERVING = frozenset({"ready", "unhealthy", "unreachable"})


def check_tasks(found: Evidence) -> Iterator[Finding]:
    rows = found.rows
    for task in rows.tasks.values():
        if task.finished_at is None:
            yield from _judge_open(found, task)
    for replica in rows.replicas.values():
        told = {"replica": replica.id, "state": replica.state, "since": str(replica.state_since)}
        if replica.state in ("stopped", "failed"):
            if replica.released_at is None:
                yield Finding("tasks", "an ended replica was never released", {**told, "message": replica.message})
        elif replica.state not in AT_REST and replica.id not in rows.waiting | rows.held:
            yield Finding("tasks", "a replica is still on its way though all should be at rest", told)
        if replica.desired_state == "stopped" and replica.state in _SERVING:
            yield Finding("tasks", "a replica serves though it was asked to stop", told)
        if replica.deadline_at is not None and replica.deadline_at < rows.now - LATE:
            yield Finding("tasks", "a replica is past its deadline", {**told, "deadline": str(replica.deadline_at)})
        lifetime = replica.lifetime_ends_at
        over = lifetime is not None and lifetime < rows.now - LATE
        if over and replica.state not in ("stopping", "stopped", "failed"):
            yield Finding("tasks", "a replica outlived its lifetime", {**told, "ended": str(lifetime)})


def _judge_open(found: Evidence, task: Any) -> Iterator[Finding]:
    rows = found.rows
    replica = rows.replicas.get(task.replica_id)
    told = {
        "task": task.id,
        "kind": task.kind,
        "state": f"{task.state}/{task.phase}",
        "claims": task.claims,
        "replica": task.replica_id,
        "replica_state": replica.state if replica else None,
    }
    if task.deadline_at is not None and task.deadline_at < rows.now - LATE:
        yield Finding("tasks", "a task is past its deadline", {**told, "deadline": str(task.deadline_at)})
    if task.lease_expires_at is not None and task.lease_expires_at < rows.now - LATE:
        text = "a task is held by one that stopped renewing"
        yield Finding("tasks", text, {**told, "expired": str(task.lease_expires_at), "by": task.claimed_by})
    if task.replica_id is None and _may_wait(found, task.arguments.get("service_id")):
        return
    waits = task.replica_id in rows.waiting | rows.held and task.kind in ("create", "restart")
    # a health check of a sick replica asks again until its own deadline
    asks_again = task.kind == "health" and task.state == "queued" and task.deadline_at is not None
    if not waits and not asks_again:
        yield Finding("tasks", "a task is open though all should be at rest", told)


def _may_wait(found: Evidence, service: str) -> bool:
    """An update that is paused waits for its user; replicas that have no room keep their service waiting."""
    row = found.rows.services.get(service)
    if row is None or row.desired_state != "running":
        return False
    waits = any(
        member.service_id == service and one in found.rows.waiting for one, member in found.rows.members.items()
    )
    return row.paused or waits
