"""The worker side as real processes: worker, control worker, beat and agent against a database of their own.

``running_crew`` starts them once and hands out a ``Crew``: what a test asks for, waits for, kills and counts.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from sqlalchemy import text

from app.settings import Settings, env_name
from app.usecases.context import Actor, Context
from app.usecases.creates import request_create
from app.usecases.outcomes import TaskOutcome
from app.usecases.stops import request_stop
from tests.support.embedded import wait_until
from workers.backends.proc import MARK

ROOT = Path(__file__).resolve().parents[2]
ROLES = {
    "worker": ("-m", "workers.run", "worker"),
    "worker-control": ("-m", "workers.run", "worker-control"),
    "beat": ("-m", "workers.run", "beat"),
    "agent": ("-m", "workers.agent"),
}
_NOISE = ("hostler.sweep", "hostler.canary", "Sending due task", "'nothing to claim'")
#: Roles that write a heartbeat; beat does not.
HEARD = ("worker", "worker-control", "agent")
#: The machine may be busy with other things; nothing waits longer than it must.
WAIT_S = 30.0


@dataclass
class Crew:
    """The running processes and what tests do with them."""

    settings: Settings
    ctx: Context
    actor: Actor
    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    # -- processes

    def start(self, role: str) -> None:
        """Start a role, again if it was killed. Returns before it works."""
        bound = ["setpriv", "--pdeathsig", "TERM", "--"] if shutil.which("setpriv") else []
        with open(self.folder / f"{role}.log", "ab") as log:
            self.processes[role] = subprocess.Popen(
                [*bound, sys.executable, *ROLES[role]],
                env=environment(self.settings),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self, role: str) -> None:
        """SIGKILL to the role's whole session, as a power cut would; returns when nothing of it runs."""
        process = self.processes.pop(role)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(WAIT_S)

    def await_heartbeat(self, role: str) -> None:
        """Until the running process of that role has written its row."""
        process = self.processes[role]

        def heard() -> bool:
            assert process.poll() is None, f"{role} ended with {process.returncode}:\n{self.log(role)}"
            return bool(
                self.rows("SELECT 1 FROM workers WHERE role = :role AND pid = :pid", role=role, pid=process.pid)
            )

        wait_until(heard, 60, f"a heartbeat of {role}")

    def log(self, role: str, tail: int = 4000) -> str:
        path = self.folder / f"{role}.log"
        return path.read_text(errors="replace")[-tail:] if path.exists() else ""

    def logs(self, tail: int = 4000) -> str:
        """The ends of all logs, without what says nothing."""
        parts = []
        for role in ROLES:
            lines = self.log(role, 20 * tail).splitlines()
            told = [line for line in lines if not any(word in line for word in _NOISE)]
            parts.append("\n".join([f"== {role}", *told])[-tail:])
        return "\n".join(parts)

    def stop(self) -> None:
        """End every process, politely and then not, and every engine that a test left."""
        for process in self.processes.values():
            process.terminate()
        stuck = []
        for role, process in self.processes.items():
            # warm shutdown waits for the task at hand, a second SIGTERM would not
            try:
                process.wait(WAIT_S)
            except subprocess.TimeoutExpired:
                # Celery's workers then write down where each thread is
                process.send_signal(signal.SIGUSR1)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(2)
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait(WAIT_S)
                stuck.append(f"{role} did not end on SIGTERM:\n{self.log(role, 20000)}")
        assert not stuck, "\n".join(stuck)

    # -- what tests ask for

    def create(self, model: str = "m", *, pool: str = "local", mode: str = "replica_mock", **body: Any) -> str:
        """Ask for a replica; ``mock={...}`` are the mock engine's knobs, ``options={...}`` the backend's."""
        config = dict(body.pop("replica_config", {}))
        for name, place in (("mock", "mock"), ("options", "backend_options")):
            if name in body:
                config[place] = body.pop(name)
        body |= {"server_mode": mode, "model_name": model, "pool": pool, "replica_config": config}
        return request_create(self.ctx, self.actor, body).replica_id

    def stop_replica(self, replica_id: str, **more: Any) -> TaskOutcome:
        return request_stop(self.ctx, self.actor, replica_id, **more)

    def end(self, *replica_ids: str) -> None:
        """Stop at once and wait until nothing is left of them."""
        for replica_id in replica_ids:
            self.stop_replica(replica_id, force=True)
        for replica_id in replica_ids:
            self.await_released(replica_id)

    # -- what tests look at

    def rows(self, query: str, **values: Any) -> list[Any]:
        with self.ctx.database.read() as connection:
            return list(connection.execute(text(query), values))

    def change(self, query: str, **values: Any) -> None:
        with self.ctx.database.begin() as connection:
            connection.execute(text(query), values)

    def replica(self, replica_id: str) -> Any:
        return self.rows("SELECT * FROM replicas WHERE id = :id", id=replica_id)[0]

    def attempt(self, replica_id: str, number: int = 1) -> Any:
        return self.rows("SELECT * FROM attempts WHERE replica_id = :id AND number = :n", id=replica_id, n=number)[0]

    def tasks(self, replica_id: str) -> list[Any]:
        return self.rows("SELECT * FROM tasks WHERE replica_id = :id ORDER BY seq", id=replica_id)

    def task(self, task_id: str | None) -> Any:
        return self.rows("SELECT * FROM tasks WHERE id = :id", id=task_id)[0]

    def events(self, replica_id: str, kind: str | None = None) -> list[Any]:
        found = self.rows("SELECT * FROM events WHERE replica_id = :id ORDER BY id", id=replica_id)
        return [row for row in found if kind in (None, row.kind)]

    def path(self, replica_id: str) -> list[str]:
        """The states it went through."""
        return [row.to_state for row in self.events(replica_id, "transition")]

    def leases(self, replica_id: str) -> dict[str, list[int]]:
        """What its attempts hold now."""
        found: dict[str, list[int]] = {}
        for row in self.rows(
            "SELECT l.kind, l.number FROM leases l JOIN attempts a ON a.id = l.attempt_id"
            " WHERE a.replica_id = :id AND l.released_at IS NULL ORDER BY l.kind, l.number",
            id=replica_id,
        ):
            found.setdefault(row.kind, []).append(row.number)
        return found

    def name(self, replica_id: str, attempt: int = 1) -> str:
        return f"hostler-{self.ctx.namespace}-{replica_id}-{attempt}"

    def attempt_folder(self, replica_id: str, attempt: int = 1) -> Path:
        return self.settings.state_dir / "attempts" / self.name(replica_id, attempt)

    def starts(self, replica_id: str, attempt: int = 1) -> int:
        """How often the mock engine of that attempt began to run."""
        path = self.attempt_folder(replica_id, attempt) / "starts"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def engines(self, replica_id: str) -> list[int]:
        """Pids of what lives under a mark of that replica."""
        prefix = f"hostler-{self.ctx.namespace}-{replica_id}-"
        return [pid for pid, mark in marked().items() if mark.startswith(prefix)]

    # -- waiting

    def await_state(self, replica_id: str, *wanted: str, timeout_s: float = WAIT_S) -> Any:
        """Its row in one of ``wanted``; says what happened instead."""

        def reached() -> Any:
            row = self.replica(replica_id)
            return row if row.state in wanted else None

        return self.await_that(reached, f"{replica_id} being {' or '.join(wanted)}", timeout_s, replica_id)

    def await_ready(self, replica_id: str, timeout_s: float = WAIT_S) -> Any:
        row = self.await_state(replica_id, "ready", "failed", "stopped", timeout_s=timeout_s)
        assert row.state == "ready", self.story(replica_id)
        return row

    def await_released(self, replica_id: str, timeout_s: float = WAIT_S) -> Any:
        """Ended, seen gone, and nothing held."""

        def released() -> Any:
            row = self.replica(replica_id)
            return row if row.released_at is not None else None

        row = self.await_that(released, f"{replica_id} being seen gone", timeout_s, replica_id)
        assert self.leases(replica_id) == {}, self.story(replica_id)
        return row

    def await_task(self, task_id: str | None, timeout_s: float = WAIT_S) -> Any:
        def ended() -> Any:
            row = self.task(task_id)
            return row if row.finished_at is not None else None

        return self.await_that(ended, f"task {task_id} having ended", timeout_s)

    def await_that(self, condition: Any, what: str, timeout_s: float = WAIT_S, replica_id: str | None = None) -> Any:
        try:
            return wait_until(condition, timeout_s, what)
        except AssertionError as error:
            story = self.story(replica_id) if replica_id else ""
            raise AssertionError(f"{error}\n{story}\n{self.database_at_work()}\n{self.logs()}") from None

    def database_at_work(self) -> str:
        """Who holds or waits for what, for a failing assertion."""
        busy = self.rows(
            "SELECT application_name, pid, state, wait_event, pg_blocking_pids(pid) AS blocked_by, now() - xact_start,"
            " left(query, 300) FROM pg_stat_activity"
            " WHERE datname = current_database() AND state <> 'idle' AND pid <> pg_backend_pid()"
        )
        return "\n".join(["== database", *(str(tuple(row)) for row in busy)])

    def story(self, replica_id: str) -> str:
        """Everything that is known of it, for a failing assertion."""
        row = self.replica(replica_id)
        lines = [f"replica {replica_id}: {row.state} {row.reason} {row.message!r} released={row.released_at}"]
        lines += [
            f"  {event.at:%S.%f} {event.kind} {event.from_state}->{event.to_state} {event.cause} {event.message!r}"
            for event in self.events(replica_id)
        ]
        lines += [
            f"  task {task.kind} {task.state}/{task.phase} claims={task.claims} by={task.claimed_by} {task.message!r}"
            for task in self.tasks(replica_id)
        ]
        return "\n".join(lines)


