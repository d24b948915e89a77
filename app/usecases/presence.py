"""Who is here: hosts and their capacity, processes and their heartbeats, backends and what they accept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from sqlalchemy import text

from app.db.repos import leases
from app.usecases.context import Context
from app.usecases.sweeps import take_back_from


@dataclass(frozen=True)
class NodeFacts:
    """What a host has; ``gpus`` is ``[{index, name, ...}]``."""

    cpus: int
    memory_bytes: int
    gpus: Sequence[Mapping[str, Any]]
    boot_id: str
    version: str


@dataclass(frozen=True)
class BackendFacts:
    """What a backend says of itself, for the API to check requests by."""

    name: str
    summary: str
    options_schema: Mapping[str, Any]
    host_bound: bool
    serves_http: bool
    lacks: Iterable[str]


def register_node(ctx: Context, facts: NodeFacts) -> None:
    """Say what this host has, and make its ports and GPUs leasable."""
    name = ctx.settings.node_name
    first, last = ctx.settings.ports
    with ctx.database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO nodes (name, cpus, memory_bytes, gpus, boot_id, version) VALUES (:name, :cpus,"
                " :memory_bytes, CAST(:gpus AS jsonb), :boot_id, :version) ON CONFLICT (name) DO UPDATE SET"
                " cpus = excluded.cpus, memory_bytes = excluded.memory_bytes, gpus = excluded.gpus,"
                " boot_id = excluded.boot_id, version = excluded.version, heartbeat_at = hostler_now()"
            ),
            {
                "name": name,
                "cpus": facts.cpus,
                "memory_bytes": facts.memory_bytes,
                "gpus": json.dumps([dict(gpu) for gpu in facts.gpus]),
                "boot_id": facts.boot_id,
                "version": facts.version,
            },
        )
        # two stacks on one host start at different ports, and so seldom meet
        rotate_by = crc32(ctx.namespace.encode()) % (last - first + 1) or 1
        leases.set_capacity(connection, "port", name, range(first, last + 1), rotate_by)
        leases.set_capacity(connection, "gpu", name, [int(gpu["index"]) for gpu in facts.gpus])


def register_backends(ctx: Context, backends: Iterable[BackendFacts]) -> None:
    """Publish what this version's backends accept."""
    with ctx.database.begin() as connection:
        for backend in backends:
            connection.execute(
                text(
                    "INSERT INTO backends (name, summary, options_schema, host_bound, serves_http, lacks)"
                    " VALUES (:name, :summary, CAST(:schema AS jsonb), :host_bound, :serves_http, :lacks)"
                    " ON CONFLICT (name) DO UPDATE SET summary = excluded.summary,"
                    " options_schema = excluded.options_schema, host_bound = excluded.host_bound,"
                    " serves_http = excluded.serves_http, lacks = excluded.lacks, updated_at = hostler_now()"
                ),
                {
                    "name": backend.name,
                    "summary": backend.summary,
                    "schema": json.dumps(backend.options_schema),
                    "host_bound": backend.host_bound,
                    "serves_http": backend.serves_http,
                    "lacks": sorted(backend.lacks),
                },
            )


def heartbeat_node(ctx: Context, *, canary_sent: bool) -> None:
    """This host is alive; ``canary_sent`` when the broker took a canary for its workers just now."""
    with ctx.database.begin() as connection:
        connection.execute(
            text(
                "UPDATE nodes SET heartbeat_at = hostler_now(),"
                " canary_at = CASE WHEN :sent THEN hostler_now() ELSE canary_at END WHERE name = :name"
            ),
            {"name": ctx.settings.node_name, "sent": canary_sent},
        )


def heartbeat_worker(ctx: Context, worker: str, role: str, pid: int, queues: Sequence[str], concurrency: int) -> float:
    """This process is alive. Returns for how long canaries were sent that it did not hear (0 when it hears)."""
    with ctx.database.begin() as connection:
        row = connection.execute(
            text(
                "INSERT INTO workers (id, node, role, pid, queues, concurrency)"
                " VALUES (:id, :node, :role, :pid, :queues, :concurrency)"
                " ON CONFLICT (id) DO UPDATE SET heartbeat_at = hostler_now(), queues = excluded.queues"
                " RETURNING extract(epoch FROM (SELECT canary_at FROM nodes WHERE name = :node)"
                "   - coalesce(consumed_at, started_at)) AS silent_s"
            ),
            {
                "id": worker,
                "node": ctx.settings.node_name,
                "role": role,
                "pid": pid,
                "queues": list(queues),
                "concurrency": concurrency,
            },
        ).one()
    return max(0.0, float(row.silent_s or 0))


def record_consumed(ctx: Context, process: str) -> None:
    """A canary arrived: messages reach the worker whose id begins with ``process``."""
    query = text("UPDATE workers SET consumed_at = hostler_now() WHERE starts_with(id, :process || '/')")
    with ctx.database.begin() as connection:
        connection.execute(query, {"process": process})


def pools(ctx: Context) -> list[str]:
    """Names of all pools, for a worker to serve."""
    with ctx.database.read() as connection:
        return [name for (name,) in connection.execute(text("SELECT name FROM pools ORDER BY name"))]


def take_back_dead(ctx: Context, is_alive: Callable[[str], bool]) -> int:
    """Take back at once what dead processes of this host still hold, without waiting for their leases."""
    query = text(
        "SELECT DISTINCT claimed_by FROM tasks WHERE lease_token IS NOT NULL AND starts_with(claimed_by, :node || '/')"
        " UNION SELECT id FROM workers WHERE node = :node"
    )
    with ctx.database.read() as connection:
        holders = [row[0] for row in connection.execute(query, {"node": ctx.settings.node_name})]
    dead = [holder for holder in holders if not is_alive(holder)]
    if not dead:
        return 0
    taken = take_back_from(ctx, dead)
    with ctx.database.begin() as connection:
        connection.execute(text("DELETE FROM workers WHERE id = ANY(:ids)"), {"ids": dead})
    return taken
