"""A clock that was set back leaves times in the future, before which nobody would act: they are pulled in.

Set forward it needs nothing: what is due early is done early, and a lease that ran out under a living holder is fenced.
Deadlines stay what they are, times that somebody was promised. When a replica is looked at is ``watching``'s and
``rounds``' own.
"""

from __future__ import annotations

from sqlalchemy import text

from app.usecases.context import Context

#: Rows of one kind that one pass takes; the rest is the next pass's.
BATCH = 5000
#: Further ahead than a renewal, a retry or a heartbeat ever is; a smaller step of the clock does no harm.
SLACK_S = 30.0

_HEARTBEATS = (
    "UPDATE {table} SET heartbeat_at = hostler_now()"
    " WHERE heartbeat_at > hostler_now() + make_interval(secs => :ahead_s)"
)
_PULL_IN = (
    # what is locked is being written right now, with a time of its own
    "WITH late AS (SELECT id FROM tasks WHERE lease_expires_at > hostler_now() + make_interval(secs => :ahead_s)"
    " LIMIT :limit FOR UPDATE SKIP LOCKED)"
    " UPDATE tasks t SET lease_expires_at = hostler_now() + make_interval(secs => :lease_s)"
    " FROM late WHERE t.id = late.id",
    "WITH late AS (SELECT id FROM tasks WHERE state = 'queued' AND claims > 0"
    " AND not_before > hostler_now() + make_interval(secs => :ahead_s) LIMIT :limit FOR UPDATE SKIP LOCKED)"
    " UPDATE tasks t SET not_before = NULL FROM late WHERE t.id = late.id",
    "WITH late AS (SELECT replica_id FROM drains WHERE until > hostler_now() + make_interval(secs => seconds + 1)"
    " LIMIT :limit FOR UPDATE SKIP LOCKED)"
    " UPDATE tasks t SET not_before = NULL FROM late"
    " WHERE t.replica_id = late.replica_id AND t.kind = 'stop' AND t.state = 'queued' AND t.not_before IS NOT NULL",
    # the living say so again within seconds
    *(_HEARTBEATS.format(table=table) for table in ("workers", "nodes", "gateways")),
)


def pull_in(ctx: Context) -> int:
    """Bring every time near that is further ahead than it was ever set; how many there were."""
    settings = ctx.settings
    values = {
        "ahead_s": SLACK_S + settings.lease_s,
        "lease_s": settings.lease_s,
        "limit": BATCH,
    }
    found = 0
    for statement in _PULL_IN:
        with ctx.database.begin() as connection:
            used = {name: value for name, value in values.items() if f":{name}" in statement}
            found += connection.execute(text(statement), used).rowcount
    return found
