"""Every table has a bound: what is deleted when, and why the rest cannot grow for ever."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

from app.db.repos import retention as repo
from app.usecases.context import Context

DAY_S = 86400.0
#: Rows of one transaction: a few milliseconds, so that nobody waits for a lock on them.
BATCH = 500
#: What a pass may take in all; the rest is the next pass's.
BUDGET_S = 1.0


@dataclass(frozen=True)
class Kept:
    """Rows go this long after they ended: ``at_most_s``, or the retention setting when that is less."""

    what: str
    at_most_s: float = float("inf")


@dataclass(frozen=True)
class Bounded:
    """Nothing is deleted by age: the table cannot grow by itself."""

    why: str


#: In the order of deletion: what refers to others goes before them.
BOUNDS: dict[str, Kept | Bounded] = {
    "idempotency": Kept("keys, after they were used", DAY_S),
    "sweeps": Kept("ticks", 3600.0),
    "workers": Kept("processes, after their last heartbeat", 600.0),
    "replicas": Kept("stopped and failed replicas, after they were seen gone; with their tasks, attempts and logs"),
    "services": Kept("cancelled services, after all of them was seen gone; with their revisions"),
    "tasks": Kept("ended tasks, of living replicas too"),
    "attempts": Kept("earlier attempts of a replica, after they were seen gone; with their logs"),
    "leases": Kept("the history of who held what, after it was given back"),
    "events": Kept("the history"),
    "registrations": Kept("registrations, after they ended; their events are the history", DAY_S),
    "nodes": Kept("hosts, after their last heartbeat, when nothing of them is open"),
    "units": Kept("slots, ports and GPUs of pools and hosts that are gone, once no lease names them", 0.0),
    "keys": Kept("revoked and expired keys that own no replica"),
    "backends": Bounded("one row per backend of this version"),
    "clock": Bounded("one row"),
    "drains": Bounded("one row per replica that is being drained; goes with the drain"),
    "gateways": Bounded("one row per gateway host, until it is forgotten"),
    "gateway_servers": Bounded("one row per gateway and replica it may route to; goes when HAProxy has it no more"),
    "lifecycle_edges": Bounded("one row per legal step"),
    "log_chunks": Bounded("a few MiB per log that is read on another host; goes with the copy"),
    "log_copies": Bounded("16 per attempt at most; an agent deletes those that nobody reads any more"),
    "models": Bounded("one row per model that somebody registered, until it is deleted"),
    "pools": Bounded("one row per pool that somebody made, until it is deleted"),
    "registrars": Bounded("one row per process of the API; an agent deletes those that are gone and hold nothing"),
    "replica_counts": Bounded("folded by every sweep to one row per state, mode, model, pool and owner in use"),
    "replica_labels": Bounded("one row per label of a replica; goes with it"),
    "service_hints": Bounded("taken away by whoever reconciles, those of what is no service too"),
    "service_members": Bounded("one row per replica of a service; goes with it"),
    "service_revisions": Kept("revisions that no replica has and no service wants"),
    "stack": Bounded("one row"),
    "tunnels": Bounded("one row per attempt and host that reaches it so; goes with the attempt"),
}


def forget_old(ctx: Context) -> int:
    """Delete what has been kept long enough, for ``BUDGET_S`` at most; returns how many rows went.

    What is below the history's new beginning is missed by a stream that comes back for it: it is told
    (``app.usecases.events.follow``).
    """
    until = time.monotonic() + BUDGET_S
    kept_s = ctx.settings.retention_days * DAY_S
    left = {table: min(bound.at_most_s, kept_s) for table, bound in BOUNDS.items() if isinstance(bound, Kept)}
    forgotten = replicas = 0
    # a batch of each in turn, so that one that is far behind starves no other
    while left:
        for table, keep_s in list(left.items()):
            count = ctx.database.change(partial(repo.forget, table=table, keep_s=keep_s, limit=BATCH))
            forgotten += count
            replicas += count if table == "replicas" else 0
            if count < BATCH:
                del left[table]
        if time.monotonic() >= until:
            break
    if replicas:
        ctx.notify("events")
    return forgotten
