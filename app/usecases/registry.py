"""The registry as one process knows it, in memory: every live registration and every ready replica, by capability.

It follows the database: what changed is read when a signal says so and once a second anyway, by the transactions that
changed it, so that none is missed. Before it answers it looks whether another process of this host has changed
something since (``mark``): who was told that he is registered is found by everybody. What it does not find it looks for
once more in the database before it says so. While the database is away it answers from what it knows.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from app.db.engine import Database
from app.db.repos import ready_replicas
from app.db.repos import registrations as repo
from app.domain.capabilities import Capability, Index, Query, Scalar, is_visible, may_serve, models_of
from app.domain.endpoints import Endpoint
from app.domain.spreading import HandedOut, choose
from app.engines.registry import ENGINES
from app.errors import NoMatch, Unavailable
from app.stack.layout import Layout
from app.usecases import models, paging, reach, tunnels
from app.usecases.beside import Beside
from app.usecases.context import Context
from app.usecases.gateway_load import GatewayLoad
from app.usecases.mark import Mark
from app.usecases.reach import Address
from app.usecases.signals import POLL_S

log = logging.getLogger(__name__)

#: Signalled after each change of a registration.
TOPIC = "registrations"
#: Least time between two looks that signals ask for.
PACE_S = 0.1
#: Nobody asked for so long: the follower ends, and the next one who asks starts it again.
IDLE_S = 60.0
#: After the database was not there, it is asked again only then: until then answers come from memory at once.
RETRY_S = 1.0
#: Longest wait of an answer that can be given from memory for a database that hangs.
PATIENCE_S = 2.0
#: How often HAProxy is asked who is busy, while somebody asks for routes: within the last so many seconds.
BUSY_S, ASKED_S = 1.0, 5.0
#: How old a look at the names in the catalogue may be.
NAMES_S = 5.0
#: Answers to queries that are remembered until something changes.
REMEMBERED = 512

#: Ranks, best first; a server that may not serve the models that it names comes behind all that may.
HEALTHY, UNKNOWN, UNHEALTHY, UNTRUSTED = 0, 1, 2, 3
_RANKS = {"healthy": HEALTHY, "unknown": UNKNOWN, "unhealthy": UNHEALTHY}


@dataclass(frozen=True, slots=True)
class Entry:
    """A server that may be chosen. ``role`` and ``key_models`` are its key's, ``role`` is None for our own replicas."""

    replica_id: str
    endpoint: str
    capabilities: tuple[Capability, ...]
    rank: int
    generation: int = 0
    role: str | None = None
    key_models: Collection[str] | None = None

    def body(self, models: Collection[str] | None = None) -> dict[str, Any]:
        """As the registry shows it to a key that is limited to ``models``."""
        return {
            "replica_id": self.replica_id,
            "endpoint": self.endpoint,
            "capabilities": [dict(one) for one in self.capabilities if is_visible(one, models)],
        }


def registry_of(context: Context) -> Registry:
    """The process's one registry."""
    with _making:
        found = _registries.get(context.database)
        if found is None:
            found = _registries[context.database] = Registry(context)
        return found


