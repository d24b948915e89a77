"""What leaked; here the rows: leases that nobody owns, and what retention has not come to yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, text

from app.db.repos import leases
from app.db.repos import retention as repo
from app.usecases import retention
from app.usecases.context import Context
from app.usecases.retention import BOUNDS, DAY_S, Kept

#: More rows than this are not counted, and removed all the same.
COUNTED = 100_000


@dataclass(frozen=True)
class Leak:
    """One thing that should not be there, as `hostler gc` shows it and ``workers.gc`` tells it.

    ``kind`` is engine, attempt_folder, store_data, half_made, lease, rows, socket, pid_file or postgres_place; ``name``
    an attempt, a unit (``port/node/20001``), a table or a path; ``why`` says what is wrong with it. ``removed`` is None
    while it was only looked at.
    """

    kind: str
    name: str
    why: str
    removed: bool | None = None
    error: str = ""

    def body(self) -> dict[str, Any]:
        return asdict(self)


def ownerless_leases(ctx: Context) -> list[Leak]:
    """Units that are held for attempts which were seen gone."""
    with ctx.database.read() as connection:
        found = list(connection.execute(text(leases.OWNERLESS)))
    return [
        Leak("lease", f"{row.kind}/{row.scope}/{row.number}", f"held for {row.holder}, which is gone") for row in found
    ]


def rows_past_their_time(ctx: Context) -> list[Leak]:
    """What retention deletes by and by, counted by deleting it and taking that back."""
    found = []
    for table, bound in BOUNDS.items():
        if isinstance(bound, Kept):
            count = _would_go(ctx, table, min(bound.at_most_s, ctx.settings.retention_days * DAY_S))
            if count:
                found.append(Leak("rows", table, f"{count} past their time: {bound.what}"))
    return found


def unknown_keepers(ctx: Context, ids: Sequence[str]) -> set[str]:
    """Those of ``ids`` by which neither a service nor a replica goes: what they stored is nobody's any more."""
    if not ids:
        return set()
    query = text(
        "SELECT keeper FROM unnest(CAST(:ids AS text[])) AS keeper"
        " WHERE NOT EXISTS (SELECT 1 FROM services WHERE services.id = keeper)"
        " AND NOT EXISTS (SELECT 1 FROM replicas WHERE replicas.id = keeper)"
    )
    with ctx.database.read() as connection:
        return set(connection.execute(query, {"ids": list(ids)}).scalars())


def free_leases(ctx: Context) -> int:
    """Return what nobody owns."""
    return ctx.database.change(leases.free_ownerless)


def forget_rows(ctx: Context) -> int:
    """Delete all that is past its time, in small bites."""
    total = 0
    while gone := retention.forget_old(ctx):
        total += gone
    return total


class _TakenBack(Exception):
    """Ends a transaction without its changes."""


def _would_go(ctx: Context, table: str, keep_s: float) -> int:
    count = 0

    def act(connection: Connection) -> None:
        nonlocal count
        count = repo.forget(connection, table=table, keep_s=keep_s, limit=COUNTED)
        raise _TakenBack

    try:
        ctx.database.change(act)
    except _TakenBack:
        return count
    return count
