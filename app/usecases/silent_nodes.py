"""Hosts that are not heard of any more: what they run is unreachable, which proves no death and frees nothing. So is
what runs on no host of ours and that no host is left to look at.

A heartbeat that looks old proves little: a clock may have jumped. So a host is marked first, with the heartbeat that
was seen, and is silent only when that heartbeat is still its last after ``PROOF_S`` of real time. A host that lives
beats twice meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

from app.db.repos import replicas, service_hints
from app.db.repos.newer import AdaptedToServices
from app.db.repos.replicas import Move
from app.domain.lifecycle import SERVING, Reason, State
from app.usecases import ends
from app.usecases.context import Context
from app.usecases.ends import End
from app.usecases.nodes import SILENT_S

PROOF_S = 10.0
#: What is moved in one pass; the rest is the next pass's.
BATCH = 500

#: Not the database's ``hostler_now()`` but the time that really passes: it is not shifted by tests.
_MARK = text(
    """
UPDATE nodes n SET attributes = CASE
    WHEN n.heartbeat_at > hostler_now() - make_interval(secs => :silent_s) THEN n.attributes - 'silent'
    ELSE n.attributes || jsonb_build_object('silent', jsonb_build_object(
        'heartbeat_at', to_jsonb(n.heartbeat_at), 'marked_at', extract(epoch FROM statement_timestamp()))) END
WHERE (n.heartbeat_at > hostler_now() - make_interval(secs => :silent_s) AND n.attributes ? 'silent')
   OR (n.heartbeat_at <= hostler_now() - make_interval(secs => :silent_s)
       AND n.attributes->'silent'->'heartbeat_at' IS DISTINCT FROM to_jsonb(n.heartbeat_at))
RETURNING n.name, n.attributes ? 'silent' AS silent
"""
)
_SILENT = text(
    """
SELECT name, extract(epoch FROM hostler_now() - heartbeat_at) AS silent_s FROM nodes
WHERE attributes->'silent'->'heartbeat_at' = to_jsonb(heartbeat_at)
  AND extract(epoch FROM statement_timestamp()) - CAST(attributes->'silent'->>'marked_at' AS float8) >= :proof_s
ORDER BY name
"""
)
#: What a worker holds is that worker's to judge, wherever it runs.
_UNHELD = """
    AND NOT EXISTS (SELECT 1 FROM tasks t WHERE t.replica_id = r.id AND t.lease_token IS NOT NULL)
"""
_LOST = text(
    f"""
SELECT r.id, r.attempt, r.state, r.reason, r.node, r.pool FROM replicas r
WHERE r.node = ANY(:nodes) AND r.released_at IS NULL AND r.state = ANY(:states) {_UNHELD}
ORDER BY r.id LIMIT :limit
"""
)
# What runs on no host of ours is looked at by those that serve its pool.
_OVERDUE = AdaptedToServices(
    lambda known: (
        f"""
SELECT r.id, r.attempt, r.state, r.node FROM replicas r
WHERE r.deadline_at < hostler_now() AND r.released_at IS NULL
  AND (r.state IN ('starting', 'waiting_for_ready', 'unreachable') OR (r.state = 'scheduling' AND r.node IS NULL))
  AND (r.node = ANY(:nodes) OR (r.node IS NULL AND NOT EXISTS (SELECT 1 FROM nodes n WHERE n.name <> ALL(:nodes)
      {"AND (n.pools IS NULL OR r.pool = ANY(n.pools))" if known else ""})))
  {_UNHELD}
ORDER BY r.id LIMIT :limit
"""
    )
)
#: Not before there is any host at all: a stack that just starts has lost nothing.
_UNSERVED = AdaptedToServices(
    lambda known: (
        f"""
SELECT r.id, r.attempt, r.state, r.reason, r.pool FROM replicas r
WHERE r.node IS NULL AND r.released_at IS NULL AND r.state = ANY(:states)
  AND EXISTS (SELECT 1 FROM nodes)
  AND NOT EXISTS (SELECT 1 FROM nodes n WHERE n.name <> ALL(:nodes)
      {"AND (n.pools IS NULL OR r.pool = ANY(n.pools))" if known else ""})
  {_UNHELD}
