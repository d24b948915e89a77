"""Whether the places that pools name answer, as each host that serves them last found it: kept with that host."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import text

from app.usecases.context import Context

#: Of what a place said instead of an answer.
_LONGEST = 500
_NOW = text("SELECT hostler_now()")
_READ = text("SELECT attributes->'places' FROM nodes WHERE name = :node FOR UPDATE")
_WRITE = text(
    "UPDATE nodes SET attributes = attributes || jsonb_build_object('places', CAST(:places AS jsonb))"
    " WHERE name = :node"
)


def now(ctx: Context) -> datetime:
    """The database's clock, by which pools were changed: what is asked before that says nothing of them after it."""
    with ctx.database.read() as connection:
        moment: datetime = connection.execute(_NOW).scalar_one()
        return moment


def record(ctx: Context, asked_at: datetime, pools: Iterable[tuple[Any, str]]) -> None:
    """What this host found when it asked: pools' rows (``name``, ``updated_at``) and what was wrong there, empty when
    nothing was. What it said of other pools is forgotten."""
    node = ctx.settings.node_name
    with ctx.database.begin() as connection:
        before = connection.execute(_READ, {"node": node}).scalar() or {}
        found = {}
        for pool, trouble in pools:
            answers, at = not trouble, asked_at.isoformat()
            last = before.get(pool.name) or {"answers": None}
            since = last["since"] if last["answers"] is answers and _is_after(last["asked_at"], pool) else at
            found[pool.name] = {"answers": answers, "message": trouble[:_LONGEST], "since": since, "asked_at": at}
        connection.execute(_WRITE, {"node": node, "places": json.dumps(found)})


def _is_after(asked_at: str, pool: Any) -> bool:
    """Whether it was said of the place that the pool names now."""
    return datetime.fromisoformat(asked_at) >= pool.updated_at
