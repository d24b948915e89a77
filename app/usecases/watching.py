"""What a sweep reads and writes: which replicas are due for a look, and what the look showed. All in bulk."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import Connection, TextClause, text

from app.db.repos import replicas, tasks
from app.db.repos.drains import IS_DRAINING
from app.db.repos.newer import AdaptedToServices
from app.db.repos.replicas import Move as Move
from app.domain.lifecycle import STOP_TROUBLE, State
from app.domain.tasks import Phase, TaskState
from app.settings import pools_served
from app.usecases.claims import REPLICA_WITH_ATTEMPT
from app.usecases.context import Context
from app.usecases.rounds import IN_ROUND, ROUND_STATES, served

#: Looks at one replica are this far apart while something is expected of it, should the watcher die meanwhile.
BUSY_RECHECK_S = 2.0

#: What began to serve so recently is looked at at once; after that it is looked at in rounds (``rounds``).
SETTLE_S = 3.0

_MOVING = ", ".join(f"'{state}'" for state in State if state not in (State.PENDING, *ROUND_STATES))
#: Due by its own clock, or left behind when the clock was set back: no look is ever put off that far.
_DUE = """r.released_at IS NULL
    AND (r.next_check_at <= hostler_now() OR r.next_check_at > hostler_now() + interval '1 minute')"""

#: What drains may finish what is in flight: nobody ends it meanwhile, and an end of its own the death watch sees.
_NOT_DRAINING = f"NOT (r.state = 'stopping' AND {IS_DRAINING})"
_SETTLING = f"""r.state IN ({IN_ROUND})
    AND r.state_since > hostler_now() - make_interval(secs => :settle_s) AND r.next_check_at <= hostler_now()"""
_CANDIDATES = "SELECT r.id, r.next_check_at FROM replicas r WHERE"


# one arm per index; what was found is looked at again under its lock. Ids go as arrays: whatever the planner believes,
# it then fetches those rows and reads no others
def _claim_due(place: str) -> TextClause:
    return text(
        f"""
WITH found AS MATERIALIZED (
    {_CANDIDATES} {_DUE} AND r.state IN ({_MOVING}) AND {_NOT_DRAINING} AND {place}
    UNION ALL {_CANDIDATES} {_DUE} AND {_SETTLING} AND {place}
),
due AS MATERIALIZED (
    SELECT r.id FROM replicas r
    WHERE r.id = ANY(ARRAY(SELECT id FROM found ORDER BY next_check_at LIMIT :limit))
      AND {_DUE} AND {_NOT_DRAINING}
    FOR UPDATE SKIP LOCKED
),
claimed AS (
    UPDATE replicas r SET next_check_at = hostler_now() + make_interval(secs =>
        CASE WHEN r.state IN ({IN_ROUND}) THEN CAST(:interval_s AS float8) ELSE CAST(:busy_s AS float8) END)
    WHERE r.id = ANY(ARRAY(SELECT id FROM due))
    RETURNING r.*
)
SELECT {REPLICA_WITH_ATTEMPT} FROM claimed r LEFT JOIN attempts a ON a.replica_id = r.id AND a.released_at IS NULL
"""
    )


_CLAIM_HERE = _claim_due("r.node = :node")
_CLAIM_ELSEWHERE = _claim_due(f"r.node IS NULL AND {served()}")

# Each launch leaves index entries of its former states. A plain scan takes those it meets out of its own next way, a
# bitmap scan looks their rows up each time until a vacuum comes.
_CLAIM_PLAINLY = text("SET LOCAL enable_bitmapscan = off")

_FACTS = text(
    """
UPDATE replicas r SET check_failures = f.failures, last_health = coalesce(f.health, r.last_health),
    version = r.version + 1
FROM jsonb_to_recordset(CAST(:facts AS jsonb)) AS f(id text, attempt integer, failures integer, health jsonb)
WHERE r.id = f.id AND r.attempt = f.attempt AND r.released_at IS NULL
"""
)


# Replicas before attempts, and each in order of ids, as every writer of both.
_TOLD = AdaptedToServices(
    lambda known: (
        f"""