class Registry:
    """Safe to be asked by many at once. ``listeners`` are called with the rows of what changed, under no lock."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.mark = Mark(Layout(context.settings.state_dir).run / "registry.mark")
        self.listeners: list[Callable[[Sequence[Any]], None]] = []
        self._reading = threading.Lock()
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._index: Index[str] = Index()
        self._own: dict[str, Any] = {}
        #: this host's open local ends, by replica: what is behind a tunnel is reached there and nowhere else
        self._ends: Mapping[str, Address] = {}
        self._rows: dict[str, Any] = {}
        self._handed = HandedOut()
        self._gateway = GatewayLoad(context.settings)
        self._busy: Mapping[str, int] = {}
        self._routed_at = float("-inf")
        self._found: dict[Any, list[str]] = {}
        self._sorted: list[str] | None = None
        self._names: tuple[frozenset[str], dict[str, tuple[str, ...]]] = (frozenset(), {})
        self._names_read_at = float("-inf")
        #: the oldest transaction that was open when it was read last; None before the first time
        self._since: int | None = None
        self._seen: int | None = None
        self._read_at = float("-inf")
        self._retry_at = float("-inf")
        self._hung: Beside[None] | None = None
        self._used_at = time.monotonic()
        self._following = False

    @property
    def registered(self) -> int:
        """How many servers are registered, as far as is known."""
        return len(self._rows)

    def route(self, query: Query, models: Collection[str] | None = None) -> Entry:
        """A server for the query: healthy before unhealthy, and then whoever has least to do.

        That is what the gateway counts in flight, and how often it was handed out of late.

        ``models`` is what the asking key is limited to. Raises NoMatch; Unavailable while nothing was ever read.
        """
        self.catch_up()
        asked_at = self._routed_at = time.monotonic()
        found = self._best(query, models)
        if not found and self._read_at < asked_at:
            self._refresh_in_time(asked_at)
            found = self._best(query, models)
        while found:
            replica_id = choose(found, self._load, random.sample, time.monotonic())
            entry = self._entries.get(replica_id)
            if entry is not None:
                self._handed.add(replica_id, time.monotonic())
                return entry
            # it went while we chose
            found = self._best(query, models)
        raise NoMatch("no matching replica")

    def page(
        self, limit: int, cursor: str | None, models: Collection[str] | None = None
    ) -> tuple[list[dict[str, Any]], int, str | None]:
        """(servers by id, total, next cursor) of those that a key limited to ``models`` may know of."""
        after = paging.decode(cursor, (str,))
        self._refresh_in_time(time.monotonic())
        with self._lock:
            if self._sorted is None:
                self._sorted = sorted(self._entries)
            ids = self._sorted
            seen = [one for one in map(self._entries.__getitem__, ids) if _may_see(one, models)]
        rest = [one for one in seen if after is None or one.replica_id > after[0]]
        more = paging.encode((rest[limit - 1].replica_id,)) if len(rest) > limit else None
        return [one.body(models) for one in rest[:limit]], len(seen), more

    def get(self, replica_id: str) -> Entry | None:
        """What is known of it now."""
        return self._entries.get(replica_id)

    def is_own(self, addresses: Iterable[str], port: int) -> bool:
        """Whether a ready replica of Hostler's answers there."""
        wanted = {*addresses}
        return any(row.port == port and row.host in wanted for row in list(self._own.values()))

    def catch_up(self) -> None:
        """Know all that was committed on this host before; costs nothing when nothing was."""
        self.keep_up()
        if self.mark.read() != self._seen:
            self._refresh_in_time(self._used_at)

    def keep_up(self) -> None:
        """Know all that was committed a moment ago."""
        self._used_at = time.monotonic()
        if not self._following:
            self._refresh_in_time(self._used_at)
            self._follow()

    def drop(self, replica_id: str, generation: int) -> None:
        """Its stream has ended: this process knows it before the database does."""
        with self._lock:
            row = self._rows.get(replica_id)
            if row is not None and row.generation == generation:
                self._forget(replica_id)
                self._found.clear()
                self._sorted = None

    def changed(self) -> None:
        """This process has committed a change: every process of this host is to know it at once, others soon."""
        self.mark.change()
        self._context.notify(TOPIC, "events")

    def refresh(self, asked_at: float) -> None:
        """Read what changed, unless somebody did so since ``asked_at`` (monotonic).

        Raises Unavailable while nothing was ever read; later it makes do with what is known.
        """
        with self._reading:
            if self._read_at >= asked_at or time.monotonic() < self._retry_at:
                return
            begun, seen = time.monotonic(), self.mark.read()
            try:
                changed = self._read()
            except Unavailable:
                self._retry_at = time.monotonic() + RETRY_S
                if self._since is None:
                    self._retry_at = float("-inf")
                    raise
                log.warning("the registry answers from memory: the database does not")
                return
            self._read_at, self._seen = begun, seen
        if changed:
            for listener in self.listeners:
                listener(changed)

    def _refresh_in_time(self, asked_at: float) -> None:
        """The same for whoever can be answered from memory: a database that hangs is not waited for."""
        if self._since is None:
            self.refresh(asked_at)
        elif self._hung is None or self._hung.is_over:
            beside = Beside(partial(self.refresh, asked_at), "read the registry")
            if beside.wait(PATIENCE_S):
                beside.result()
            else:
                self._hung = beside
                log.warning("the registry answers from memory: the database hangs")

    def _read(self) -> Sequence[Any]:
        """Take in what changed; the registrations among it are returned."""
        with self._context.database.read() as connection:
            # asked first: what commits after that is read again the next time
            xmin = repo.snapshot_xmin(connection)
            since = self._since if self._since is not None and self._since <= xmin else None
            if since is None:
                rows = repo.live(connection)
                own = ready_replicas.all_ready(connection)
            else:
                rows = repo.changed(connection, since)
                touched = ready_replicas.touched(connection, since)
                own = ready_replicas.named(connection, touched) if touched else []
            ends = self._read_ends(connection, own)
            renamed = self._read_names(connection)
        with self._lock:
            before = None
            if since is None:
                # after a first look, or another database than before
                before = set(self._rows) - {row.replica_id for row in rows}
                self._entries.clear()
                self._index = Index()
                self._rows.clear()
                self._own.clear()
            elif renamed:
                for row in [*self._own.values()]:
                    self._put_own(row)
                for row in [*self._rows.values()]:
                    self._put(row)
            for row in own:
                self._put_own(row)
            moved = self._move_ends(ends)
            if since is not None:
                for replica_id in set(touched) - {row.id for row in own}:
                    self._drop_own(replica_id)
            for row in rows:
                self._put(row)
            if since is None or rows or own or renamed or touched or moved:
                self._found.clear()
                self._sorted = None
            self._since = xmin
        if before:
            log.info("%d registrations are no more in this database", len(before))
        return rows

    def _read_ends(self, connection: Any, own: Sequence[Any]) -> Mapping[str, Address]:
        """Local ends that lead somewhere now; asked for only where something is behind a tunnel."""
        if not any(row.behind_tunnel for row in (*own, *self._own.values())):
            return {}
        return reach.open_ends(connection, self._context.settings.node_name)

    def _move_ends(self, ends: Mapping[str, Address]) -> bool:
        """Whether some of ours are reached elsewhere than before."""
        moved = {one for one in {*self._ends, *ends} if self._ends.get(one) != ends.get(one)}
        self._ends = ends
        for replica_id in moved & set(self._own):
            self._put_own(self._own[replica_id])
        return bool(moved)

    def _read_names(self, connection: Any) -> bool:
        """Whether the names that Hostler itself serves, or their aliases, are others than before."""
        if time.monotonic() - self._names_read_at < NAMES_S:
            return False
        self._names_read_at = time.monotonic()
        rows = models.read_all(self._context, connection)
        aliases = {row["name"]: tuple(row["aliases"]) for row in rows}
        found = (frozenset((*aliases, *(one for names in aliases.values() for one in names))), aliases)
        changed, self._names = found != self._names, found
        return changed

    def _put_own(self, row: Any) -> None:
        if row.host is None or row.port is None:
            # a backend where nothing runs
            return
        self._own[row.id] = row
        at = self._ends.get(row.id) if row.behind_tunnel else Address(row.host, row.port)
        if at is None:
            self._entries.pop(row.id, None)
            self._index.remove(row.id)
            return
        kind = _kind_of(row.engine)
        given = _scalars(row.capabilities)
        names = (row.model_name, *self._names[1].get(row.model_name, ()))
        capabilities = tuple({"model": name, **kind, **given} for name in dict.fromkeys(names))
        entry = Entry(row.id, str(Endpoint(at.host, at.port)), capabilities, HEALTHY)
        self._entries[row.id] = entry
        self._index.put(row.id, capabilities)

    def _drop_own(self, replica_id: str) -> None:
        if self._own.pop(replica_id, None) is not None:
            self._entries.pop(replica_id, None)
            self._index.remove(replica_id)

    def _put(self, row: Any) -> None:
        if row.ended_at is not None:
            self._forget(row.replica_id)
            return
        self._rows[row.replica_id] = row
        capabilities = tuple(row.capabilities)
        self._entries[row.replica_id] = Entry(
            row.replica_id, row.endpoint, capabilities, _RANKS[row.health], row.generation, row.role, row.models
        )
        self._index.put(row.replica_id, capabilities)

    def _forget(self, replica_id: str) -> None:
        if self._rows.pop(replica_id, None) is not None:
            self._entries.pop(replica_id, None)
            self._index.remove(replica_id)
            self._handed.forget(replica_id)

    def _best(self, query: Query, models: Collection[str] | None) -> list[str]:
        """Those of the best rank that match; remembered until something changes."""
        asked = (tuple(query), models if models is None else tuple(models))
        found = self._found.get(asked)
        if found is None:
            with self._lock:
                taken = self._names[0] | {row.model_name for row in self._own.values()}
                matching = [self._entries[one] for one in self._index.find(query, models)]
                ranked = [(_rank(entry, taken), entry.replica_id) for entry in matching]
                best = min(ranked, default=(0, ""))[0]
                found = [one for rank, one in ranked if rank == best]
                if len(self._found) >= REMEMBERED:
                    self._found.clear()
                self._found[asked] = found
        return found

    def _load(self, replica_id: str, now: float) -> float:
        return self._busy.get(replica_id, 0) + self._handed.load(replica_id, now)

    def _follow(self) -> None:
        with self._lock:
            if self._following:
                return
            self._following = True
        self._context.signals.spawn(self._run, "registry")

    def _run(self) -> None:
        try:
            self._tail()
        finally:
            # also when it died of a defect: the next one who asks starts it again
            self._following = False

    def _tail(self) -> None:
        signals, busy_at = self._context.signals, float("-inf")
        with signals.subscribe(TOPIC, "events", "models", tunnels.CHANGED) as signal:
            while not signals.closed and time.monotonic() - self._used_at < IDLE_S:
                signal.wait(POLL_S)
                signals.rest(self._read_at + PACE_S - time.monotonic())
                try:
                    self.refresh(time.monotonic())
                except Unavailable:
                    signals.rest(RETRY_S)
                if time.monotonic() - busy_at >= BUSY_S:
                    busy_at = time.monotonic()
                    self._busy = self._gateway.read() if busy_at - self._routed_at < ASKED_S else {}


def _rank(entry: Entry, taken: Collection[str]) -> int:
    """Who may not serve what he says he serves comes behind all who may: he must not draw what is meant for them."""
    if entry.role is None:
        return entry.rank
    role, key_models = entry.role, entry.key_models
    may = all(may_serve(model, role, key_models, taken) for model in models_of(entry.capabilities))
    return entry.rank if may else entry.rank + UNTRUSTED


def _may_see(entry: Entry, models: Collection[str] | None) -> bool:
    return models is None or not entry.capabilities or any(is_visible(one, models) for one in entry.capabilities)


def _kind_of(engine: str) -> dict[str, Scalar]:
    """What replicas of that engine do unless they say otherwise."""
    found = ENGINES.get(engine)
    return {"type": "chat"} if found is not None and found.dialect({}) is not None else {}


def _scalars(given: Mapping[str, Any] | None) -> dict[str, Scalar]:
    """Of a replica's ``capabilities`` those that can be asked for."""
    return {name: value for name, value in (given or {}).items() if isinstance(value, str | int | float | bool)}


_registries: weakref.WeakKeyDictionary[Database, Registry] = weakref.WeakKeyDictionary()
_making = threading.Lock()