@contextmanager
def running_crew(
    settings: Settings,
    folder: Path,
    *,
    roles: tuple[str, ...] = ("worker", "worker-control", "beat", "agent"),
    pools: Mapping[str, tuple[str, int]] | None = None,
) -> Iterator[Crew]:
    """Processes of ``roles`` against the migrated database of ``settings``; none of them is left afterwards.

    ``pools`` are made before, as name -> (backend, slots), so that nobody waits for workers to notice them.
    """
    (settings.state_dir / "models").mkdir(mode=0o700, parents=True, exist_ok=True)
    crew = Crew(settings, Context.open(settings), Actor(secrets.token_hex(6), "tester", "admin"), folder)
    crew.change(
        "INSERT INTO keys (id, name, hash, prefix, role) VALUES (:id, 'tester', repeat('A', 64), 'x', 'admin')",
        id=crew.actor.key_id,
    )
    for name, (backend, slots) in (pools or {}).items():
        add_pool(crew, name, backend, slots)
    try:
        for role in roles:
            crew.start(role)
        for role in set(roles) & set(HEARD):
            crew.await_heartbeat(role)
        yield crew
    finally:
        try:
            crew.stop()
        finally:
            left = end_marked(f"hostler-{crew.ctx.namespace}-")
            crew.ctx.close()
    assert not left, f"tests left engines running: {left}"


