"""The route table as the database has it now, for one gateway."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from app.db.repos import gateways as gateways_repo
from app.db.repos import registrations as registrations_repo
from app.db.repos import routes as repo
from app.db.repos import tunnels as tunnels_repo
from app.domain.lifecycle import State
from app.domain.routing import ModelFacts, ReplicaFacts, RouteTable, plan_routes
from app.engines.gguf_files import scan_models
from app.engines.registry import ENGINES, STORES
from app.usecases.context import Context
from app.usecases.gateways import gateway_id
from app.usecases.reach import LOOPBACK
from app.usecases.registrations import route_facts

#: More at once than any engine of ours takes, and a number that HAProxy takes.
_MOST = 100_000


@dataclass(frozen=True)
class Read:
    """One moment: the table, the servers that this gateway may be routing to by its own rows, and who may ask.

    ``keys`` are rows of (id, hash, role, models, limits, expires_at).
    """

    table: RouteTable
    held: frozenset[str]
    keys: tuple[Any, ...] = ()


@dataclass
class TableReader:
    """Reads the table again and again; what cannot change of an attempt is read once."""

    ctx: Context
    #: by replica, attempt and where it runs, which a cluster may change
    _known: dict[tuple[str, int, str], ReplicaFacts] = field(default_factory=dict)
    #: of those, which are reached by the local end of a tunnel only
    _tunnelled: set[tuple[str, int, str]] = field(default_factory=set)
    #: names in use that were seen to be models', and not only stores'
    _models: set[str] = field(default_factory=set)

    def read(self) -> Read:
        """All of it in one snapshot. Raises Unavailable or Collided: then nothing is known to have changed."""
        files = [ModelFacts(file.name) for file in scan_models(self.ctx.settings.models_dir)]
        with self.ctx.database.begin() as connection:
            repo.begin_snapshot(connection)
            rows = repo.members(connection)
            missing = [row.id for row in rows if _key(row) not in self._known]
            details = repo.details(connection, missing)
            ends = {}
            if self._tunnelled or any(row.tunnelled for row in details):
                found = tunnels_repo.ends(connection, self.ctx.settings.node_name)
                ends = {(end.replica_id, end.number): end for end in found}
            in_use = repo.models_in_use(connection)
            self._models &= set(in_use)
            self._models |= repo.serving(connection, [name for name in in_use if name not in self._models], STORES)
            catalogue = repo.catalogue(connection)
            registered = registrations_repo.answering(connection)
            held = gateways_repo.held(connection, gateway_id(self.ctx.settings))
            keys = repo.live_keys(connection)
        self._remember(rows, details)
        named = {row.name: ModelFacts(row.name, tuple(row.aliases)) for row in catalogue}
        models = {model.name: model for model in files} | named
        known = {name for model in models.values() for name in (model.name, *model.aliases)}
        models |= {name: ModelFacts(name) for name in in_use if name in self._models and name not in known}
        ours = {name: model.name for model in models.values() for name in (*model.aliases, model.name)}
        registrations = route_facts(registered, ours, self.ctx.settings.node_name)
        table = plan_routes(self._facts(rows, ends), models.values(), registrations)
        return Read(table, frozenset(held), tuple(keys))

    def _remember(self, rows: list[Any], details: list[Any]) -> None:
        here = {_key(row) for row in rows}
        self._known = {key: facts for key, facts in self._known.items() if key in here}
        self._tunnelled &= here
        for row in details:
            self._known[_key(row)] = _facts(row)
            if row.tunnelled:
                self._tunnelled.add(_key(row))

    def _facts(self, rows: list[Any], ends: Mapping[tuple[str, int], Any]) -> list[ReplicaFacts]:
        found = []
        for row in rows:
            key = _key(row)
            facts = replace(self._known[key], state=State(row.state))
            if key not in self._tunnelled:
                found.append(facts)
            elif key[:2] in ends:
                found.append(_at_local_end(facts, ends[key[:2]]))
        return [facts for facts in found if _is_reachable(facts, self.ctx.settings.node_name)]


def _key(row: Any) -> tuple[str, int, str]:
    return row.id, row.attempt, row.base_url


def _facts(row: Any) -> ReplicaFacts:
    engine = ENGINES.get(row.engine)
    config: Mapping[str, Any] = row.config or {}
    return ReplicaFacts(
        id=row.id,
        attempt=row.attempt,
        state=State.PENDING,
        model=row.model_name,
        ip=urlsplit(row.base_url).hostname,
        port=row.port,
        pool=row.pool,
        node=row.node or "",
        service=row.service_id or "",
        service_name=row.service_name or "",
        # an engine that this version does not know is asked for what most have
        check_path=engine.readiness(config).path if engine else "/health",
        max_concurrency=_limit(row.gateway_config, engine.max_concurrency(config) if engine else None),
        serves_models=row.engine not in STORES,
    )


def _at_local_end(facts: ReplicaFacts, end: Any) -> ReplicaFacts:
    """As this host reaches it. An end that does not lead there takes nothing, whatever the replica's state."""
    if not end.is_open and facts.state is not State.STOPPING:
        facts = replace(facts, state=State.UNHEALTHY)
    return replace(facts, ip=LOOPBACK, port=end.port)


def _limit(gateway_config: Any, of_engine: int | None) -> int:
    said = (gateway_config or {}).get("max_concurrency")
    # a create of an older version took any value there
    if isinstance(said, int) and not isinstance(said, bool) and 1 <= said <= _MOST:
        return said
    return of_engine or 0


def _is_reachable(facts: ReplicaFacts, here: str) -> bool:
    """Another host's loopback address means somebody else here."""
    if not facts.node or facts.node == here or facts.ip is None:
        return True
    try:
        return not ipaddress.ip_address(facts.ip).is_loopback
    except ValueError:
        return facts.ip != "localhost"
