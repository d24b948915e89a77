"""What one process of the API holds of the registry: streams, the lease that keeps them, and their ends.

One row says of all its streams that the process lives, and is written every few seconds, however many they are. What
ends does so by generation: the end of an old stream takes nothing from the one that came after it. While the database
is away streams are held and ends are remembered.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from app.db.engine import Database
from app.db.repos import registrations as repo
from app.errors import Collided, Unavailable
from app.usecases.context import Context
from app.usecases.registry import Registry, registry_of

log = logging.getLogger(__name__)

#: Renewals in one lease: two may get lost.
RENEWALS = 3
LONGEST_RENEWAL_S = 5.0
#: A registration whose stream never began was not delivered.
UNDELIVERED_S = 30.0
#: Ends that are written in one statement.
BATCH = 1000
RETRY_S = 1.0
#: Longer than a registration takes from its commit to its stream.
STRAY_S = 15.0
#: How late it is noticed that the process puts its database away.
LOOK_S = 0.5
#: Registrations that are written at one time: the rest of the process's connections is for others.
WRITERS = 6
#: How long a registration waits for its turn when thousands come back at once.
TURN_S = 20.0


@dataclass(eq=False)
class Held:
    """One registration that this process holds. ``cut`` ends its stream from our side."""

    replica_id: str
    generation: int
    since: float = field(default_factory=time.monotonic)
    cut: Callable[[], None] | None = None
    ended: bool = False


def registrar_of(context: Context) -> Registrar:
    """The process's one registrar."""
    with _making:
        found = _registrars.get(context.database)
        if found is None:
            found = _registrars[context.database] = Registrar(context, registry_of(context))
        return found


