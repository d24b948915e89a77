"""How the stack is: what `/health` says, whether `/ready` should get traffic, and the numbers of `/metrics`."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from app.db.migrate import standing
from app.db.repos import health as repo
from app.errors import Unavailable
from app.usecases.context import Context
from app.usecases.nodes import SILENT_S
from hostler import __version__

#: Everybody who asks within this time gets the same answer: probes must not load what they probe.
CACHED_S = 1.0
#: Of two processes one must not go on for long about what the other saw mended.
DEGRADED_CACHED_S = 0.1
#: A stop or probe that waits longer than this for a worker is a problem.
CONTROL_LATE_S = 30.0
#: A canary goes round every ten seconds; after three the broker or the worker is to blame.
BROKER_LATE_S = 35.0
#: Processes without which something is not done, and what that is.
ROLES = {
    "worker": "no worker is alive: creates stay queued. `hostler status` shows the processes.",
    "worker-control": "no control worker is alive: stops and probes stay queued. `hostler status` shows the processes.",
    "agent": "no agent is alive: deaths are noticed late. `hostler status` shows the processes.",
}


@dataclass
class Health:
    """The process's view of the stack; one per process, kept for ``CACHED_S``."""

    context: Context
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _until: float = 0.0
    _found: dict[str, Any] = field(default_factory=dict, repr=False)
    _migrated: bool = False

    def read(self) -> dict[str, Any]:
        """The body of `/health`. Never raises for a database that is down: that is a problem it names."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._found = self._look()
                healthy = self._found["status"] == "healthy"
                self._until = time.monotonic() + (CACHED_S if healthy else DEGRADED_CACHED_S)
            return self._found

    def check_ready(self) -> None:
        """Raises Unavailable while this process should get no traffic."""
        with self.context.database.read() as connection:
            repo.slots(connection)
        if not self._migrated:
            found = standing(self.context.database.url)
            # ahead is no trouble: while an upgrade rolls, processes of the version before go on, and may be restarted
            if found.behind:
                detail = (
                    f"Not migrated: {found}. Run `hostler up`, or the deployment's migrate job; `hostler doctor` helps."
                )
                raise Unavailable(detail, retry_after_s=5)
            self._migrated = True

    def _look(self) -> dict[str, Any]:
        try:
            with self.context.database.read() as connection:
                row = repo.summary(connection, SILENT_S, BROKER_LATE_S)
        except Unavailable as error:
            return _body(None, None, 0, [f"database: {error.detail}"])
        problems = [text for role, text in ROLES.items() if role not in row.roles]
        problems += [f"node {name} is silent. `hostler node get {name}` shows it." for name in row.silent_nodes]
        if (row.broker_silent_s or 0) > BROKER_LATE_S:
            problems.append(f"broker: took no message for {row.broker_silent_s:.0f} s; work goes on by sweeps, slower.")
        problems += [f"worker {one} hears nothing from the broker. It is restarted." for one in row.deaf_workers]
        interval_s = self.context.settings.sweep_interval_s
        if row.last_sweep_s is None:
            problems.append("no sweep has run yet: lost signals are not repaired.")
        elif row.last_sweep_s > 3 * interval_s + SILENT_S / 2:
            problems.append(f"the last sweep began {row.last_sweep_s:.0f} s ago; it should every {interval_s:g} s.")
        if (row.oldest_control_s or 0) > CONTROL_LATE_S:
            problems.append(f"a stop or probe has waited {row.oldest_control_s:.0f} s for a control worker.")
        return _body(row.replicas_total, row.replicas_ready, max(0, int(row.seats) - int(row.busy)), problems)


@dataclass(frozen=True)
class Counts:
    """What there is now, as (labels, number)."""

    replicas: list[tuple[tuple[str, ...], int]]
    tasks: list[tuple[tuple[str, ...], int]]
    slots: list[tuple[tuple[str, ...], int]]
    slots_used: list[tuple[tuple[str, ...], int]]


def count(context: Context) -> Counts:
    """Replicas, open tasks and slots. Raises Unavailable when the database is down."""
    with context.database.read() as connection:
        replicas = repo.replicas_by_state(connection)
        tasks = repo.tasks_by_state(connection)
        slots = repo.slots(connection)
    return Counts(
        [((pool, state), number) for pool, state, number in replicas],
        [((pool, kind, state), number) for pool, kind, state, number in tasks],
        [((pool,), all_slots) for pool, all_slots, _ in slots],
        [((pool,), used) for pool, _, used in slots],
    )


def _body(total: int | None, ready: int | None, idle: int, problems: list[str]) -> dict[str, Any]:
    return {
        "status": "degraded" if problems else "healthy",
        "version": __version__,
        "replicas_total": total,
        "replicas_ready": ready,
        "workers_idle": idle,
        "problems": problems,
    }
