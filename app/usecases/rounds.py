"""Rounds: every few seconds one agent looks at all that serves on a host, or on none, and writes only what changed.

Whose round it is stands in a row of ``sweeps``, so that a round over ten thousand replicas that are well costs one
read, and not a claim of each of them. What is not well, or has changed, is claimed row by row before it is judged: two
that look at once, because one was frozen meanwhile, judge nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import text

from app.domain.lifecycle import SERVING, State
from app.settings import pools_served
from app.usecases.claims import REPLICA_WITH_ATTEMPT
from app.usecases.context import Context

#: (replica id, attempt, status, latency_ms, message); without a status and latency where the backend itself answers.
GoodProbe = tuple[str, int, int | None, float | None, str]

#: States that rounds look at.
ROUND_STATES = (*SERVING, State.UNREACHABLE)
#: The same for SQL: as constants, because partial indexes are chosen by them.
IN_ROUND = ", ".join(f"'{state}'" for state in ROUND_STATES)


def served(column: str = "pool") -> str:
    """For SQL with ``:pools``: what runs on no host of ours is looked at where its pool is served, others may not reach
    it."""
    return f"(CAST(:pools AS text[]) IS NULL OR {column} = ANY(CAST(:pools AS text[])))"


_HOLDER = text("SELECT worker FROM sweeps WHERE name = :name AND tick = 0")
_HOLD = text(
    """
INSERT INTO sweeps (name, tick, worker) VALUES (:name, 0, :worker)
ON CONFLICT (name, tick) DO UPDATE
SET worker = excluded.worker, started_at = hostler_now()
WHERE sweeps.worker IN (excluded.worker, :dead)
   OR sweeps.started_at <= hostler_now() - make_interval(secs => :silent_s)
   -- the clock was set back: nobody's next round is that far away
   OR sweeps.started_at > hostler_now()
RETURNING worker
"""
)
_SERVING_ON = f"SELECT id, xmin FROM replicas WHERE released_at IS NULL AND state IN ({IN_ROUND}) AND node"
_SERVING_HERE = text(f"{_SERVING_ON} = :node")
_SERVING_NOWHERE = text(f"{_SERVING_ON} IS NULL AND {served()}")
_CLAIM = text(
    f"""
WITH due AS MATERIALIZED (
    SELECT r.id FROM replicas r
    WHERE r.id = ANY(:ids) AND r.released_at IS NULL AND r.state IN ({IN_ROUND}) AND (r.next_check_at IS NULL
        OR r.next_check_at <= hostler_now() OR r.next_check_at > hostler_now() + interval '1 minute')
    FOR UPDATE SKIP LOCKED
),
claimed AS (
    UPDATE replicas r SET next_check_at = hostler_now() + make_interval(secs => :interval_s)
    WHERE r.id = ANY(ARRAY(SELECT id FROM due))
    RETURNING r.*, r.xmin AS mark
)
SELECT {REPLICA_WITH_ATTEMPT}, r.mark FROM claimed r
LEFT JOIN attempts a ON a.replica_id = r.id AND a.released_at IS NULL
"""
)
_FRESHEN = text(
    """
UPDATE replicas r SET version = r.version + 1, last_health = r.last_health || jsonb_build_object(
    'healthy', true, 'status', f.status, 'latency_ms', f.latency_ms, 'message', f.message, 'at', CAST(:at AS text))
FROM unnest(CAST(:ids AS text[]), CAST(:attempts AS integer[]), CAST(:statuses AS integer[]),
            CAST(:latencies AS float8[]), CAST(:messages AS text[])) AS f(id, attempt, status, latency_ms, message)
WHERE r.id = f.id AND r.attempt = f.attempt AND r.state = 'ready' AND r.check_failures = 0
RETURNING r.id, r.xmin
"""
)


def hold(ctx: Context, node: str | None, worker: str, is_alive: Callable[[str], bool], silent_s: float) -> bool:
    """Whether the next round over ``node`` (None: what runs on no host of ours) is this worker's.

    It stays with one worker, whose memory of the last rounds is evidence, until that one is seen dead by ``is_alive``
    (asked only about processes of this host) or has begun no round for ``silent_s`` seconds.
    """
    pools = pools_served(ctx.settings)
    # hosts that serve different pools look at different replicas
    name = f"round {node}" if node else "round" if pools is None else f"round of {','.join(pools)}"
    with ctx.database.read() as connection:
        holder = connection.execute(_HOLDER, {"name": name}).scalar() or ""
        near = holder.startswith(f"{ctx.settings.node_name}/")
        dead = holder if near and not is_alive(holder) else ""
        values = {"name": name, "worker": worker, "dead": dead, "silent_s": silent_s}
        return connection.execute(_HOLD, values).first() is not None


def list_serving(ctx: Context, node: str | None) -> dict[str, str]:
    """All that serves on ``node`` (None: on no host of ours, of pools that this one serves): id -> a mark that changes
    with every change of its row."""
    with ctx.database.read() as connection:
        if node is None:
            found = connection.execute(_SERVING_NOWHERE, {"pools": pools_served(ctx.settings)})
        else:
            found = connection.execute(_SERVING_HERE, {"node": node})
        return {row[0]: row[1] for row in found}


def claim(ctx: Context, replica_ids: Sequence[str]) -> list[Any]:
    """Those of them that nobody looked at within the last interval, with their open attempts and new ``mark``.

    Their next look is put off: a verdict counts looks that failed in a row, and those must lie an interval apart.
    """
    values = {"ids": list(replica_ids), "interval_s": ctx.settings.probe_interval_s}
    with ctx.database.begin() as connection:
        return list(connection.execute(_CLAIM, values))


def freshen(ctx: Context, at: str, probes: Sequence[GoodProbe]) -> dict[str, str]:
    """Keep newer probes of what is ready: the one that is shown must not grow old.

    Returns the new marks by id; what is missing changed meanwhile.
    """
    if not probes:
        return {}
    ids, attempts, statuses, latencies, messages = (list(column) for column in zip(*probes, strict=True))
    values = {
        "at": at,
        "ids": ids,
        "attempts": attempts,
        "statuses": statuses,
        "latencies": latencies,
        "messages": messages,
    }
    # one statement, and so its own transaction
    with ctx.database.read() as connection:
        return {row[0]: row[1] for row in connection.execute(_FRESHEN, values)}
