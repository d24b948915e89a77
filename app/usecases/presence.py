"""Who is here: hosts and their capacity, processes and their heartbeats, backends and what they accept."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from sqlalchemy import text

from app.db.repos import leases
from app.db.repos.newer import AdaptedToServices
from app.settings import pools_served
from app.usecases.context import Context
from app.usecases.nodes import SILENT_S

#: Two hosts of one name would each find the other's replicas gone: the name is his who was heard of last, until he is
#: silent. What is told apart is host, boot and state dir. Versions before 0.4.0 write no ``home``.
_OURS = "coalesce(nodes.attributes->>'home', :home) = :home"
_REGISTER = AdaptedToServices(
    lambda known: (
        f"""
INSERT INTO nodes (name, address, cpus, memory_bytes, gpus, boot_id, version, attributes{", pools" if known else ""})
VALUES (:name, :address, :cpus, :memory_bytes, CAST(:gpus AS jsonb), :boot_id, :version,
    jsonb_build_object('home', CAST(:home AS text)){", CAST(:pools AS text[])" if known else ""})
ON CONFLICT (name) DO UPDATE SET address = excluded.address, cpus = excluded.cpus,
    memory_bytes = excluded.memory_bytes, gpus = excluded.gpus, boot_id = excluded.boot_id, version = excluded.version,
    attributes = nodes.attributes - 'left' || excluded.attributes{", pools = excluded.pools" if known else ""},
    heartbeat_at = hostler_now()
WHERE {_OURS} OR nodes.heartbeat_at <= hostler_now() - make_interval(secs => :silent_s)
RETURNING name
"""
    )
)


class NodeTaken(Exception):
    """Another host, or another state dir of this one, is alive under this node's name. The message says what to do."""


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
    """Say what this host has, and make its ports and GPUs leasable. Raises NodeTaken."""
    name = ctx.settings.node_name
    pools = pools_served(ctx.settings)
    first, last = ctx.settings.ports
    with ctx.database.begin() as connection:
        registered = connection.execute(
            _REGISTER.of(connection),
            {
                "name": name,
                "address": ctx.settings.node_address,
                "home": home(ctx, facts.boot_id),
                "pools": pools,
                "silent_s": SILENT_S,
                "cpus": facts.cpus,
                "memory_bytes": facts.memory_bytes,
                "gpus": json.dumps([dict(gpu) for gpu in facts.gpus]),
                "boot_id": facts.boot_id,
                "version": facts.version,
            },
        ).first()
        if registered is None:
            raise NodeTaken(_taken(name))
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


def home(ctx: Context, boot_id: str) -> str:
    """What tells this host, in this boot and with this state dir, from every other."""
    return f"{boot_id[:8]}:{ctx.settings.state_dir}"


def record_left(ctx: Context) -> None:
    """This host left on purpose: that it is silent from now on is no problem, unless something still runs there."""
    query = text(
        "UPDATE nodes SET attributes = attributes || jsonb_build_object('left', hostler_now()) WHERE name = :name"
    )
    with ctx.database.begin() as connection:
        connection.execute(query, {"name": ctx.settings.node_name})


def holder_of_name(ctx: Context, boot_id: str) -> str:
    """Why this host cannot have its name now; empty when it can."""
    query = text(
        f"SELECT 1 FROM nodes WHERE name = :name AND NOT ({_OURS})"
        " AND heartbeat_at > hostler_now() - make_interval(secs => :silent_s)"
    )
    name = ctx.settings.node_name
    with ctx.database.read() as connection:
        found = connection.execute(query, {"name": name, "home": home(ctx, boot_id), "silent_s": SILENT_S}).first()
    return _taken(name) if found else ""


def heartbeat_node(ctx: Context, boot_id: str, *, canary_sent: bool) -> bool:
    """This host is alive; ``canary_sent`` when the broker took a canary for its workers just now. False when its row is
    gone, or another host's by now."""
    query = text(
        "UPDATE nodes SET heartbeat_at = hostler_now(),"
        f" canary_at = CASE WHEN :sent THEN hostler_now() ELSE canary_at END WHERE name = :name AND {_OURS}"
    )
    values = {"name": ctx.settings.node_name, "sent": canary_sent, "home": home(ctx, boot_id)}
    with ctx.database.begin() as connection:
        return bool(connection.execute(query, values).rowcount)


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
    """Names of the pools that this host's workers serve: all there are, or those of its settings that there are."""
    wanted, found = pools_served(ctx.settings), all_pools(ctx)
    return found if wanted is None else [name for name in found if name in wanted]


def all_pools(ctx: Context) -> list[str]:
    """Names of all pools."""
    with ctx.database.read() as connection:
        return [name for (name,) in connection.execute(text("SELECT name FROM pools ORDER BY name"))]


def are_heard(ctx: Context, pids: Collection[int]) -> bool:
    """Whether every one of these processes of this host has said that it is there."""
    query = text(
        "SELECT count(DISTINCT pid) FROM workers WHERE node = :node AND pid = ANY(:pids)"
        " AND heartbeat_at > hostler_now() - make_interval(secs => :silent_s)"
    )
    values = {"node": ctx.settings.node_name, "pids": list(pids), "silent_s": SILENT_S}
    with ctx.database.read() as connection:
        return bool(connection.execute(query, values).scalar() == len(set(pids)))


def _taken(name: str) -> str:
    return (
        f"another host, or another state dir of this one, is up as node {name}; `hostler node get {name}` shows it."
        " Give this one a name of its own: HOSTLER_NODE_NAME"
    )


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
    # an agent has it loaded; who asks who is present need not load all that a sweep does
    from app.usecases.sweeps import take_back_from

    taken = take_back_from(ctx, dead)
    with ctx.database.begin() as connection:
        connection.execute(text("DELETE FROM workers WHERE id = ANY(:ids)"), {"ids": dead})
    return taken
