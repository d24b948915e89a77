"""Leases: who holds which slot, port or GPU. A unit that is free is found by an index, never by counting."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, text

from app.db.repos.gateways import PORT_IS_FREE

_TAKE = text(
    f"""
WITH free AS MATERIALIZED (
    SELECT kind, scope, number FROM units
    WHERE kind = :kind AND scope = :scope AND lease_id IS NULL AND NOT retired AND {PORT_IS_FREE}
    ORDER BY last_freed_at NULLS FIRST, number LIMIT :count FOR UPDATE SKIP LOCKED
),
made AS (
    INSERT INTO leases (kind, scope, number, attempt_id, holder)
    SELECT kind, scope, number, :attempt_id, :holder FROM free RETURNING id, kind, scope, number
)
UPDATE units u SET lease_id = made.id FROM made
WHERE u.kind = made.kind AND u.scope = made.scope AND u.number = made.number
RETURNING u.number
"""
)


def take(connection: Connection, kind: str, scope: str, count: int, attempt_id: int, holder: str) -> list[int]:
    """Lease up to ``count`` free units; fewer numbers than asked means there is no more room."""
    if count == 0:
        return []
    found = connection.execute(
        _TAKE, {"kind": kind, "scope": scope, "count": count, "attempt_id": attempt_id, "holder": holder}
    )
    return sorted(row[0] for row in found)


def held(connection: Connection, attempt_id: int) -> dict[str, list[int]]:
    """Numbers that the attempt holds now, by kind."""
    rows = connection.execute(
        text(
            "SELECT kind, array_agg(number ORDER BY number) FROM leases"
            " WHERE attempt_id = :attempt_id AND released_at IS NULL GROUP BY kind"
        ),
        {"attempt_id": attempt_id},
    )
    return {kind: list(numbers) for kind, numbers in rows}


def give_back(connection: Connection, kind: str, scope: str, numbers: Sequence[int], attempt_id: int) -> None:
    """Return single units before the attempt ends (a port that turned out to be taken by a stranger)."""
    connection.execute(
        text(
            "WITH freed AS (UPDATE leases SET released_at = hostler_now() WHERE attempt_id = :attempt_id"
            " AND kind = :kind AND scope = :scope AND number = ANY(:numbers) AND released_at IS NULL RETURNING id)"
            " UPDATE units SET lease_id = NULL, last_freed_at = hostler_now()"
            " WHERE lease_id IN (SELECT id FROM freed)"
        ),
        {"kind": kind, "scope": scope, "numbers": list(numbers), "attempt_id": attempt_id},
    )


def free_count(connection: Connection, kind: str, scope: str) -> int:
    """How many units are free now."""
    query = text(
        "SELECT count(*) FROM units WHERE kind = :kind AND scope = :scope AND lease_id IS NULL AND NOT retired"
        f" AND {PORT_IS_FREE}"
    )
    return int(connection.execute(query, {"kind": kind, "scope": scope}).scalar_one())


def set_capacity(connection: Connection, kind: str, scope: str, numbers: Sequence[int], rotate_by: int = 0) -> None:
    """Make exactly ``numbers`` leasable. What is held now stays held; it is retired and not given again.

    ``rotate_by`` starts the round at another number, so that two stacks on one host try different ports first.
    """
    wanted = list(numbers)
    connection.execute(
        text(
            "INSERT INTO units (kind, scope, number, last_freed_at)"
            " SELECT :kind, :scope, n, CASE WHEN :rotate_by > 0 THEN timestamptz 'epoch' + make_interval("
            "   secs => CAST((row_number() OVER () + cardinality(CAST(:numbers AS integer[])) - :rotate_by)"
            "   % cardinality(CAST(:numbers AS integer[])) AS float8)) END"
            " FROM unnest(CAST(:numbers AS integer[])) AS n"
            " ON CONFLICT (kind, scope, number) DO UPDATE SET retired = false WHERE units.retired"
        ),
        {"kind": kind, "scope": scope, "numbers": wanted, "rotate_by": rotate_by % max(len(wanted), 1)},
    )
    connection.execute(
        text(
            "UPDATE units SET retired = true WHERE kind = :kind AND scope = :scope AND NOT retired"
            " AND number <> ALL(CAST(:numbers AS integer[]))"
        ),
        {"kind": kind, "scope": scope, "numbers": wanted},
    )


#: With fewer free ports than this somebody may be waiting for one.
_SCARCE_PORTS = 64


def pools_short_of(connection: Connection, node: str, but: str) -> list[str]:
    """Pools other than ``but`` whose best create waits, while it may be GPUs or ports of ``node`` that it lacks.

    Empty at once where the host has no GPUs and ports enough. A pool too many costs a bell, one too few a sweep.
    """
    query = text(
        "SELECT p.name FROM pools p JOIN backends b ON b.name = p.backend"
        " WHERE (EXISTS (SELECT 1 FROM units WHERE kind = 'gpu' AND scope = :node AND NOT retired)"
        "     OR (SELECT count(*) FROM (SELECT 1 FROM units WHERE kind = 'port' AND scope = :node AND lease_id IS NULL"
        f"         AND NOT retired AND {PORT_IS_FREE}"
        "         ORDER BY last_freed_at NULLS FIRST, number LIMIT :scarce) AS free) < :scarce)"
        " AND b.host_bound AND p.name <> :but AND p.state = 'active'"
        " AND EXISTS (SELECT 1 FROM tasks t WHERE t.pool = p.name AND t.state = 'queued'"
        "     AND t.kind IN ('create', 'restart')) ORDER BY p.name"
    )
    found = connection.execute(query, {"node": node, "but": but, "scarce": _SCARCE_PORTS})
    return [row[0] for row in found]


#: Live leases of attempts that were released, and units that still name a lease which was given back.
OWNERLESS = """
    SELECT l.id, l.kind, l.scope, l.number, l.holder FROM leases l
    WHERE l.released_at IS NULL AND EXISTS (SELECT 1 FROM attempts a WHERE a.id = l.attempt_id
        AND a.released_at IS NOT NULL)
    UNION ALL
    SELECT l.id, u.kind, u.scope, u.number, l.holder FROM units u JOIN leases l ON l.id = u.lease_id
    WHERE l.released_at IS NOT NULL