class Registrar:
    """Streams are given to it when they begin and say when they end; it tells the database."""

    def __init__(self, context: Context, registry: Registry) -> None:
        settings = context.settings
        self.id = f"{settings.node_name}/web/{os.getpid()}/{secrets.token_hex(6)}"
        self._context = context
        self._registry = registry
        self._held: dict[str, list[Held]] = {}
        self._count = 0
        self._lock = threading.Lock()
        self._ends: list[Held] = []
        self._wake = threading.Event()
        self._turns = threading.BoundedSemaphore(WRITERS)
        self._renew_s = min(settings.register_lease_s / RENEWALS, LONGEST_RENEWAL_S)
        #: when the database last heard that this process lives
        self._renewed_at = float("-inf")
        self._lapsed: list[Held] = []
        #: what the database has of this process, until it was compared with what this process has
        self._written: dict[tuple[str, int], float] = {}
        self._running = False
        registry.listeners.append(self._reconcile)

    def __len__(self) -> int:
        return self._count

    def register(self, values: Mapping[str, Any]) -> Held | None:
        """Write a registration and hold it until its stream ends; None when it may not be (``why_not``).

        Give the stream by ``deliver``; one that is not given is ended. Raises Unavailable.
        """
        if not self._turns.acquire(timeout=TURN_S):
            raise Unavailable("Too many servers register at once. Try again.", retry_after_s=2)
        try:
            self._start()
            # a row that was not renewed for long may have been cleared away
            is_known = time.monotonic() - self._renewed_at < self._context.settings.register_lease_s / 2
            begun = time.monotonic()
            write = partial(_write, values={**values, "registrar": self.id}, is_known=is_known)
            generation = self._context.database.change(write)
            if not is_known:
                self._renewed_at = begun
        finally:
            self._turns.release()
        if generation is None:
            return None
        held = Held(values["replica_id"], generation)
        with self._lock:
            self._held.setdefault(held.replica_id, []).append(held)
            self._count += 1
        self._registry.changed()
        return held

    def deliver(self, held: Held, cut: Callable[[], None]) -> None:
        """The stream of ``held`` has begun; ``cut`` will be called when somebody else has the id."""
        held.cut = cut
        if held.ended:
            # taken over or taken out while it was being delivered
            cut()

    def end(self, held: Held) -> None:
        """The stream has ended. Returns at once."""
        with self._lock:
            if held.ended:
                return
            held.ended = True
            beside = self._held[held.replica_id]
            beside.remove(held)
            if not beside:
                del self._held[held.replica_id]
            self._count -= 1
            self._ends.append(held)
        self._registry.drop(held.replica_id, held.generation)
        self._wake.set()

    def _reconcile(self, rows: Sequence[Any]) -> None:
        """Others changed these: cut streams whose id somebody else has now, or that somebody ended."""
        for row in rows:
            if row.registrar == self.id and row.ended_at is None:
                self._written[row.replica_id, row.generation] = time.monotonic()
            for held in list(self._held.get(row.replica_id, ())):
                if held.generation == row.generation and row.end_reason == "lapsed":
                    self._lapsed.append(held)
                    self._wake.set()
                elif held.generation < row.generation or row.ended_at is not None:
                    self.end(held)
                    if held.cut is not None:
                        held.cut()

    def _revive(self) -> None:
        """This process was silent for too long, frozen or cut off; its streams were not."""
        lapsed, self._lapsed = self._lapsed, []
        streams = [(held.replica_id, held.generation) for held in lapsed if not held.ended]
        if not streams:
            return

        def write(connection: Any) -> list[str]:
            repo.keep_registrar(connection, self.id, self._context.settings.node_name)
            return repo.revive(connection, streams, self.id)

        try:
            back = self._context.database.change(write)
        except (Collided, Unavailable):
            self._lapsed += lapsed
            raise
        log.warning("%d registrations had lapsed though their streams are here; they are back", len(back))
        self._registry.changed()

    def _start(self) -> None:
        with self._lock:
            if self._running:
                return
            self._running = True
        self._context.signals.spawn(self._run, "registrar")

    def _run(self) -> None:
        try:
            self._keep()
        finally:
            self._running = False

    def _keep(self) -> None:
        signals = self._context.signals
        while not signals.closed:
            self._wake.wait(min(self._renew_s, LOOK_S))
            self._wake.clear()
            try:
                self._write_ends()
                self._revive()
                self._end_strays()
                if time.monotonic() - self._renewed_at >= self._renew_s * 0.9:
                    self._renew()
            except (Collided, Unavailable) as error:
                log.warning("the registrar waits for the database: %s", error)
                signals.rest(RETRY_S)
                self._wake.set()

    def _end_strays(self) -> None:
        """Registrations that were committed, though the database went away before it could say so: nobody has them."""
        due = [one for one, seen_at in list(self._written.items()) if time.monotonic() - seen_at > STRAY_S]
        strays = [
            (replica_id, generation)
            for replica_id, generation in due
            if all(held.generation != generation for held in self._held.get(replica_id, ()))
        ]
        if strays:
            ended = self._context.database.change(partial(repo.end, streams=strays, reason="closed"))
            if ended:
                log.warning("%d registrations had nobody who heard of them; they are ended", len(ended))
                self._registry.changed()
        for one in due:
            del self._written[one]

    def _write_ends(self) -> None:
        while self._ends:
            batch = self._ends[:BATCH]
            streams = [(held.replica_id, held.generation) for held in batch]
            self._context.database.change(partial(repo.end, streams=streams, reason="closed"))
            del self._ends[: len(batch)]
            self._registry.changed()

    def _renew(self) -> None:
        if not self._count:
            return
        # looked at here too, so that a process with streams knows of changes whoever asks it what
        self._registry.keep_up()
        for held in [one for group in list(self._held.values()) for one in group]:
            if held.cut is None and time.monotonic() - held.since > UNDELIVERED_S:
                self.end(held)
        begun = time.monotonic()
        with self._context.database.begin() as connection:
            repo.keep_registrar(connection, self.id, self._context.settings.node_name)
        self._renewed_at = begun


def _write(connection: Any, values: Mapping[str, Any], *, is_known: bool) -> int | None:
    if not is_known:
        repo.keep_registrar(connection, str(values["registrar"]), str(values["node"]))
    return repo.register(connection, values)


_registrars: weakref.WeakKeyDictionary[Database, Registrar] = weakref.WeakKeyDictionary()
_making = threading.Lock()
