"""Tunnels: for which attempts this host keeps a local end, by which of its ports, and how each stands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from app.db.repos import leases
from app.db.repos import tunnels as repo
from app.db.repos.newer import knows_services
from app.domain.endpoints import Endpoint
from app.usecases.context import Context

#: Wakes who routes and who keeps tunnels.
CHANGED = "tunnels"


@dataclass(frozen=True)
class Far(Endpoint):
    """Where an attempt answers, as the host at the other end of the tunnel names it."""


@dataclass(frozen=True)
class Wanted:
    """An attempt that this host reaches by a tunnel only, and its local end as it is stored (``port`` None: none)."""

    attempt_id: int
    name: str
    far: Far
    #: the pool's option ``ssh``: by which host it is reached
    ssh: Mapping[str, Any] = field(hash=False)
    port: int | None = None
    state: str = ""
    #: where the stored local end led when it was stored
    led_to: Far | None = None


@dataclass(frozen=True)
class Left:
    """A stored local end of this host that leads nowhere any more: its attempt is gone."""

    attempt_id: int
    port: int


def read(ctx: Context) -> tuple[list[Wanted], list[Left]]:
    """What this host should keep, and what it still has of attempts that are gone. Raises Unavailable."""
    with ctx.database.read() as connection:
        if not knows_services(connection):
            return [], []
        rows = repo.wanted(connection, ctx.settings.node_name)
        left = repo.left(connection, ctx.settings.node_name)
    return [_wanted(row) for row in rows], [Left(row.attempt_id, row.port) for row in left]


def lease_end(ctx: Context, one: Wanted) -> int | None:
    """A port of this host, leased to the attempt as its local end.

    None while there is none: the attempt is gone, no port of HOSTLER_PORTS is free, or a gateway of this host still
    routes to the local end that the attempt had before.
    """
    node = ctx.settings.node_name

    def act(connection: Connection) -> int | None:
        if not repo.lock_attempt(connection, one.attempt_id) or repo.is_routed(connection, one.attempt_id, node):
            return None
        held = repo.port_of(connection, one.attempt_id, node)
        if held is not None:
            return held
        taken = leases.take(connection, "port", node, 1, one.attempt_id, one.name)
        if taken:
            repo.insert(connection, one.attempt_id, node, taken[0], one.far.host, one.far.port)
        return taken[0] if taken else None

    return ctx.database.change(act)


def record(ctx: Context, attempt_id: int, *, state: str, message: str, far: Far) -> None:
    """How the local end of an attempt stands: ``opening``, ``up`` or ``down``."""
    with ctx.database.begin() as connection:
        changed = repo.record(connection, attempt_id, ctx.settings.node_name, state, message[:1000], far.host, far.port)
    if changed:
        ctx.notify(CHANGED)


def forget(ctx: Context, ends: Iterable[tuple[int, int]]) -> None:
    """Nothing of ours listens on these (attempt, port) any more: their ports are given back.

    Who may still be routing to one keeps it from being leased again (``PORT_IS_FREE``).
    """
    node = ctx.settings.node_name
    found = list(ends)

    def act(connection: Connection) -> None:
        for attempt_id, port in found:
            if repo.delete(connection, attempt_id, node, port):
                leases.give_back(connection, "port", node, [port], attempt_id)

    if found:
        ctx.database.change(act)
        ctx.notify(CHANGED)


def _wanted(row: Any) -> Wanted:
    led_to = Far(row.to_host, row.to_port) if row.to_host is not None else None
    return Wanted(row.attempt_id, row.name, Far(row.host, row.port), row.ssh, row.local_port, row.state or "", led_to)