"""


def free_ownerless(connection: Connection) -> int:
    """Return what nobody owns any more: a defect of ours left it. Returns how many units that were."""
    freed = connection.execute(
        text(
            f"WITH ownerless AS MATERIALIZED ({OWNERLESS}),"
            " ended AS (UPDATE leases SET released_at = hostler_now() WHERE released_at IS NULL"
            "     AND id IN (SELECT id FROM ownerless))"
            " UPDATE units SET lease_id = NULL, last_freed_at = hostler_now()"
            " WHERE lease_id IN (SELECT id FROM ownerless)"
        )
    )
    return freed.rowcount


def take_exactly(
    connection: Connection, kind: str, scope: str, numbers: Sequence[int], attempt_id: int, holder: str
) -> bool:
    """Lease these very units; False when one of them is not free or not there."""
    query = text(
        "WITH free AS MATERIALIZED (SELECT kind, scope, number FROM units WHERE kind = :kind AND scope = :scope"
        "     AND number = ANY(:numbers) AND lease_id IS NULL AND NOT retired"
        f"    AND {PORT_IS_FREE} FOR UPDATE),"
        " made AS (INSERT INTO leases (kind, scope, number, attempt_id, holder)"
        "     SELECT kind, scope, number, :attempt_id, :holder FROM free RETURNING id, kind, scope, number)"
        " UPDATE units u SET lease_id = made.id FROM made"
        " WHERE u.kind = made.kind AND u.scope = made.scope AND u.number = made.number"
    )
    values = {
        "kind": kind, "scope": scope, "numbers": list(numbers), "attempt_id": attempt_id, "holder": holder
    }  # fmt: skip
    return connection.execute(query, values).rowcount == len(numbers)
