"""What a look at a service comes to beside its replicas: its words, the ends of its tasks, and its next look."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.domain.lifecycle import Reason, State
from app.domain.services import Create
from app.domain.tasks import Phase, TaskKind, TaskState
from app.usecases.refusals import refusals, stored
from app.usecases.service_sight import Seen

#: No running service is left alone for longer, hints or not.
LOOK_S = 30.0
#: What a refusal is in a replica's words.
_REASONS = {"queue_full": Reason.NO_CAPACITY}


def reason_of(code: str) -> Reason:
    """The reason of what was refused with that error code."""
    return _REASONS.get(code, Reason.INVALID_CONFIG)


def has_work(seen: Seen) -> bool:
    """Whether anything but the next look is to be written."""
    return bool(seen.actions or seen.past or changes_of(seen, rollout_of(seen)) or task_ends(seen) or progress_of(seen))


def rollout_of(seen: Seen) -> dict[str, Any]:
    """How the update stands after what was seen, before anything is done."""
    rollout = dict(seen.row.rollout)
    if seen.plan.settled and rollout.get("state") == "under_way":
        rollout["state"] = "complete"
    wanted = {one.revision for one in seen.plan.actions if isinstance(one, Create)}
    refused = {revision: one for revision, one in refusals(rollout).items() if revision in wanted}
    rollout["refused"] = stored(refused)
    rollout["given_up"] = sorted(seen.plan.given_up)
    return rollout


def changes_of(seen: Seen, rollout: Mapping[str, Any]) -> dict[str, Any]:
    """What of the service's row is other than it was."""
    found: dict[str, Any] = {}
    kept = {name: value for name, value in rollout.items() if value not in (None, [], {})}
    if kept != seen.row.rollout:
        found["rollout"] = kept
    if seen.running:
        reason, message = _words(seen, rollout)
        if (reason, message[:4000]) != (seen.row.reason, seen.row.message):
            found |= {"reason": reason, "message": message}
    elif seen.gone and seen.row.ended_at is None:
        found["ended_at"] = True
    return found


def _words(seen: Seen, rollout: Mapping[str, Any]) -> tuple[Reason | None, str]:
    """Why it is not as wanted, when that is more than a matter of time."""
    refused = refusals(rollout)
    if refused:
        newest = refused[max(refused)]
        return reason_of(newest.code), f"replicas cannot be made: {newest.message}"
    given_up = [one for one in seen.members if one.replica_id in seen.plan.given_up]
    if given_up:
        last = max(given_up, key=lambda one: one.state_since)
        return Reason(last.reason) if last.reason else None, (
            f"{len(given_up)} of {seen.row.count} replicas failed too often and are not replaced; the last,"
            f" {last.replica_id}: {last.reason}: {last.message}. Mend it, then scale or update the service."
        )
    if rollout.get("state") == "failed":
        why, back, tried = rollout["why"], rollout["from"], rollout["to"]
        return rollout.get("reason"), f"the update to revision {tried} failed, and revision {back} is back: {why}"
    return None, ""


def task_ends(seen: Seen) -> list[tuple[Any, TaskState, Reason | None, str]]:
    """Of its open tasks those that have come to their end, with state, reason and message."""
    found: list[tuple[Any, TaskState, Reason | None, str]] = []
    row = seen.row
    for task in seen.open_tasks:
        if not seen.running:
            if task.kind != TaskKind.SERVICE_STOP:
                found.append((task, TaskState.CANCELLED, Reason.CANCELLED, "the service was cancelled"))
            elif seen.gone:
                found.append((task, TaskState.SUCCEEDED, None, f"service {row.name} has ended; nothing is left of it"))
        elif seen.plan.settled or (task.kind == TaskKind.SERVICE_SCALE and not row.count and seen.gone):
            found.append((task, TaskState.SUCCEEDED, None, f"{row.count} of {row.count} replicas are ready"))
        elif seen.plan.given_up:
            reason, message = _words(seen, {})
            found.append((task, TaskState.FAILED, reason, message))
    return found


def progress_of(seen: Seen) -> list[tuple[Any, Phase, int, int]]:
    """Of its open tasks those that stand otherwise than was written: (task, phase, done, of)."""
    if seen.running:
        ready = sum(one.state == State.READY and one.revision == seen.row.revision for one in seen.members)
        phase, done, of = Phase.WAITING_FOR_READY, min(ready, seen.row.count), seen.row.count
    else:
        gone = sum(one.released_at is not None for one in seen.members)
        phase, done, of = Phase.STOPPING, gone, len(seen.members)
    return [
        (task, phase, done, of)
        for task in seen.open_tasks
        if (task.phase, task.arguments.get("done"), task.arguments.get("of")) != (phase, done, of)
    ]


def look_in(seen: Seen, rollout: Mapping[str, Any] | None = None) -> float | None:
    """Seconds until it is looked at though nothing hints at it; None: it has ended."""
    if not seen.running and seen.gone:
        return None
    waits = [LOOK_S]
    if seen.plan.look_in_s is not None:
        waits.append(seen.plan.look_in_s)
    refused = refusals(seen.row.rollout if rollout is None else rollout).values()
    waits += [wait_s for one in refused if (wait_s := one.wait_s(seen.now)) > 0]
    return max(0.0, min(waits))