ORDER BY r.id LIMIT :limit
"""
    )
)
_SUSPECT = text(
    "INSERT INTO events (kind, pool, node, actor, cause, message)"
    " VALUES ('pool_suspect', :pool, :node, 'hostler', 'host silent', :message)"
)
_ASKED = (State.STARTING, State.WAITING_FOR_READY, *SERVING)


def judge_silent_nodes(ctx: Context) -> int:
    """Call what silent hosts run unreachable, and end launches there whose time is over; returns how many of both."""
    silent = ctx.database.change(_find_silent)
    names = [row.name for row in silent]
    moved = _call_unserved(ctx, names)
    if not silent:
        return moved
    moved += _call_unreachable(ctx, {row.name: float(row.silent_s) for row in silent})
    with ctx.database.read() as connection:
        overdue = list(connection.execute(_OVERDUE.of(connection), {"nodes": names, "limit": BATCH}))
    message = (
        "it was not seen ready in time; its host was not heard of meanwhile, and what is left there is ended later"
    )
    ended = [
        row for row in overdue if ends.record_failed(ctx, row.id, row.attempt, State(row.state), _end(row, message))
    ]
    return moved + len(ended)


def _end(row: Any, message: str) -> End:
    queued = State(row.state) is State.SCHEDULING
    return End(Reason.QUEUE_TIMEOUT if queued else Reason.READINESS_TIMEOUT, message)


def _find_silent(connection: Connection) -> Sequence[Any]:
    marked = list(connection.execute(_MARK, {"silent_s": SILENT_S}))
    # what ended there was left alone, for nobody knew whether it had
    service_hints.add_of_hosts(connection, [row.name for row in marked if not row.silent])
    return list(connection.execute(_SILENT, {"proof_s": PROOF_S}))


def _call_unreachable(ctx: Context, silent: dict[str, float]) -> int:
    def act(connection: Connection) -> set[str]:
        lost = list(connection.execute(_LOST, {"nodes": list(silent), "states": list(_ASKED), "limit": BATCH}))
        moved = replicas.record_moves(connection, [_move(row, silent[row.node]) for row in lost])
        _tell(connection, lost, moved, silent)
        return moved

    moved = ctx.database.change(act)
    if moved:
        ctx.notify("events", *(f"replica:{one}" for one in moved))
    return len(moved)


def _call_unserved(ctx: Context, silent: Sequence[str]) -> int:
    """Where no agent that serves the pool is heard, nobody knows how those are that run on no host of ours."""

    def act(connection: Connection) -> set[str]:
        values = {"nodes": list(silent), "states": list(_ASKED), "limit": BATCH}
        lost = list(connection.execute(_UNSERVED.of(connection), values))
        moved = replicas.record_moves(connection, [_unserved(row) for row in lost])
        counts = Counter(row.pool for row in lost if row.id in moved)
        told = [
            {
                "node": None,
                "pool": pool,
                "message": f"no agent serves pool {pool}: {count} replicas of it are unreachable; nothing is torn down,"
                " and nothing is started in their place",
            }
            for pool, count in sorted(counts.items())
        ]
        if told:
            connection.execute(_SUSPECT, told)
        return moved

    moved = ctx.database.change(act)
    if moved:
        ctx.notify("events", *(f"replica:{one}" for one in moved))
    return len(moved)


def _unserved(row: Any) -> Move:
    told = f"no agent serves pool {row.pool}, so that nobody looks at it; `hostler node list` shows who is heard"
    return _unseen(row, "no agent", told)


def _unseen(row: Any, cause: str, message: str) -> Move:
    return Move(
        row.id,
        row.attempt,
        (State(row.state), State.UNREACHABLE),
        cause=cause,
        # what goes with a replica until it answers again: that its cluster took its place away
        reason=Reason.PREEMPTED if row.reason == Reason.PREEMPTED else None,
        message=message,
        # due at once for the first agent that comes
        next_check_s=0,
        keeps_deadline=True,
    )


def _tell(connection: Connection, lost: Sequence[Any], moved: set[str], silent: dict[str, float]) -> None:
    """All that a host ran went silent at once: the fault is more likely the host's, or the way to it, than theirs."""
    counts = Counter((row.node, row.pool) for row in lost if row.id in moved)
    told = [
        {
            "node": node,
            "pool": pool,
            "message": f"host {node} has not been heard of for {silent[node]:.0f} s: {count} replicas of pool {pool} on"
            " it are unreachable; nothing is torn down, and nothing is started in their place",
        }
        for (node, pool), count in sorted(counts.items())
    ]
    if told:
        connection.execute(_SUSPECT, told)


def _move(row: Any, silent_s: float) -> Move:
    told = f"host {row.node} has not been heard of for {silent_s:.0f} s; `hostler node get {row.node}` shows it"
    return _unseen(row, "host silent", told)
