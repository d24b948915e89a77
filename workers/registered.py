"""Servers that others registered with this host's API: asked whether they answer, as strangers and never as engines.

No key of ours goes along, no redirect is followed, of an answer no more is read than its head and a bounded body, and
the addresses are those that were pinned when the server was registered. What is asked is a GET.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.domain.registered import Seen, verdict
from app.errors import Collided, Unavailable
from app.usecases import registrations
from app.usecases.context import Context
from workers.probes.batch import Prober
from workers.probes.wire import ProbeResult, ProbeTarget

log = logging.getLogger(__name__)

#: A look at who is due; a signal that somebody new is there makes it sooner.
LOOK_S = 1.0
#: How old the list of registered servers may be when no signal says that it changed.
LIST_S = 5.0
#: Least time between two looks.
PACE_S = 0.1
#: Servers that are asked in one second: more of them are each asked less often.
PER_SECOND = 1000
#: A server that takes longer to say that it lives is no better than one that does not.
ANSWER_S = 2.0
#: Probes in flight: strangers may all hang at once, and engines of ours are asked by others meanwhile.
AT_ONCE = 500
#: `/api/v1/registrations` shows when a server answered last, no older than this.
FRESH_S = 60.0
#: Failed looks in a row that make a server that answered unhealthy.
FAILURES = 2

HEALTH, MODELS, V2 = "/health", "/v1/models", "/v2/health/ready"


@dataclass(frozen=True)
class Known:
    """A registered server as this agent knows it. Times are monotonic."""

    replica_id: str
    generation: int
    addresses: tuple[str, ...]
    address: str
    port: int
    health: str
    speaks: str | None
    next_at: float = 0.0
    written_at: float = 0.0
    failures: int = 0


class Registered:
    """Asks each once per probe interval, a new one at once, and writes what changed in one statement."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._known: dict[str, Known] = {}
        self._listed_at = float("-inf")
        self._watch = registrations.Watch()

    def run(self, stop: threading.Event) -> None:
        """Until ``stop``."""
        topics = (registrations.CHANGED, "keys")
        with Prober(at_once=AT_ONCE, kept=0) as prober, self._ctx.signals.subscribe(*topics) as signal:
            while not stop.is_set():
                try:
                    self._watch.turn(self._ctx)
                    self.look(prober)
                except (Collided, Unavailable) as error:
                    log.warning("registered servers are not looked after: %s", error)
                    # what was seen and not written is to be seen again
                    self._known.clear()
                    self._listed_at = float("-inf")
                    stop.wait(LOOK_S)
                # a crowd that comes in one by one is read in one go
                stop.wait(PACE_S)
                if signal.wait(LOOK_S):
                    self._listed_at = float("-inf")

    def look(self, prober: Prober) -> int:
        """Ask all that are due; how many."""
        now = time.monotonic()
        if now - self._listed_at >= LIST_S:
            self._known = self._read()
            self._listed_at = now
        # new ones first; a crowd of strangers that all hang must not keep the next one from being looked at
        due = sorted((one for one in self._known.values() if one.next_at <= now), key=_by_time)[:PER_SECOND]
        if not due:
            return 0
        facts = []
        for one, seen in zip(due, self._ask(prober, due), strict=True):
            after = self._judged(one, seen)
            self._known[one.replica_id] = after
            changed = (after.health, after.speaks, after.address) != (one.health, one.speaks, one.address)
            if changed or (after.health == "healthy" and now - one.written_at > FRESH_S):
                self._known[one.replica_id] = replace(after, written_at=now)
                facts.append(_fact(after, seen))
        registrations.record_health(self._ctx, facts)
        return len(due)

    def _read(self) -> dict[str, Known]:
        found = {}
        for row in registrations.to_probe(self._ctx):
            before = self._known.get(row.replica_id)
            if before is None or before.generation != row.generation:
                before = Known(
                    row.replica_id,
                    row.generation,
                    tuple(row.addresses),
                    row.address,
                    row.port,
                    row.health,
                    row.speaks,
                )
            found[row.replica_id] = before
        return found

    def _judged(self, one: Known, seen: Seen) -> Known:
        failures = 0 if seen.health == "healthy" else one.failures + 1
        # one that answered is given another try: a look may come in the moment of a restart
        is_doubtful = one.health == "healthy" and 0 < failures < FAILURES
        return replace(
            one,
            health=one.health if is_doubtful else seen.health,
            speaks=seen.speaks or one.speaks,
            address=seen.address,
            failures=failures,
            next_at=time.monotonic() + self._interval_s / (2 if is_doubtful else 1),
        )

    @property
    def _interval_s(self) -> float:
        return max(self._ctx.settings.probe_interval_s, len(self._known) / PER_SECOND)

    def _ask(self, prober: Prober, due: Sequence[Known]) -> list[Seen]:
        """Each at the address that answered before; who does not is asked at its others, who does what it speaks."""
        found = self._asked(prober, [(one, one.address) for one in due], HEALTH)
        for one in due:
            for address in one.addresses:
                if not found[one.replica_id][1].heard and address != one.address:
                    found |= self._asked(prober, [(one, address)], HEALTH)
        new = [
            (one, found[one.replica_id][0])
            for one in due
            if one.speaks is None and found[one.replica_id][1].status is not None
        ]
        models, v2 = self._asked(prober, new, MODELS), self._asked(prober, new, V2)
        return [
            verdict(
                found[one.replica_id][0],
                found[one.replica_id][1],
                models.get(one.replica_id, (one.address, None))[1],
                v2.get(one.replica_id, (one.address, None))[1],
            )
            for one in due
        ]

    @staticmethod
    def _asked(prober: Prober, whom: Sequence[tuple[Known, str]], path: str) -> dict[str, tuple[str, ProbeResult]]:
        targets = [ProbeTarget(address, one.port, path, timeout_s=ANSWER_S) for one, address in whom]
        results = prober.probe(targets)
        return {one.replica_id: (address, result) for (one, address), result in zip(whom, results, strict=True)}


def _by_time(one: Known) -> float:
    return one.next_at


def _fact(one: Known, seen: Seen) -> Mapping[str, Any]:
    return {
        "replica_id": one.replica_id,
        "generation": one.generation,
        "health": one.health,
        "speaks": one.speaks,
        "message": seen.message,
        "address": one.address,
    }
