"""Where a replica's engine is reached from this host: at its own address, or at the local end of its tunnel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from app.db.repos import tunnels as repo
from app.domain.endpoints import Endpoint
from app.usecases.context import Context

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Address:
    """What to connect to."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """``http://10.0.0.7:20001``, ``http://[fd00::7]:20001``."""
        return f"http://{Endpoint(self.host, self.port)}"


@dataclass(frozen=True, slots=True)
class Unreached:
    """There is no way to it now: that says nothing about the engine. ``why`` is for people."""

    why: str


def wants_tunnel(row: Any) -> bool:
    """Whether the replica is on a network that only a tunnel leads to. ``row`` has its ``spec``."""
    return row.spec["resolved"].get("backend_options", {}).get("tunnel") is True


def addresses(ctx: Context, rows: Iterable[Any]) -> dict[str, Address | Unreached]:
    """By replica id where each of ``rows`` that listens is reached from this host, now.

    ``rows`` have ``id, host, port, spec, attempt_id``; those without a port are left out. One question to the database
    for all that want a tunnel, none when there are no such.
    """
    listening = [row for row in rows if row.port is not None]
    through = {row.attempt_id: row for row in listening if wants_tunnel(row)}
    found: dict[str, Address | Unreached] = {
        row.id: Address(row.host or LOOPBACK, row.port) for row in listening if row.attempt_id not in through
    }
    if through:
        here = ctx.settings.node_name
        with ctx.database.read() as connection:
            ends = {end.attempt_id: end for end in repo.leading(connection, here, list(through))}
        found |= {row.id: _local(row, ends.get(attempt), here) for attempt, row in through.items()}
    return found


def address(ctx: Context, row: Any) -> Address | Unreached:
    """The same for one replica."""
    return addresses(ctx, [row]).get(row.id, Unreached("where it listens is not known yet"))


def url(ctx: Context, row: Any) -> str:
    """Where to ask it from here; empty while there is no way to it, and where nothing listens."""
    found = addresses(ctx, [row]).get(row.id)
    return found.url if isinstance(found, Address) else ""


def local_ends(connection: Connection, node: str, rows: Iterable[Any]) -> dict[str, Address]:
    """By replica id the local ends on host ``node``, where ``rows`` (``node, base_url``) may have some. They need not
    be up."""
    if not any(row.node is None and row.base_url for row in rows):
        return {}
    return {end.replica_id: Address(LOOPBACK, end.port) for end in repo.ends(connection, node)}


def open_ends(connection: Connection, node: str) -> dict[str, Address]:
    """By replica id the local ends on host ``node`` that lead to their replica now."""
    return {end.replica_id: Address(LOOPBACK, end.port) for end in repo.ends(connection, node) if end.is_open}


def local_urls(connection: Connection, node: str, rows: Iterable[Any]) -> dict[str, str]:
    """What users of host ``node`` ask instead of the ``base_url`` that others know."""
    return {one: end.url for one, end in local_ends(connection, node, rows).items()}


def _local(row: Any, end: Any | None, here: str) -> Address | Unreached:
    if end is None:
        return Unreached(f"host {here} has no tunnel to it yet")
    # a requeue moves the one before the other
    if end.state == "up" and (end.to_host, end.to_port) == (row.host, row.port):
        return Address(LOOPBACK, end.port)
    return Unreached(f"the tunnel of host {here} to it is {end.state}" + (f": {end.message}" if end.message else ""))
