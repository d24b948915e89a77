"""How the stack is: what `/health` says, whether `/ready` should get traffic, and the numbers of `/metrics`."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from app.db.engine import Database
from app.db.migrate import standing
from app.db.repos import health as repo
from app.errors import Unavailable
from app.usecases import defects
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
#: Creates that wait longer than this though their pool has room wait for workers.
LAUNCH_LATE_S = 30.0
#: A sweep that began so long ago and did not finish will not.
SWEEP_LATE_S = 60.0
#: What is put away takes its grace; longer than this something does not die.
CLEANUP_LATE_S = 300.0
#: Processes without which something is not done, and what that is.
ROLES = {
    "worker": "no worker is alive: creates stay queued. `hostler status` shows the processes.",
    "worker-control": "no control worker is alive: stops and probes stay queued. `hostler status` shows the processes.",
    "agent": "no agent is alive: deaths are noticed late. `hostler status` shows the processes.",
}
#: What is looked at, and what it means that nothing was found.
CHECKS = {
    "roles": "workers and agent are alive",
    "nodes": "every host is heard",
    "gateways": "every gateway hears of changes",
    "bells": "messages reach the workers",
    "sweeps": "the repair sweep runs",
    "work": "nothing waits that could be done",
    "pools": "every pool with work has a worker",
    "services": "every service is looked after",
    "orphans": "nothing runs without a record",
    "cleanup": "what ended is gone",
}


@dataclass(frozen=True)
class Problem:
    """``check`` is one of ``CHECKS``, ``text`` what `/health` says, ``fix`` what to type."""

    check: str
    text: str
    fix: str


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
            row = look(self.context.database)
        except Unavailable as error:
            return _body(None, [f"database: {error.detail}"])
        return _body(row, [one.text for one in problems(row, self.context.settings.sweep_interval_s)])


def look(database: Database) -> Any:
    """The stack at one moment, as ``app.db.repos.health`` counts it. Raises Unavailable."""
    with database.read() as connection:
        return repo.summary(connection, SILENT_S, BROKER_LATE_S, LAUNCH_LATE_S, CLEANUP_LATE_S, defects.TOLD_S)


def problems(row: Any, sweep_interval_s: float) -> list[Problem]:
    """What is wrong, what is most in the way first."""
    status = "hostler status"
    found = [Problem("roles", text, status) for role, text in ROLES.items() if role not in row.roles]
    for name in row.silent_nodes:
        show = f"hostler node get {name}"
        found.append(Problem("nodes", f"node {name} is silent. `{show}` shows it.", show))
    for name in row.silent_gateways:
        text = f"gateway {name}: its agent is silent; it routes as before and hears of no change."
        found.append(Problem("gateways", text, "hostler status; hostler gateway list"))
    if (row.broker_silent_s or 0) > BROKER_LATE_S:
        text = f"broker: took no message for {row.broker_silent_s:.0f} s; work goes on by sweeps, slower."
        found.append(Problem("bells", text, status))
    for one in row.deaf_workers:
        found.append(Problem("bells", f"worker {one} hears nothing from the broker. It is restarted.", status))
    found += _sweep_problems(row, sweep_interval_s)
    if (row.oldest_control_s or 0) > CONTROL_LATE_S:
        text = f"a stop or probe has waited {row.oldest_control_s:.0f} s for a control worker."
        found.append(Problem("work", text, "hostler task list --state queued"))
    for pool in row.late_pools:
        text = f"creates of pool {pool} have waited longer than {LAUNCH_LATE_S:.0f} s though it has room."
        found.append(Problem("work", text, "hostler status; set HOSTLER_WORKER_CONCURRENCY higher, or add workers"))
    for pool in row.silent_pools:
        text = f"pool {pool} has work and no worker of it is heard. `hostler pool get {pool}` shows it."
        found.append(Problem("pools", text, f"hostler status; hostler up -d; hostler pool get {pool}"))
    for told in row.defects:
        text = f"{told} It is left alone meanwhile; this is a defect of ours, please report it with the agent's log."
        found.append(Problem("services", text, "hostler status; the agent's log"))
    for name, count in (row.orphans or {}).items():
        text = f"{count} attempts run on node {name} without a record. `hostler gc --dry-run` shows them."
        found.append(Problem("orphans", text, "hostler gc --dry-run"))
    if row.uncleared:
        text = f"{row.uncleared} replicas ended more than {CLEANUP_LATE_S / 60:.0f} min ago and are not gone."
        found.append(Problem("cleanup", text, "hostler replica list --status failed; hostler replica explain ID"))
    return found


def _sweep_problems(row: Any, interval_s: float) -> list[Problem]:
    fix = "hostler status; hostler down --keep-replicas; hostler up -d"
    if row.last_sweep_s is None:
        return [Problem("sweeps", "no sweep has run yet: lost signals are not repaired.", fix)]
    if row.last_sweep_s > 3 * interval_s + SILENT_S / 2:
        text = f"the last sweep began {row.last_sweep_s:.0f} s ago; it should every {interval_s:g} s."
        return [Problem("sweeps", text, fix)]
    unfinished_s = row.first_sweep_s if row.finished_sweep_s is None else row.finished_sweep_s
    if unfinished_s > 3 * interval_s + SWEEP_LATE_S:
        return [Problem("sweeps", f"sweeps begin, and none has finished for {unfinished_s:.0f} s.", fix)]
    return []


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


def _body(row: Any | None, found: list[str]) -> dict[str, Any]:
    """``row`` is None while the database does not answer."""
    return {
        "status": "degraded" if found else "healthy",
        "version": __version__,
        "replicas_total": row and row.replicas_total,
        "replicas_ready": row and row.replicas_ready,
        "workers_idle": max(0, int(row.seats) - int(row.busy)) if row else 0,
        "last_sweep_s": _seconds(row and row.last_sweep_s),
        "oldest_unclaimed_s": _seconds(row and row.oldest_unclaimed_s),
        "silent_pools": list(row.silent_pools) if row else [],
        "problems": found,
    }


def _seconds(age: Any) -> float | None:
    return None if age is None else round(max(0.0, float(age)), 1)