def add_pool(crew: Crew, name: str, backend: str = "process", slots: int = 8) -> None:
    """A pool straight into the database; workers that run already serve it within seconds."""
    crew.change(
        "WITH p AS (INSERT INTO pools (name, backend, slots) VALUES (:name, :backend, :slots) RETURNING name, slots)"
        " INSERT INTO units (kind, scope, number) SELECT 'slot', p.name, n FROM p, generate_series(0, p.slots - 1) n",
        name=name,
        backend=backend,
        slots=slots,
    )


def environment(settings: Settings) -> dict[str, str]:
    """The environment of a process of ours with these settings, and nothing else of the test's own."""
    own = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    own |= {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    for item in fields(settings):
        value = getattr(settings, item.name)
        if value != item.default:
            own[env_name(item.name)] = f"{value[0]}-{value[1]}" if isinstance(value, tuple) else str(value)
    return own


def marked() -> dict[int, str]:
    """The mark of every living process that carries one."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            environ = Path(f"/proc/{entry}/environ").read_bytes()
            state = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        for item in environ.split(b"\0"):
            if item.startswith(f"{MARK}=".encode()) and state not in "ZX":
                found[int(entry)] = item.decode().partition("=")[2]
    return found


def end_marked(prefix: str) -> dict[int, str]:
    """Kill whatever carries a mark with that prefix; returns what there was."""
    left = {pid: mark for pid, mark in marked().items() if mark.startswith(prefix)}
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    deadline = time.monotonic() + WAIT_S
    while any(pid in marked() for pid in left) and time.monotonic() < deadline:
        time.sleep(0.01)
    return left


def crew_settings(parts: Settings, database: str, folder: Path, **knobs: Any) -> Settings:
    """Settings of a crew beside others on this host: its own state dir, namespace, node and ports; quick sweeps."""
    state = folder / "state"
    state.mkdir(mode=0o700)
    first = 21000 + os.getpid() % 70 * 100
    quick: dict[str, Any] = {
        "unhealthy_after": 2,
        "state_dir": state,
        "models_dir": state / "models",
        "database_url": database,
        "namespace": f"t{secrets.token_hex(5)}",
        "node_name": f"node-{secrets.token_hex(3)}",
        "node_gpus": 4,
        "ports": (first, first + 99),
        "probe_interval_s": 0.5,
        "sweep_interval_s": 1.0,
        "worker_concurrency": 2,
        "control_concurrency": 1,
    }
    return replace(parts, **(quick | knobs))
