"""What a change of a service would come to, field by field, before it is made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from app.db.repos import service_revisions
from app.domain.differences import differences
from app.domain.masking import mask
from app.usecases import creates, service_asking
from app.usecases import service_revisions as revisions_of
from app.usecases.context import Actor, Context
from app.usecases.service_revisions import Wanted

#: Of a revision, what is told by itself; what a replica runs follows from it, and is told only when nothing else is.
_TOLD = ("config", "update", "restart", "all_or_nothing", "successor_lead_s")


def plan_update(ctx: Context, actor: Actor, ref: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """What ``services.update`` would make of ``body``: ``changes`` are ``{field, before, after}``, empty when it says
    what is so; secret values are masked, and one that would change stands there all the same. Changes nothing.

    Raises what ``services.update`` raises.
    """
    with ctx.database.read() as connection:
        row = service_asking.find_running(connection, actor, ref, "updated")
        present = service_revisions.read(connection, row.id, row.revision)
    wanted = revisions_of.render_change(ctx, actor, row, present, body)
    with ctx.database.read() as connection:
        plan = revisions_of.check(ctx, connection, actor, wanted)
    labels = row.labels if body.get("labels") is None else body["labels"]
    changes = _changes(ctx, row, present, wanted, plan.pool, labels)
    return {
        "dry_run": True,
        "id": row.id,
        "name": row.name,
        "revision": row.revision,
        "recipe_name": wanted.recipe,
        "count": row.count,
        "changes": changes,
        "config": wanted.spec["config"],
        "update": wanted.spec["update"],
        "restart": wanted.spec["restart"],
        "warnings": list(wanted.warnings),
        "replica": creates.plan_create(ctx, actor, wanted.body),
    }


def _changes(
    ctx: Context, row: Any, present: Any, wanted: Wanted, pool: str, labels: Mapping[str, str]
) -> list[dict[str, Any]]:
    before = _told(row.recipe, row.pool, row.labels, present.spec)
    after = _told(wanted.recipe, pool, labels, wanted.spec)
    shown = {one.field: (one.before, one.after) for one in differences(before, after)}
    if not revisions_of.same(wanted, ctx, present):
        # what is masked in both may differ all the same
        hidden = differences(
            {"config": revisions_of.config_of(ctx, present)}, {"config": json.loads(wanted.secret["config"])}
        )
        masked_before, masked_after = _flat(before), _flat(after)
        for one in hidden:
            shown.setdefault(one.field, (masked_before.get(one.field), masked_after.get(one.field)))
        if not shown:
            # the recipe says something else now
            found = differences({"replica": present.spec["replica"]}, {"replica": wanted.spec["replica"]})
            shown = {one.field: (mask(one.before), mask(one.after)) for one in found}
            shown = shown or {"recipe_version": (present.spec["recipe"]["version"], wanted.spec["recipe"]["version"])}
    return [{"field": name, "before": old, "after": new} for name, (old, new) in sorted(shown.items())]


def _told(recipe: str, pool: str, labels: Mapping[str, str], spec: Mapping[str, Any]) -> dict[str, Any]:
    told = {name: spec.get(name) for name in _TOLD}
    model = spec["replica"].get("model_name")
    return {"recipe_name": recipe, "pool": pool, "model_name": model, "labels": dict(labels), **told}


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            found |= _flat(inner, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = inner
    return found