WITH t AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(CAST(:told AS jsonb))
        AS t(replica_id text, attempt integer, host text, port integer, told jsonb, message text)
),
r AS MATERIALIZED (
    SELECT r.id, r.attempt, r.host, r.port, r.state, r.message FROM replicas r
    WHERE r.id = ANY(ARRAY(SELECT replica_id FROM t)) AND r.released_at IS NULL ORDER BY r.id FOR NO KEY UPDATE
),
news AS (
    SELECT r.id, coalesce(t.host, r.host) AS host, coalesce(t.port, r.port) AS port,
        t.port IS NOT NULL AND (t.host, t.port) IS DISTINCT FROM (r.host, r.port) AS elsewhere,
        CASE WHEN r.state = 'scheduling' AND t.message <> '' THEN left(t.message, 4000) ELSE r.message END AS message
    FROM t JOIN r ON r.id = t.replica_id AND r.attempt = t.attempt
    -- where something ready runs is a step of its own
    WHERE r.state NOT IN ('ready', 'stopping', 'stopped', 'failed')
),
moved AS (
    UPDATE replicas SET host = news.host, port = news.port, message = news.message, updated_at = hostler_now(),
        version = version + 1, base_url = CASE WHEN news.elsewhere THEN NULL ELSE base_url END
    FROM news WHERE replicas.id = news.id
        AND (replicas.host, replicas.port, replicas.message) IS DISTINCT FROM (news.host, news.port, news.message)
    RETURNING replicas.id
),
noted AS (
    UPDATE attempts a SET host = coalesce(t.host, a.host), port = coalesce(t.port, a.port)
        {", told = coalesce(t.told, a.told), job_id = coalesce(t.told->>'job_id', a.job_id)" if known else ""}
    FROM t JOIN r ON r.id = t.replica_id
    WHERE a.replica_id = t.replica_id AND a.number = t.attempt AND a.released_at IS NULL
        AND ((t.port IS NOT NULL AND (a.host, a.port) IS DISTINCT FROM (t.host, t.port))
            {"OR (t.told IS NOT NULL AND a.told IS DISTINCT FROM t.told)" if known else ""})
    RETURNING a.replica_id
)
SELECT id FROM moved UNION SELECT replica_id FROM noted
"""
    )
)


@dataclass(frozen=True)
class Fact:
    """What a probe showed where no state changed. ``health`` None leaves the stored one."""

    replica_id: str
    attempt: int
    failures: int
    health: dict[str, Any] | None


@dataclass(frozen=True)
class Told:
    """What a backend told of an attempt beside its state; None leaves what is known. ``message``: why it is queued."""

    replica_id: str
    attempt: int
    host: str | None = None
    port: int | None = None
    told: Mapping[str, Any] | None = None
    message: str = ""


def claim_due(ctx: Context, node: str | None, *, limit: int = 500) -> list[Any]:
    """Replicas of ``node`` on their way somewhere that are due for a look; it is put off meanwhile. None: of no host of
    ours, in the pools that this one serves.

    What has served for more than a moment is looked at in rounds instead.
    """
    with ctx.database.begin() as connection:
        values = {
            "node": node,
            "pools": pools_served(ctx.settings),
            "limit": limit,
            "interval_s": ctx.settings.probe_interval_s,
            "busy_s": BUSY_RECHECK_S,
            "settle_s": SETTLE_S,
        }
        connection.execute(_CLAIM_PLAINLY)
        claim = _CLAIM_HERE if node else _CLAIM_ELSEWHERE
        return list(connection.execute(claim, values))


def record_facts(ctx: Context, facts: Sequence[Fact]) -> None:
    """One write for all that a sweep saw and that changed no state."""
    if not facts:
        return
    rows = [
        {"id": fact.replica_id, "attempt": fact.attempt, "failures": fact.failures, "health": fact.health}
        for fact in facts
    ]
    with ctx.database.begin() as connection:
        connection.execute(_FACTS, {"facts": json.dumps(rows)})


def record_told(ctx: Context, told: Sequence[Told]) -> None:
    """Where attempts run that chose that themselves, and what else is known of them; writes what changed.

    What is ready keeps its address: where that changes, that is a step of its own.
    """
    told = [one for one in told if one.port is not None or one.told is not None or one.message]
    if not told:
        return
    with ctx.database.begin() as connection:
        rows = json.dumps([asdict(one) for one in told])
        changed = connection.execute(_TOLD.of(connection), {"told": rows}).scalars().all()
    if changed:
        ctx.notify("events", *(f"replica:{one}" for one in changed))


def record_sweep_moves(ctx: Context, moves: Sequence[Move]) -> set[str]:
    """State changes that a sweep saw (ready again, unhealthy, unreachable, seen alive), in one transaction.

    A launch that became ready finishes its task in the same transaction.
    """
    if not moves:
        return set()
    with ctx.database.begin() as connection:
        launches = _lock_launch_tasks(connection, [move.replica_id for move in moves])
        told = [_with_task(move, launches) for move in moves]
        moved = replicas.record_moves(connection, told)
        ready = [move.replica_id for move in moves if move.path[-1] is State.READY and move.replica_id in moved]
        for replica_id in ready:
            if replica_id in launches:
                tasks.finish(
                    connection,
                    [launches[replica_id]],
                    TaskState.SUCCEEDED,
                    message=f"replica {replica_id} is ready",
                )
    ended = (f"task:{launches[one]}" for one in ready if one in launches)
    ctx.notify("events", *(f"replica:{one}" for one in moved), *ended)
    return moved


def record_handle(ctx: Context, attempt_id: int, handle: dict[str, Any]) -> None:
    """An attempt that was found by its name: its launcher died before it could say so."""
    with ctx.database.begin() as connection:
        connection.execute(
            text("UPDATE attempts SET backend_ref = CAST(:ref AS jsonb) WHERE id = :id AND released_at IS NULL"),
            {"id": attempt_id, "ref": json.dumps(handle)},
        )


def record_stop_asked(ctx: Context, attempt_id: int) -> None:
    """The backend was asked to end it; the grace counts from the first time, and no trouble before that is one now."""
    with ctx.database.begin() as connection:
        connection.execute(_STOP_ASKED.of(connection), {"id": attempt_id})


def record_trouble(ctx: Context, replica_id: str, message: str) -> None:
    """Its launch could not be done now; it is tried again, and ``get`` says why it takes time. Not of what was asked to
    end, or has ended, meanwhile: that has its own word."""
    with ctx.database.begin() as connection:
        connection.execute(
            text(
                "UPDATE replicas SET message = left(:message, 4000), version = version + 1 WHERE id = :id"
                " AND state IN ('scheduling', 'preparing', 'starting')"
            ),
            {"id": replica_id, "message": message},
        )


def record_stop_trouble(ctx: Context, replica_id: str, attempt_id: int, message: str) -> None:
    """It could not be asked to end now, or cannot heed that, and is asked again. Beside why it failed, which stays."""
    with ctx.database.begin() as connection:
        values = {"id": replica_id, "attempt_id": attempt_id, "message": message}
        connection.execute(_STOP_TROUBLE.of(connection), values)


_STOP_ASKED = AdaptedToServices(
    lambda known: (
        "UPDATE attempts SET stop_asked_at = coalesce(stop_asked_at, hostler_now())"
        f"{', stop_trouble = NULL' if known else ''} WHERE id = :id"
    )
)
_SET_TROUBLE = """
UPDATE attempts SET stop_trouble = left(:message, 4000)
WHERE id = :attempt_id AND stop_trouble IS DISTINCT FROM left(:message, 4000)
"""
_STOP_TROUBLE = AdaptedToServices(
    lambda known: (
        f"""
