"""Asking for a service."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from app.db.repos import services as repo
from app.domain.tasks import Phase, TaskKind
from app.errors import HostlerError, InvalidConfig, NameTaken
from app.usecases import creates, reconciling, service_refs
from app.usecases import service_revisions as revisions_of
from app.usecases.context import Actor, Context, Idempotency
from app.usecases.service_asking import (
    ServiceOutcome,
    before_of,
    begin_task,
    changed,
    checked_count,
    remember,
    replayed_of,
    with_warnings,
    write_revision,
)
from app.usecases.service_effects import Effects, tell
from app.usecases.service_revisions import Wanted

#: A name like this would be taken for an id.
_LIKE_AN_ID = re.compile(r"[0-9a-f]{12}")
_NAME_PARTS = re.compile(r"[^a-z0-9]+")


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
        before = replayed_of(ctx, actor, idempotency)
        if before is None:
            raise
        return before
    return create_wanted(ctx, actor, wanted, body, idempotency)


def create_wanted(
    ctx: Context, actor: Actor, wanted: Wanted, body: Mapping[str, Any], idempotency: Idempotency | None = None
) -> ServiceOutcome:
    """``create`` after its recipe was rendered."""

    def act(connection: Connection) -> tuple[ServiceOutcome, Effects]:
        service_refs.check_migrated(connection)
        before = before_of(connection, actor, idempotency)
        if before is not None:
            return before, Effects()
        count = checked_count(wanted.count)
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
                f" `hostler service stop {name}`.",
                errors={"name": ["Taken by a running service."]},
            )
        write_revision(ctx, connection, actor, service_id, 1, wanted, "create")
        begin_task(
            connection, actor, row, TaskKind.SERVICE_CREATE, task_id, count=count, done=0, of=count,
            phase=Phase.WAITING_FOR_READY,
        )  # fmt: skip
        tell(
            connection, row, "service_created", f"{name}: {count} replicas of {wanted.recipe}", actor,
            task_id=task_id, count=count, revision=1,
        )  # fmt: skip
        effects = reconciling.reconcile(ctx, connection, service_id, who=actor, known={1: plan})
        remember(connection, actor, idempotency, service_id, task_id)
        return ServiceOutcome(service_id, task_id, replicas=len(effects.made)), effects

    outcome = changed(ctx, act)
    return outcome if outcome.replayed else with_warnings(outcome, wanted.warnings)


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
        "count": checked_count(wanted.count),
        "config": wanted.spec["config"],
        "update": wanted.spec["update"],
        "restart": wanted.spec["restart"],
        "warnings": list(wanted.warnings),
        "replica": creates.plan_create(ctx, actor, wanted.body),
    }


def _rendered(ctx: Context, actor: Actor, body: Mapping[str, Any]) -> Wanted:
    config = revisions_of.with_kept_secrets(body.get("config") or {}, {})
    return revisions_of.render(ctx, actor, body["recipe_name"], config, body, body.get("replicas"))


def _made_name(recipe: str, service_id: str) -> str:
    short = _NAME_PARTS.sub("-", recipe.rpartition("/")[2].lower()).strip("-")[:50] or "service"
    return f"{short}-{service_id}"
