"""Asking a service to run something else: a new revision, an old one again, or no further step for now."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from sqlalchemy import Connection

from app.db.repos import service_members, service_revisions
from app.db.repos import services as repo
from app.domain.tasks import TaskKind
from app.errors import Conflict, HostlerError
from app.usecases import reconciling
from app.usecases import service_revisions as revisions_of
from app.usecases.context import Actor, Context, Idempotency
from app.usecases.service_asking import (
    ServiceOutcome,
    before_of,
    begin_task,
    changed,
    check_models,
    find_running,
    lock_running,
    reconciled,
    remember,
    replayed_of,
    supersede,
    with_warnings,
    write_revision,
)
from app.usecases.service_effects import Effects, tell
from app.usecases.service_revisions import Wanted


def update(
    ctx: Context, actor: Actor, ref: str, body: Mapping[str, Any], idempotency: Idempotency | None = None
) -> ServiceOutcome:
    """Make a new revision and roll it out. ``body``: ``config`` is merged over the present one (``replace_config``:
    stands in its place, as ``update`` and ``restart`` do); ``recipe_name``, ``model_name``, ``pool``, ``update{}``,
    ``restart{}``, ``all_or_nothing``, ``successor_lead_s``, ``labels`` as at a create. ``already`` when it says
    what is so.

    Raises what ``create`` raises, NotFound, ModelForbidden for a key that may not have the present model run, and
    Conflict for a service that was cancelled.
    """
    try:
        with ctx.database.read() as connection:
            row = find_running(connection, actor, ref, "updated")
            present = service_revisions.read(connection, row.id, row.revision)
        wanted = revisions_of.render_change(ctx, actor, row, present, body)
    except HostlerError:
        replayed = replayed_of(ctx, actor, idempotency)
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
        before = before_of(connection, actor, idempotency)
        if before is not None:
            return before, Effects()
        row = lock_running(connection, actor, ref, "updated")
        if merged_into not in (None, row.revision):
            raise Conflict(
                f"Service {row.name} was changed at the same time: revision {row.revision} is wanted now. Look at it"
                f" with `hostler service get {row.name}`, then try again."
            )
        present = service_revisions.read(connection, row.id, row.revision)
        new_labels = row.labels if labels is None else dict(labels)
        if revisions_of.same(wanted, ctx, present) and new_labels == row.labels:
            remember(connection, actor, idempotency, row.id, None)
            return ServiceOutcome(row.id, None, already=True), Effects()
        plan = revisions_of.check(ctx, connection, actor, wanted, row.count)
        new = service_revisions.last_number(connection, row.id) + 1
        write_revision(ctx, connection, actor, row.id, new, wanted, "update")
        if (
            new_labels == row.labels
            and row.good_revision == row.revision
            and revisions_of.runs_the_same(wanted, ctx, present)
        ):
            return _kept(ctx, connection, actor, row, new, idempotency, loads)
        columns = {"recipe": wanted.recipe, "pool": plan.pool, "labels": new_labels}
        return _roll_out(ctx, connection, actor, row, new, columns, "update", idempotency, loads)

    outcome = changed(ctx, act)
    return outcome if outcome.replayed else with_warnings(outcome, wanted.warnings)


def rollback(
    ctx: Context, actor: Actor, ref: str, to: int | None = None, idempotency: Idempotency | None = None
) -> ServiceOutcome:
    """Want the revision ``to`` again (None: the last good one, else the one before), rolled out like an update.

    Raises NotFound, ModelForbidden, and Conflict when there is none to go back to or the service was cancelled.
    """
    loads = reconciling.load_of(ctx)

    def act(connection: Connection) -> tuple[ServiceOutcome, Effects]:
        before = before_of(connection, actor, idempotency)
        if before is not None:
            return before, Effects()
        row = lock_running(connection, actor, ref, "rolled back")
        target = to
        if target is None:
            good = row.good_revision
            target = good if good is not None and good != row.revision else row.revision - 1
        found = service_revisions.read(connection, row.id, target) if target != row.revision else None
        if target == row.revision and to is not None:
            remember(connection, actor, idempotency, row.id, None)
            return ServiceOutcome(row.id, None, already=True), Effects()
        if found is None:
            raise revisions_of.no_such_revision(row.name, target)
        check_models(connection, actor, row, target)
        revisions_of.check_count(found, row.count)
        columns = revisions_of.columns_of(ctx, found.spec)
        return _roll_out(ctx, connection, actor, row, target, columns, "rollback", idempotency, loads)

    return changed(ctx, act)


def pause(ctx: Context, actor: Actor, ref: str, idempotency: Idempotency | None = None) -> ServiceOutcome:
    """Take no further step of an update; what fails is still replaced. Raises NotFound, ModelForbidden, Conflict."""
    return changed(ctx, partial(_pause, ctx, actor, ref, idempotency, True))


def resume(ctx: Context, actor: Actor, ref: str, idempotency: Idempotency | None = None) -> ServiceOutcome:
    """Go on with the update; its clock begins anew. Raises NotFound, ModelForbidden, Conflict."""
    return changed(ctx, partial(_pause, ctx, actor, ref, idempotency, False))


def _pause(
    ctx: Context, actor: Actor, ref: str, idempotency: Idempotency | None, paused: bool, connection: Connection
) -> tuple[ServiceOutcome, Effects]:
    before = before_of(connection, actor, idempotency)
    if before is not None:
        return before, Effects()
    row = lock_running(connection, actor, ref, "paused" if paused else "resumed")
    if row.paused == paused:
        remember(connection, actor, idempotency, row.id, None)
        return ServiceOutcome(row.id, None, already=True), Effects()
    rollout = dict(row.rollout)
    if not paused and rollout.get("state") == "under_way":
        rollout["since"] = row.now.timestamp()
    repo.change(connection, row.id, paused=paused, rollout=rollout)
    tell(connection, row, "service_paused" if paused else "service_resumed", "", actor)
    return reconciled(ctx, connection, actor, row.id, None, idempotency, Effects(), {})


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
    service_members.move(connection, row.id, row.revision, number)
    repo.change(connection, row.id, revision=number, good_revision=number, reset_at=True)
    message = f"from revision {row.revision} to {number}; no replica is replaced for it"
    tell(connection, row, "service_updated", message, actor, revision=number, before=row.revision)
    outcome, effects = reconciled(ctx, connection, actor, row.id, None, idempotency, Effects(), loads)
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
    supersede(connection, row, overtaken, f"revision {number} is wanted instead", actor, effects)
    task_id = secrets.token_hex(8)
    begin_task(connection, actor, row, TaskKind.SERVICE_UPDATE, task_id, revision=number, from_=row.revision)
    rollout = {"state": "under_way", "from": row.revision, "to": number, "since": row.now.timestamp()}
    repo.change(connection, row.id, revision=number, reset_at=True, rollout=rollout, **columns)
    kind = "service_updated" if cause == "update" else "service_rolled_back"
    message = f"from revision {row.revision} to {number}"
    tell(connection, row, kind, message, actor, task_id=task_id, revision=number, before=row.revision)
    return reconciled(ctx, connection, actor, row.id, task_id, idempotency, effects, loads)
