"""Services as users ask for them. Each change is one transaction, which already takes the first steps towards it.

``ref`` is a service's id or its name: the running one's, else the last one's of that name. What it looks like is
``service_views``'.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sqlalchemy import Connection

from app.db.repos import services as repo
from app.domain.lifecycle import Reason
from app.domain.tasks import Phase, TaskKind, TaskState
from app.errors import Conflict, HostlerError, InvalidConfig, NameTaken, NotFound, Unavailable
from app.usecases import creates, reconciling
from app.usecases import idempotency as remembered
from app.usecases import service_revisions as revisions_of
from app.usecases.context import Actor, Context, Idempotency
from app.usecases.service_effects import Effects, finish, tell
from app.usecases.service_revisions import Wanted
from app.usecases.service_views import find, get, page, ready_members, revisions, status, targets

__all__ = [
    "ServiceOutcome",
    "cancel",
    "cancel_task",
    "create",
    "find",
    "get",
    "page",
    "pause",
    "plan_create",
    "ready_members",
    "resume",
    "revisions",
    "rollback",
    "scale",
    "status",
    "targets",
    "update",
]

#: Most replicas of one service.
MOST_REPLICAS = 10_000
#: A name like this would be taken for an id.
_LIKE_AN_ID = re.compile(r"[0-9a-f]{12}")
_NAME_PARTS = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True)
class ServiceOutcome:
    """What a request came to.

    ``task_id`` is the task to wait for; None when nothing is to be waited for (``already``, pause). ``already``: it was
    so before. ``replayed``: an Idempotency-Key asked for it before. ``replicas``: how many were made or asked to end.
    """

    service_id: str
    task_id: str | None
    already: bool = False
    replayed: bool = False
    warnings: tuple[str, ...] = ()
    replicas: int = 0


def create(
    ctx: Context, actor: Actor, body: Mapping[str, Any], idempotency: Idempotency | None = None
) -> ServiceOutcome:
    """Accept a service. ``body``: ``recipe_name``, ``config``, ``replicas``, ``name``, ``pool``, ``labels``,
    ``model_name``, ``update{}``, ``restart{}``, ``all_or_nothing``, ``successor_lead_s``; all but the first may be
    left out.

    Raises UnknownRecipe, InvalidConfig, UnknownModel, UnknownPool, Forbidden, NameTaken (409). A full queue is no
    error: the replicas are made when there is room.
    """
    try:
        wanted = _rendered(ctx, actor, body)
    except HostlerError:
        before = _replayed(ctx, actor, idempotency)
        if before is None:
            raise
        return before
    return create_wanted(ctx, actor, wanted, body, idempotency)


def create_wanted(
    ctx: Context, actor: Actor, wanted: Wanted, body: Mapping[str, Any], idempotency: Idempotency | None = None
) -> ServiceOutcome:
    """``create`` after its recipe was rendered."""

    def act(connection: Connection) -> tuple[ServiceOutcome, Effects]:
        _check_migrated(connection)
        before = _before(connection, actor, idempotency)
        if before is not None:
            return before, Effects()
        count = _checked_count(wanted.count)
        plan = revisions_of.check(ctx, connection, actor, wanted)
        service_id, task_id = secrets.token_hex(6), secrets.token_hex(8)
        name = body.get("name") or _made_name(wanted.recipe, service_id)
        if _LIKE_AN_ID.fullmatch(name):
            raise InvalidConfig(
                f"name: {name} looks like an id. Choose another.", errors={"name": ["Looks like an id."]}
            )
        labels = body.get("labels") or {}
        row = repo.insert(
            connection, service_id=service_id, name=name, owner=actor.key_id, recipe=wanted.recipe, pool=plan.pool,
            labels=labels, count=count,
        )  # fmt: skip
        if row is None:
            raise NameTaken(
                f"A running service is named {name!r}. Choose another name, or stop that one:"
                f" `hostler service stop {name}`."
            )
        _write_revision(ctx, connection, actor, service_id, 1, wanted, "create")
        _begin_task(
            connection, actor, row, TaskKind.SERVICE_CREATE, task_id, count=count, done=0, of=count,
            phase=Phase.WAITING_FOR_READY,
        )  # fmt: skip
        tell(
            connection, row, "service_created", f"{name}: {count} replicas of {wanted.recipe}", actor,
            task_id=task_id, count=count, revision=1,
        )  # fmt: skip
        effects = reconciling.reconcile(ctx, connection, service_id, who=actor, known={1: plan})
        _remember(connection, actor, idempotency, service_id, task_id)
        return ServiceOutcome(service_id, task_id, replicas=len(effects.made)), effects

    outcome = _changed(ctx, act)
    return outcome if outcome.replayed else _with_warnings(outcome, wanted.warnings)


def plan_create(ctx: Context, actor: Actor, body: Mapping[str, Any]) -> dict[str, Any]:
    """What ``create`` would make: the recipe, how many, and what one replica would run. Changes nothing.

    Raises what ``create`` raises but NameTaken.
    """
    wanted = _rendered(ctx, actor, body)
    with ctx.database.read() as connection:
        revisions_of.check(ctx, connection, actor, wanted)
    return {
        "dry_run": True,
        "recipe_name": wanted.recipe,
        "count": _checked_count(wanted.count),
        "config": wanted.spec["config"],
        "update": wanted.spec["update"],
        "restart": wanted.spec["restart"],
        "warnings": list(wanted.warnings),
        "replica": creates.plan_create(ctx, actor, wanted.body),
    }


def scale(ctx: Context, actor: Actor, ref: str, count: int, idempotency: Idempotency | None = None) -> ServiceOutcome:
    """Ask for ``count`` replicas; what failed too often is tried again. ``already`` when nothing is to be done.

    Raises NotFound, InvalidConfig, and Conflict for a service that was cancelled.
    """
    _checked_count(count)
    loads = reconciling.load_of(ctx)

    def act(connection: Connection) -> tuple[ServiceOutcome, Effects]:
        before = _before(connection, actor, idempotency)
        if before is not None:
            return before, Effects()
        row = _lock_running(connection, ref, "scaled")
        revisions_of.check_count(repo.read_revision(connection, row.id, row.revision), count)
        if row.count == count and not row.rollout.get("given_up") and not row.rollout.get("refused"):
            # what is asked for is on its way already, or there
            task_id = next((task.id for task in repo.open_tasks(connection, [row.id])), None)
            _remember(connection, actor, idempotency, row.id, task_id)
            return ServiceOutcome(row.id, task_id, already=task_id is None), Effects()
        effects = Effects()
        _supersede(connection, row, (TaskKind.SERVICE_SCALE,), f"scaled to {count} instead", actor, effects)
        task_id = secrets.token_hex(8)
        _begin_task(connection, actor, row, TaskKind.SERVICE_SCALE, task_id, count=count, from_=row.count)
        repo.change(connection, row.id, count=count, reset_at=True, rollout=_forgiven(row.rollout))
        tell(
            connection, row, "service_scaled", f"from {row.count} to {count}", actor, task_id=task_id, count=count,
            before=row.count,
        )  # fmt: skip
        return _reconciled(ctx, connection, actor, row.id, task_id, idempotency, effects, loads)

    return _changed(ctx, act)


def update(
    ctx: Context, actor: Actor, ref: str, body: Mapping[str, Any], idempotency: Idempotency | None = None
) -> ServiceOutcome:
    """Make a new revision and roll it out. ``body``: ``config`` is merged over the present one (``replace_config``:
    stands in its place, as ``update`` and ``restart`` do); ``recipe_name``, ``model_name``, ``pool``, ``update{}``,
    ``restart{}``, ``all_or_nothing``, ``successor_lead_s``, ``labels`` as at a create. ``already`` when it says
    what is so.

    Raises what ``create`` raises, NotFound, and Conflict for a service that was cancelled.
    """
    try:
        with ctx.database.read() as connection:
            row = find_running(connection, ref, "updated")
            present = repo.read_revision(connection, row.id, row.revision)
        wanted = revisions_of.render_change(ctx, actor, row, present, body)
    except HostlerError:
        replayed = _replayed(ctx, actor, idempotency)
        if replayed is None:
            raise
        return replayed
    return update_wanted(ctx, actor, ref, wanted, body.get("labels"), row.revision, idempotency)


def update_wanted(
    ctx: Context,
    actor: Actor,
    ref: str,
    wanted: Wanted,
    labels: Mapping[str, str] | None = None,
    merged_into: int | None = None,
    idempotency: Idempotency | None = None,
) -> ServiceOutcome:
    """``update`` after it was rendered, over the revision ``merged_into`` (None: over none)."""
    loads = reconciling.load_of(ctx)

    def act(connection: Connection) -> tuple[ServiceOutcome, Effects]:
        before = _before(connection, actor, idempotency)
        if before is not None:
            return before, Effects()
        row = _lock_running(connection, ref, "updated")
        if merged_into not in (None, row.revision):
            raise Conflict(
                f"Service {row.name} was changed at the same time: revision {row.revision} is wanted now. Look at it"
                f" with `hostler service get {row.name}`, then try again."
            )
        present = repo.read_revision(connection, row.id, row.revision)
        new_labels = row.labels if labels is None else dict(labels)
        if revisions_of.same(wanted, ctx, present) and new_labels == row.labels:
            _remember(connection, actor, idempotency, row.id, None)
            return ServiceOutcome(row.id, None, already=True), Effects()
        plan = revisions_of.check(ctx, connection, actor, wanted, row.count)
        new = repo.last_number(connection, row.id) + 1
        _write_revision(ctx, connection, actor, row.id, new, wanted, "update")
        if (
            new_labels == row.labels
            and row.good_revision == row.revision
            and revisions_of.runs_the_same(wanted, ctx, present)
        ):
            return _kept(ctx, connection, actor, row, new, idempotency, loads)
        columns = {"recipe": wanted.recipe, "pool": plan.pool, "labels": new_labels}
        return _roll_out(ctx, connection, actor, row, new, columns, "update", idempotency, loads)

    outcome = _changed(ctx, act)
    return outcome if outcome.replayed else _with_warnings(outcome, wanted.warnings)


def rollback(
    ctx: Context, actor: Actor, ref: str, to: int | None = None, idempotency: Idempotency | None = None
) -> ServiceOutcome:
    """Want the revision ``to`` again (None: the last good one, else the one before), rolled out like an update.

    Raises NotFound, and Conflict when there is none to go back to or the service was cancelled.
    """
    loads = reconciling.load_of(ctx)

    def act(connection: Connection) -> tuple[ServiceOutcome, Effects]:
        before = _before(connection, actor, idempotency)
        if before is not None:
            return before, Effects()
        row = _lock_running(connection, ref, "rolled back")
        target = to
        if target is None:
            good = row.good_revision
            target = good if good is not None and good != row.revision else row.revision - 1
        found = repo.read_revision(connection, row.id, target) if target != row.revision else None
        if target == row.revision and to is not None:
            _remember(connection, actor, idempotency, row.id, None)
            return ServiceOutcome(row.id, None, already=True), Effects()
        if found is None:
            raise revisions_of.no_such_revision(row.name, target)
        revisions_of.check_count(found, row.count)
        columns = revisions_of.columns_of(ctx, found.spec)
        return _roll_out(ctx, connection, actor, row, target, columns, "rollback", idempotency, loads)

    return _changed(ctx, act)


def pause(ctx: Context, actor: Actor, ref: str, idempotency: Idempotency | None = None) -> ServiceOutcome:
    """Take no further step of an update; what fails is still replaced. Raises NotFound, Conflict."""
    return _changed(ctx, partial(_pause, ctx, actor, ref, idempotency, True))


def resume(ctx: Context, actor: Actor, ref: str, idempotency: Idempotency | None = None) -> ServiceOutcome:
    """Go on with the update; its clock begins anew. Raises NotFound, Conflict."""
    return _changed(ctx, partial(_pause, ctx, actor, ref, idempotency, False))


def cancel(ctx: Context, actor: Actor, ref: str, idempotency: Idempotency | None = None) -> ServiceOutcome:
    """Put all its replicas away, from every state; the record stays. ``already`` when nothing is left of it.

    Raises NotFound. Asked for twice, both get the same task.
    """

    def act(connection: Connection) -> tuple[ServiceOutcome, Effects]:
        before = _before(connection, actor, idempotency)
        if before is not None:
            return before, Effects()
        row = _lock(connection, ref)
        open_tasks = repo.open_tasks(connection, [row.id])
        stopping = [task for task in open_tasks if task.kind == TaskKind.SERVICE_STOP]
        if stopping or row.ended_at is not None:
            task_id = stopping[0].id if stopping else repo.last_task(connection, row.id, TaskKind.SERVICE_STOP)
            _remember(connection, actor, idempotency, row.id, task_id)
            return ServiceOutcome(row.id, task_id, already=row.ended_at is not None), Effects()
        effects = Effects()
        finish(
            connection, open_tasks, TaskState.CANCELLED, effects, reason=Reason.CANCELLED,
            message="the service was cancelled", actor=actor.name,
        )  # fmt: skip
        task_id = _begin_stop(connection, actor, row)
        return _reconciled(ctx, connection, actor, row.id, task_id, idempotency, effects, {})

    return _changed(ctx, act)


def cancel_task(ctx: Context, actor: Actor, task_id: str, idempotency: Idempotency | None = None) -> ServiceOutcome:
    """Give an open task of a service up. A create's service is cancelled; after an update or a scale the service wants
    again what it wanted before. Raises NotFound, and Conflict for a stop and for a task that has ended."""

    def act(connection: Connection) -> tuple[ServiceOutcome, Effects]:
        before = _before(connection, actor, idempotency)
        if before is not None:
            return before, Effects()
        row = _lock(connection, repo.service_of_task(connection, task_id) or task_id)
        found = [task for task in repo.open_tasks(connection, [row.id]) if task.id == task_id]
        if not found:
            raise Conflict(f"Task {task_id} has ended; there is nothing left to cancel.")
        [task] = found
        if task.kind == TaskKind.SERVICE_STOP:
            raise Conflict(
                f"Task {task_id} puts service {row.name} away, which is not taken back. Make a new one:"
                f" `hostler service create {row.recipe}`."
            )
        effects = Effects()
        finish(
            connection, [task], TaskState.CANCELLED, effects, reason=Reason.CANCELLED, message="cancelled",
            actor=actor.name,
        )  # fmt: skip
        stop_id = _take_back(ctx, connection, actor, row, task)
        return _reconciled(ctx, connection, actor, row.id, stop_id, idempotency, effects, {})

    return _changed(ctx, act)


def _take_back(ctx: Context, connection: Connection, actor: Actor, row: Any, task: Any) -> str | None:
    """Want what was wanted before the task; the id of the stop that follows from it, if one does."""
    if task.kind == TaskKind.SERVICE_CREATE:
        return _begin_stop(connection, actor, row)
    before = task.arguments["from"]
    if task.kind == TaskKind.SERVICE_SCALE:
        repo.change(connection, row.id, count=before, reset_at=True, rollout=_forgiven(row.rollout))
        tell(connection, row, "service_scaled", f"back to {before}", actor, task_id=task.id, count=before)
        return None
    found = repo.read_revision(connection, row.id, before)
    rollout = {"state": "cancelled", "from": before, "to": row.revision}
    columns = revisions_of.columns_of(ctx, found.spec) if found is not None else {}
    repo.change(connection, row.id, revision=before, reset_at=True, rollout=rollout, **columns)
    tell(connection, row, "service_rolled_back", f"back to revision {before}", actor, task_id=task.id, revision=before)
    return None


def _begin_stop(connection: Connection, actor: Actor, row: Any) -> str:
    task_id = secrets.token_hex(8)
    _begin_task(connection, actor, row, TaskKind.SERVICE_STOP, task_id, phase=Phase.STOPPING)
    if row.desired_state == "running":
        repo.change(connection, row.id, desired_state="cancelled", reason=None, message="cancelled on request")
        tell(connection, row, "service_cancelled", "", actor, task_id=task_id)
    return task_id


def _pause(
    ctx: Context, actor: Actor, ref: str, idempotency: Idempotency | None, paused: bool, connection: Connection
) -> tuple[ServiceOutcome, Effects]:
    before = _before(connection, actor, idempotency)
    if before is not None:
        return before, Effects()
    row = _lock_running(connection, ref, "paused" if paused else "resumed")
    if row.paused == paused:
        _remember(connection, actor, idempotency, row.id, None)
        return ServiceOutcome(row.id, None, already=True), Effects()
    rollout = dict(row.rollout)
    if not paused and rollout.get("state") == "under_way":
        rollout["since"] = row.now.timestamp()
    repo.change(connection, row.id, paused=paused, rollout=rollout)
    tell(connection, row, "service_paused" if paused else "service_resumed", "", actor)
    return _reconciled(ctx, connection, actor, row.id, None, idempotency, Effects(), {})


def _kept(
    ctx: Context,
    connection: Connection,
    actor: Actor,
    row: Any,
    number: int,
    idempotency: Idempotency | None,
    loads: Mapping[str, int],
) -> tuple[ServiceOutcome, Effects]:
    """Want another revision whose replicas run what the present ones do, all of them good: none is replaced for it."""
    repo.move_members(connection, row.id, row.revision, number)
    repo.change(connection, row.id, revision=number, good_revision=number, reset_at=True)
    message = f"from revision {row.revision} to {number}; no replica is replaced for it"
    tell(connection, row, "service_updated", message, actor, revision=number, before=row.revision)
    outcome, effects = _reconciled(ctx, connection, actor, row.id, None, idempotency, Effects(), loads)
    return replace(outcome, already=True), effects


def _roll_out(
    ctx: Context,
    connection: Connection,
    actor: Actor,
    row: Any,
    number: int,
    columns: Mapping[str, Any],
    cause: str,
    idempotency: Idempotency | None,
    loads: Mapping[str, int],
) -> tuple[ServiceOutcome, Effects]:
    """Want another revision from now on; the task of it ends when all have it, or it was given up."""
    effects = Effects()
    overtaken = (TaskKind.SERVICE_CREATE, TaskKind.SERVICE_UPDATE)
    _supersede(connection, row, overtaken, f"revision {number} is wanted instead", actor, effects)
    task_id = secrets.token_hex(8)
    _begin_task(connection, actor, row, TaskKind.SERVICE_UPDATE, task_id, revision=number, from_=row.revision)
    rollout = {"state": "under_way", "from": row.revision, "to": number, "since": row.now.timestamp()}
    repo.change(connection, row.id, revision=number, reset_at=True, rollout=rollout, **columns)
    kind = "service_updated" if cause == "update" else "service_rolled_back"
    message = f"from revision {row.revision} to {number}"
    tell(connection, row, kind, message, actor, task_id=task_id, revision=number, before=row.revision)
    return _reconciled(ctx, connection, actor, row.id, task_id, idempotency, effects, loads)


def _reconciled(
    ctx: Context,
    connection: Connection,
    actor: Actor,
    service_id: str,
    task_id: str | None,
    idempotency: Idempotency | None,
    effects: Effects,
    loads: Mapping[str, int],
) -> tuple[ServiceOutcome, Effects]:
    effects.add(reconciling.reconcile(ctx, connection, service_id, who=actor, loads=loads))
    _remember(connection, actor, idempotency, service_id, task_id)
    return ServiceOutcome(service_id, task_id, replicas=len(effects.made) + len(effects.stopped)), effects


def _changed(ctx: Context, act: Callable[[Connection], tuple[ServiceOutcome, Effects]]) -> ServiceOutcome:
    outcome, effects = ctx.database.change(act)
    effects.topics |= {"services"} if not outcome.replayed else set()
    effects.tell(ctx)
    return outcome


def _rendered(ctx: Context, actor: Actor, body: Mapping[str, Any]) -> Wanted:
    config = revisions_of.with_kept_secrets(body.get("config") or {}, {})
    return revisions_of.render(ctx, actor, body["recipe_name"], config, body, body.get("replicas"))


def _write_revision(
    ctx: Context, connection: Connection, actor: Actor, service_id: str, number: int, wanted: Wanted, cause: str
) -> None:
    sealed = ctx.seal(wanted.secret)
    repo.insert_revision(connection, service_id, number, wanted.spec, sealed, actor=actor.name, cause=cause)


def _begin_task(
    connection: Connection,
    actor: Actor,
    row: Any,
    kind: TaskKind,
    task_id: str,
    *,
    phase: Phase = Phase.LAUNCHING,
    from_: int | None = None,
    **arguments: Any,
) -> None:
    before = {} if from_ is None else {"from": from_}
    repo.insert_task(
        connection,
        task_id=task_id,
        kind=kind,
        phase=phase,
        pool=row.pool,
        owner=actor.key_id,
        request_id=actor.request_id,
        arguments={"service_id": row.id, **arguments, **before},
    )


def _supersede(
    connection: Connection, row: Any, kinds: tuple[TaskKind, ...], message: str, actor: Actor, effects: Effects
) -> None:
    overtaken = [task for task in repo.open_tasks(connection, [row.id]) if task.kind in kinds]
    finish(
        connection, overtaken, TaskState.CANCELLED, effects, reason=Reason.CANCELLED,
        message=f"superseded: {message}", actor=actor.name,
    )  # fmt: skip


def _forgiven(rollout: Mapping[str, Any]) -> dict[str, Any]:
    """A new wish begins with a new budget."""
    return {name: value for name, value in rollout.items() if name not in ("given_up", "refused")}


def _lock(connection: Connection, ref: str) -> Any:
    _check_migrated(connection)
    service_id = repo.find_id(connection, ref)
    row = repo.lock(connection, service_id) if service_id else None
    if row is None:
        raise _unknown(ref)
    return row


def _lock_running(connection: Connection, ref: str, verb: str) -> Any:
    return _running(_lock(connection, ref), verb)


def find_running(connection: Connection, ref: str, verb: str) -> Any:
    """The row of a service that is not cancelled. Raises NotFound, Conflict."""
    _check_migrated(connection)
    service_id = repo.find_id(connection, ref)
    row = repo.read(connection, service_id) if service_id else None
    if row is None:
        raise _unknown(ref)
    return _running(row, verb)


def _running(row: Any, verb: str) -> Any:
    if row.desired_state != "running":
        raise Conflict(
            f"Service {row.id} ({row.name}) was cancelled; it cannot be {verb}. Make a new one:"
            f" `hostler service create {row.recipe}`."
        )
    return row


def _unknown(ref: str) -> NotFound:
    """There is no such service."""
    return NotFound(f"There is no service {ref}. See `hostler service list`.")


def _check_migrated(connection: Connection) -> None:
    if not repo.is_there(connection):
        raise Unavailable(
            "The database was not migrated to this version yet, which has services. Run `hostler up`, or the"
            " deployment's migrate job.",
            retry_after_s=5,
        )


def _checked_count(count: int) -> int:
    if not 0 <= count <= MOST_REPLICAS:
        raise InvalidConfig(
            f"replicas: must be between 0 and {MOST_REPLICAS}.",
            errors={"replicas": [f"Must be between 0 and {MOST_REPLICAS}."]},
        )
    return count


def _made_name(recipe: str, service_id: str) -> str:
    short = _NAME_PARTS.sub("-", recipe.rpartition("/")[2].lower()).strip("-")[:50] or "service"
    return f"{short}-{service_id}"


def _with_warnings(outcome: ServiceOutcome, warnings: tuple[str, ...]) -> ServiceOutcome:
    return ServiceOutcome(
        outcome.service_id, outcome.task_id, outcome.already, outcome.replayed, warnings, outcome.replicas
    )


def _before(connection: Connection, actor: Actor, idempotency: Idempotency | None) -> ServiceOutcome | None:
    found = remembered.claim(connection, actor, idempotency)
    return None if found is None else ServiceOutcome(found["service_id"], found.get("task_id"), replayed=True)


def _replayed(ctx: Context, actor: Actor, idempotency: Idempotency | None) -> ServiceOutcome | None:
    """What the same request did before: that counts more than why it would be refused now."""
    if idempotency is None:
        return None
    with ctx.database.begin() as connection:
        return _before(connection, actor, idempotency)


def _remember(
    connection: Connection, actor: Actor, idempotency: Idempotency | None, service_id: str, task_id: str | None
) -> None:
    remembered.remember(connection, actor, idempotency, {"service_id": service_id, "task_id": task_id})
