"""The capability registry: registering a server, who is registered, and ending what should not be any more."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from app.db.repos import registrations as repo
from app.domain.registered import Candidate, joined
from app.domain.routing import RegistrationFacts
from app.errors import Conflict, NameTaken, NotFound, RegistryFull
from app.usecases import paging
from app.usecases.context import Actor, Context
from app.usecases.endpoints import own_port_refused, pin
from app.usecases.registrars import Held, registrar_of
from app.usecases.registry import TOPIC, Registry, registry_of

#: More than were registered since this process last read what is.
UNSEEN = 1000
#: Between two looks whether a registered port was leased to an engine meanwhile.
PORTS_S = 2.0


def register(ctx: Context, actor: Actor, body: Mapping[str, Any]) -> Held:
    """Register a server for as long as the stream lives that the caller is answered with.

    Raises EndpointRefused (403), NameTaken and Conflict (409), InvalidConfig (422), RegistryFull (429), Unavailable.
    """
    registry, registrar = registry_of(ctx), registrar_of(ctx)
    registry.keep_up()
    pinned = pin(ctx, body["endpoint"])
    if registry.is_own((*pinned.addresses, pinned.endpoint.host), pinned.endpoint.port):
        raise own_port_refused(pinned.endpoint)
    _check_room(ctx, registry, body["replica_id"])
    values = {
        "replica_id": body["replica_id"],
        "owner": actor.key_id,
        "actor": actor.name,
        "request_id": actor.request_id,
        "node": ctx.settings.node_name,
        "door": ctx.settings.port,
        "endpoint": body["endpoint"],
        "host": pinned.endpoint.host,
        "port": pinned.endpoint.port,
        "addresses": list(pinned.addresses),
        "address": pinned.addresses[0],
        "local": pinned.local,
        "capabilities": body["capabilities"],
    }
    held = registrar.register(values)
    if held is not None:
        return held
    with ctx.database.read() as connection:
        why = repo.why_not(connection, values)
    if why.leased:
        raise own_port_refused(pinned.endpoint)
    if why.is_replica:
        raise NameTaken(f"{body['replica_id']} is the id of a replica of Hostler's. Register under another one.")
    if why.is_anothers:
        raise NameTaken(f"{body['replica_id']} is registered with another key. Choose another id, or use that key.")
    raise Conflict(f"{body['replica_id']} was ended in this very moment. Send the request again.")


def _check_room(ctx: Context, registry: Registry, replica_id: str) -> None:
    if registry.registered >= ctx.settings.max_registrations - UNSEEN:
        registry.catch_up()
        if registry.registered >= ctx.settings.max_registrations and registry.get(replica_id) is None:
            raise RegistryFull(retry_after_s=10)


def end(ctx: Context, held: Held) -> None:
    """Its stream has ended."""
    registrar_of(ctx).end(held)


def get(ctx: Context, replica_id: str) -> dict[str, Any]:
    """One registration, ended or not, with who holds it and how it is. Raises NotFound."""
    with ctx.database.read() as connection:
        row = repo.read(connection, replica_id)
    if row is None:
        raise _unknown(replica_id)
    return _body(row)


def list_registrations(
    ctx: Context, filters: Mapping[str, Any], limit: int, cursor: str | None
) -> tuple[list[dict[str, Any]], int, str | None]:
    """(registrations by id, total, next cursor); filter ``ended`` shows those that are no more, too."""
    after = paging.decode(cursor, (str,))
    ended = bool(filters.get("ended"))
    with ctx.database.read() as connection:
        rows = repo.page(connection, after=after[0] if after else None, limit=limit + 1, ended=ended)
        total = repo.count(connection, ended=ended)
    more = paging.encode((rows[limit - 1].replica_id,)) if len(rows) > limit else None
    return [_body(row) for row in rows[:limit]], total, more


def remove(ctx: Context, actor: Actor, replica_id: str) -> None:
    """End a registration whoever holds it; its stream is cut. Raises NotFound."""
    gone = ctx.database.change(
        partial(repo.remove, replica_id=replica_id, actor=actor.name, request_id=actor.request_id)
    )
    if not gone:
        raise _unknown(replica_id)
    registry_of(ctx).changed()


@dataclass
class Watch:
    """Ends what nobody keeps any more; one per agent.

    A process that holds streams counts up in its row. Whose count stands still for lease and grace, by the clock of
    this very process and while the database could be asked all the time, holds nothing any more. So a clock that jumps,
    a database that was away and an agent that has just started end no registration whose server is still there.
    """

    _seen: dict[str, tuple[int, float]] = field(default_factory=dict)
    _looked_at: float = float("-inf")
    _ports_at: float = float("-inf")

    def turn(self, ctx: Context) -> int:
        """Look once, every second or so; how many registrations were ended. Raises Unavailable, Collided."""
        patience_s = ctx.settings.register_lease_s + ctx.settings.register_grace_s
        gone = self._still(ctx, patience_s)
        ended = ctx.database.change(repo.end_keyless)
        if gone:
            ended += ctx.database.change(partial(repo.end_lapsed, gone=gone))
        # routes leave such a server out anyway
        if time.monotonic() - self._ports_at >= PORTS_S:
            self._ports_at = time.monotonic()
            ended += ctx.database.change(repo.end_leased)
        if gone:
            ctx.database.change(partial(repo.forget_registrars, gone=gone))
        if ended:
            registry_of(ctx).changed()
        return len(ended)

    def _still(self, ctx: Context, patience_s: float) -> list[str]:
        with ctx.database.read() as connection:
            counts = repo.registrars(connection)
        now = time.monotonic()
        if now - self._looked_at > patience_s / 2:
            # the database was away, or this process was: who waited for it has had no chance to count up
            self._seen.clear()
        self._looked_at = now
        self._seen = {
            one: self._seen[one] if one in self._seen and self._seen[one][0] == count else (count, now)
            for one, count in counts.items()
        }
        return [one for one, (_, since) in self._seen.items() if now - since > patience_s]


def route_facts(rows: Iterable[Any], ours: Mapping[str, str], here: str) -> list[RegistrationFacts]:
    """What the planner of routes takes for ``rows`` of ``answering``, as seen from the host ``here``.

    ``ours`` are the names that Hostler serves, and the model each means.
    """
    reachable = [row for row in rows if row.node == here or not ipaddress.ip_address(row.address).is_loopback]
    candidates = [
        Candidate(row.replica_id, row.since, row.owner, row.role, row.key_models, row.models) for row in reachable
    ]
    models = joined(candidates, ours)
    return [
        RegistrationFacts(row.replica_id, row.generation, row.address, row.port, answers=True, model=model)
        for row in reachable
        for model in models.get(row.replica_id, ())
    ]


def to_probe(ctx: Context) -> list[Any]:
    """Live registrations that this host's API took; its agent asks their servers."""
    with ctx.database.read() as connection:
        return repo.of_node(connection, ctx.settings.node_name)


def record_health(ctx: Context, facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """What probes showed: ``{replica_id, generation, health, speaks, message, address}`` each."""
    if not facts:
        return []
    changed = ctx.database.change(partial(repo.record_health, facts=facts))
    if changed:
        registry_of(ctx).changed()
    return changed


def _body(row: Any) -> dict[str, Any]:
    found = dict(row._mapping)
    state = "ended" if found["ended_at"] is not None else "live"
    shown = {name: value for name, value in found.items() if name not in ("role", "models", "local", "host", "port")}
    return shown | {"state": state}


def _unknown(replica_id: str) -> NotFound:
    return NotFound(f"{replica_id} is not registered. `hostler registration list` shows what is.")


#: What is signalled after each change, for who follows the table himself.
CHANGED = TOPIC
