"""The worker side as real processes: worker, control worker, beat and agent against a database of their own.

``running_crew`` starts them once and hands out a ``Crew``: what a test asks for, waits for, kills and counts.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import httpx2

from app.settings import Settings, env_name
from app.stack.layout import Layout
from app.usecases.context import Actor, Context
from app.usecases.creates import request_create
from app.usecases.outcomes import TaskOutcome
from app.usecases.stops import request_stop
from tests.support import plain_http
from tests.support.bound import bound
from tests.support.embedded import wait_until
from tests.support.marks import end_marked
from tests.support.records import WAIT_S, Records

ROOT = Path(__file__).resolve().parents[2]
ROLES = {
    "worker": ("-m", "workers.run", "worker"),
    "worker-control": ("-m", "workers.run", "worker-control"),
    "beat": ("-m", "workers.run", "beat"),
    "agent": ("-m", "workers.agent"),
    "web": ("-m", "gunicorn", "-c", "python:app.stack.gunicorn_conf"),
    "gateway": ("-m", "app.gateway.proxy"),
    "gateway-agent": ("-m", "app.gateway.agent"),
    "tunnels": ("-m", "workers.tunnels"),
}
_NOISE = ("hostler.sweep", "hostler.reconcile", "hostler.canary", "Sending due task", "'nothing to claim'")
#: Roles that write a heartbeat; beat does not.
HEARD = ("worker", "worker-control", "agent")


@dataclass
class Crew(Records):
    """The running processes and what tests do with them."""

    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, root: Path = ROOT, **environ: str) -> None:
        """Start a role, again if it was killed. Returns before it works.

        A second one of a role has a name like ``beat@2``; ``root`` holds the code that it runs; ``environ`` is more.
        """
        with open(self.folder / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen(
                [*bound("TERM"), sys.executable, *ROLES[_role(name)]],
                env=environment(self.settings, root) | environ,
                cwd=root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """SIGKILL to the role's whole session, as a power cut would; returns when nothing of it runs."""
        process = self.processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(WAIT_S)

    def ask_web(self, method: str, path: str, **more: Any) -> httpx2.Response:
        """A request to the API itself, past the gateway, which would answer for one that is dead."""
        address = str(Layout(self.settings.state_dir).web_socket)
        # httpx2 leaves a socket open on which it could not connect
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(address)
            except OSError as error:
                raise httpx2.ConnectError(str(error)) from error
        with plain_http.Client(transport=plain_http.HTTPTransport(uds=address), timeout=60) as client:
            return client.request(method, f"http://web{path}", **more)

    def await_heartbeat(self, name: str) -> None:
        """Until the running process of that name has written its row."""
        process = self.processes[name]

        def heard() -> bool:
            assert process.poll() is None, f"{name} ended with {process.returncode}:\n{self.log(name)}"
            query = "SELECT 1 FROM workers WHERE role = :role AND pid = :pid"
            return bool(self.rows(query, role=_role(name), pid=process.pid))

        wait_until(heard, 60, f"a heartbeat of {name}")

    def log(self, name: str, tail: int = 4000) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace")[-tail:] if path.exists() else ""

    def logs(self, tail: int = 4000) -> str:
        """The ends of all logs, without what says nothing."""
        parts = []
        for name in sorted(path.stem for path in self.folder.glob("*.log")):
            lines = self.log(name, 20 * tail).splitlines()
            told = [line for line in lines if not any(word in line for word in _NOISE)]
            parts.append("\n".join([f"== {name}", *told])[-tail:])
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


def environment(settings: Settings, root: Path = ROOT) -> dict[str, str]:
    """The environment of a process of ours with these settings, and nothing else of the test's own."""
    own = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    own |= {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1"}
    for item in fields(settings):
        value = getattr(settings, item.name)
        if value != item.default:
            own[env_name(item.name)] = f"{value[0]}-{value[1]}" if isinstance(value, tuple) else str(value)
    return own


def _role(name: str) -> str:
    return name.partition("@")[0]


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
