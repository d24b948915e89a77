"""Carrying out a plan for a service, inside the transaction that made it: replicas made and stopped, tasks ended."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection

from app.db.repos import service_members, service_revisions, service_tasks, tasks
from app.db.repos import services as repo
from app.domain.lifecycle import Reason, State
from app.domain.services import CancelAll, Create, GiveUp, Good, RollBack, Stop
from app.domain.tasks import LIFECYCLE_KINDS, TaskKind, TaskState
from app.errors import Collided, HostlerError, NotFound, Unavailable
from app.usecases import stops
from app.usecases.context import Actor, Context
from app.usecases.plans import Plan as Resolved
from app.usecases.refusals import Refusal, refusals, stored
from app.usecases.service_effects import Effects, finish, tell
from app.usecases.service_maker import Maker, owner_of
from app.usecases.service_revisions import columns_of
from app.usecases.service_sight import Seen
from app.usecases.service_verdicts import changes_of, look_in, progress_of, reason_of, rollout_of, task_ends

#: Replicas that one transaction makes; the next one goes on at once.
MOST_CREATES = 200


def act(
    ctx: Context,
    connection: Connection,
    seen: Seen,
    who: Actor | None,
    effects: Effects,
    known: Mapping[int, Resolved] = MappingProxyType({}),
) -> bool:
    """Carry out one plan. True when another one follows from it."""
    row, rollout = seen.row, rollout_of(seen)
    wishes: dict[str, Any] = {}
    for action in seen.actions:
        if isinstance(action, Good):
            wishes["good_revision"] = action.revision
            message = f"all replicas of revision {action.revision} were ready"
            tell(connection, row, "service_good", message, None, revision=action.revision)
        elif isinstance(action, RollBack):
            wishes |= _roll_back(ctx, connection, seen, action, rollout, effects)
        elif isinstance(action, CancelAll):
            # with the replica's own words: of a gang without room they say what is missing where
            said = next((one.message for one in seen.members if one.replica_id == action.replica_id), "")
            why = f"{action.why}: {said}" if said else action.why
            wishes |= {"desired_state": "cancelled", "reason": action.reason, "message": why}
            tell(connection, row, "service_cancelled", why, None, reason=action.reason, replica_id=action.replica_id)
            finish(connection, seen.open_tasks, TaskState.FAILED, effects, reason=action.reason, message=why)
        elif isinstance(action, GiveUp):
            failed = [one for one in seen.members if one.replica_id == action.replica_id]
            reason = failed[0].reason if failed else None
            tell(connection, row, "service_gave_up", action.why, None, reason=reason, replica_id=action.replica_id)
    service_members.mark_past(connection, seen.past)
    _stop(ctx, connection, seen, who, effects)
    made = _create(ctx, connection, seen, who, rollout, effects, known)
    changes = {**changes_of(seen, rollout), **wishes}
    if "ended_at" in changes:
        tell(connection, row, "service_ended", "every replica was seen gone", None)
    for task, state, reason, message in task_ends(seen):
        finish(connection, [task], state, effects, reason=reason, message=message)
    for task, phase, done, of in progress_of(seen):
        service_tasks.note_progress(connection, task.id, phase, done, of)
    if changes:
        repo.change(connection, row.id, **changes)
        effects.topics |= {"events", f"service:{row.id}"}
    # what is left to be made is made by the next transaction; only it sees, too, how long an update's new ones have
    more = (made == MOST_CREATES and len(seen.of(Create)) > made) or (made and rollout.get("state") == "under_way")
    repo.look_again(connection, {row.id: 0.0 if more else look_in(seen, rollout)})
    return seen.plan.again


def _roll_back(
    ctx: Context, connection: Connection, seen: Seen, action: RollBack, rollout: dict[str, Any], effects: Effects
) -> dict[str, Any]:
    row = seen.row
    reason = _why_failed(seen, row.revision)
    rollout |= {"state": "failed", "from": action.to, "to": row.revision, "why": action.why, "reason": reason}
    tell(
        connection, row, "service_rolled_back", action.why, None, reason=reason, before=row.revision, revision=action.to
    )
    ended = [task for task in seen.open_tasks if task.kind == TaskKind.SERVICE_UPDATE]
    message = f"{action.why}; back to revision {action.to}"
    finish(connection, ended, TaskState.FAILED, effects, reason=reason, message=message)
    spec = service_revisions.get(connection, row.id, action.to).spec
    return {"revision": action.to, **columns_of(ctx, spec)}


def _why_failed(seen: Seen, revision: int) -> Reason:
    """The typed reason of a failed update: why none could be made, or its last replica failed, else that none got ready
    in time."""
    refused = refusals(seen.row.rollout).get(revision)
    if refused is not None:
        return reason_of(refused.code)
    failed = [one for one in seen.members if one.revision == revision and one.state == State.FAILED and one.reason]
    failed.sort(key=lambda one: one.state_since)
    return Reason(failed[-1].reason) if failed else Reason.READINESS_TIMEOUT


def _stop(ctx: Context, connection: Connection, seen: Seen, who: Actor | None, effects: Effects) -> None:
    wanted = seen.of(Stop)
    if not wanted:
        return
    tasks.lock_all(connection, [one.replica_id for one in wanted], LIFECYCLE_KINDS)
    for one in sorted(wanted, key=lambda action: action.replica_id):
        actor = owner_of(seen, who)
        drain_s = None if one.drain else 0.0
        try:
            outcome, node, pool = stops.stop(
                ctx, connection, actor, one.replica_id, force=False, grace_s=None, drain_s=drain_s, cause=one.why
            )
        except NotFound as error:
            # it ended and was deleted since it was read
            raise Collided(retry_after_s=1) from error
        effects.stopped.append(one.replica_id)
        effects.rings.add((TaskKind.CREATE, pool, None) if outcome.freed else (TaskKind.STOP, pool, node))
        effects.topics |= {"events", f"replica:{one.replica_id}", f"task:{outcome.task_id}", f"due:{node or ''}"}


def _create(
    ctx: Context,
    connection: Connection,
    seen: Seen,
    who: Actor | None,
    rollout: dict[str, Any],
    effects: Effects,
    known: Mapping[int, Resolved],
) -> int:
    """Make what is to be made. What is refused is told, and tried again later; of another revision it keeps nothing
    from being made. How many were made."""
    wanted = seen.of(Create)[:MOST_CREATES]
    found = refusals(rollout)
    made: list[tuple[Create, dict[str, Any]]] = []
    for revision in sorted({one.revision for one in wanted}):
        try:
            maker = Maker(ctx, connection, seen, revision, who, known.get(revision))
            for one in wanted:
                if one.revision == revision:
                    made.append((one, maker.make(one, effects)))
            found.pop(revision, None)
        except HostlerError as error:
            if isinstance(error, Collided | Unavailable):
                raise
            before = found.get(revision)
            found[revision] = Refusal.after(before, error.code, error.detail, seen.now)
    rollout["refused"] = stored(found)
    service_members.insert(connection, [member for _, member in made])
    for one, member in made:
        if one.replaces:
            tell(
                connection, seen.row, "service_replacing", one.why, who, replica_id=member["replica_id"],
                ordinal=one.ordinal, revision=one.revision, tries=one.tries, replaces=one.replaces,
            )  # fmt: skip
    return len(made)
