"""Nodes: the hosts whose workers serve pools, and what is leased there."""

from __future__ import annotations

from typing import Any

from app.db.repos import nodes as repo
from app.db.repos.nodes import SILENT_S as SILENT_S
from app.errors import NotFound
from app.usecases import paging
from app.usecases.context import Context


def get(context: Context, name: str) -> dict[str, Any]:
    """One node. Raises NotFound."""
    with context.database.read() as connection:
        row = repo.read(connection, name, SILENT_S)
    if row is None:
        raise NotFound(f"There is no node {name!r}. `hostler node list` shows them.")
    return _body(row)


def list_nodes(context: Context, limit: int, cursor: str | None) -> tuple[list[dict[str, Any]], int, str | None]:
    """(nodes, total, next cursor) by name."""
    after = paging.decode(cursor, (str,))
    with context.database.read() as connection:
        rows = repo.page(connection, after=after[0] if after else None, limit=limit + 1, silent_s=SILENT_S)
        total = repo.count(connection)
    more = paging.encode((rows[limit - 1].name,)) if len(rows) > limit else None
    return [_body(row) for row in rows[:limit]], total, more


def _body(row: Any) -> dict[str, Any]:
    found = dict(row._mapping)
    found["state"] = "up" if found.pop("alive") else "lost"
    return found
