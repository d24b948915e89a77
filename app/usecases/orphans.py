"""Attempts that a host still holds something of: what the database says of them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import text

from app.usecases.context import Context
from app.usecases.events import record_event


def open_and_known(ctx: Context, names: Sequence[str]) -> tuple[set[str], set[str]]:
    """Of ``names``: those whose attempt is open (it may run), and those that have a record at all."""
    query = text("SELECT name, released_at IS NULL AS is_open FROM attempts WHERE name = ANY(:names)")
    with ctx.database.read() as connection:
        rows = list(connection.execute(query, {"names": list(names)}))
    return {row.name for row in rows if row.is_open}, {row.name for row in rows}


def record_orphan(ctx: Context, name: str, what: str) -> None:
    """Something ran under the name of an attempt that has ended or was never known; say what was done."""
    record_event(
        ctx,
        "orphan",
        {"attempt": name},
        message=f"{name}: {what}",
        cause="sweep",
        node=ctx.settings.node_name,
    )