WITH told AS (
    UPDATE replicas SET message = left('{STOP_TROUBLE}' || :message, 4000), version = version + 1
    WHERE id = :id AND state = 'stopping' AND (message = '' OR starts_with(message, '{STOP_TROUBLE}'))
        AND message <> left('{STOP_TROUBLE}' || :message, 4000)
)
{_SET_TROUBLE if known else "SELECT 1"}
"""
    )
)


def task_age_s(ctx: Context, task_id: str) -> float:
    """Seconds since the task was asked for."""
    query = text("SELECT extract(epoch FROM hostler_now() - created_at) FROM tasks WHERE id = :id")
    with ctx.database.read() as connection:
        return float(connection.execute(query, {"id": task_id}).scalar() or 0)


def record_diagnostics(ctx: Context, replica_id: str, attempt: int, diagnostics: dict[str, Any]) -> None:
    """Keep the newest diagnostics with the replica."""
    with ctx.database.begin() as connection:
        connection.execute(
            text(
                "UPDATE replicas SET diagnostics = CAST(:diagnostics AS jsonb), version = version + 1"
                " WHERE id = :id AND attempt = :attempt"
            ),
            {"id": replica_id, "attempt": attempt, "diagnostics": json.dumps(diagnostics)},
        )
    ctx.notify(f"replica:{replica_id}")


def recheck(ctx: Context, replica_id: str, delay_s: float) -> None:
    """Look at it again in ``delay_s``."""
    with ctx.database.begin() as connection:
        connection.execute(
            text(
                "UPDATE replicas SET next_check_at = hostler_now() + make_interval(secs => :delay_s)"
                " WHERE id = :id AND released_at IS NULL"
            ),
            {"id": replica_id, "delay_s": delay_s},
        )


def set_launch_phase(ctx: Context, replica_id: str, phase: Phase) -> None:
    """What the open launch of a replica does now, when no worker holds it."""
    with ctx.database.begin() as connection:
        connection.execute(
            text(
                "UPDATE tasks SET phase = :phase, version = version + 1 WHERE replica_id = :id"
                " AND kind IN ('create', 'restart') AND state = 'running' AND lease_token IS NULL"
            ),
            {"id": replica_id, "phase": phase},
        )


def record_suspicion(ctx: Context, *, pool: str, silent: int, of: int, detail: str) -> None:
    """Most of a pool went silent at once: an event instead of a mass verdict."""
    with ctx.database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO events (kind, pool, node, actor, cause, message)"
                " VALUES ('pool_suspect', :pool, :node, 'hostler', 'more than half went silent at once', :message)"
            ),
            {
                "pool": pool,
                "node": ctx.settings.node_name,
                "message": f"{silent} of {of} replicas do not answer; nobody acts until two more looks agree; {detail}",
            },
        )
    ctx.notify("events")


def _lock_launch_tasks(connection: Connection, replica_ids: Iterable[str]) -> dict[str, str]:
    # tasks before replicas, as everywhere
    query = text(
        "SELECT replica_id, id FROM tasks WHERE replica_id = ANY(:ids) AND kind IN ('create', 'restart')"
        " AND state IN ('queued', 'running') ORDER BY id FOR UPDATE"
    )
    return {row.replica_id: row.id for row in connection.execute(query, {"ids": list(replica_ids)})}


def _with_task(move: Move, launches: dict[str, str]) -> Move:
    return replace(move, task_id=launches.get(move.replica_id)) if move.task_id is None else move
