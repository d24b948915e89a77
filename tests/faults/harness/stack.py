"""The one long-lived stack that serves many seeds: real processes, started by ``hostler up`` as a user would."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import psycopg
import redis

from app.settings import Settings
from app.stack.layout import Layout
from app.stack.processes import Found, control_plane, engines
from app.stack.record import read_record
from app.stack.supervisor import Supervisor, SupervisorGone
from app.stack.urls import database_url
from tests.faults.harness import far_world, world
from tests.faults.harness.asks import ALIAS, ALLOWED
from tests.faults.harness.facts import StackFacts
from tests.faults.harness.injection import FOLDER, PLANT
from tests.faults.harness.interpreter import make_interpreter
from tests.faults.harness.places.parts import Parts
from tests.faults.harness.places.pools import ALL, GPUS, LEASE_S, SHARED
from tests.faults.harness.places.worker_host import NODE, POOL, SLOTS, WorkerHost, worker_host
from tests.support.stacks import Stack, stack

#: Short, so that what is repaired is repaired within the 30 s in which everything must converge.
QUICK = {
    "LEASE_S": "2",
    "PROBE_INTERVAL_S": "1",
    "SWEEP_INTERVAL_S": "1",
    "UNHEALTHY_AFTER": "2",
    "LOG_BYTES": "65536",
    "NODE_GPUS": "4",
    "WEB_WORKERS": "2",
    "WORKER_CONCURRENCY": "2",
    "CONTROL_CONCURRENCY": "2",
    "MAX_WAIT_S": "20",
}
#: Pools beside the two that every stack has: name -> backend, slots.
POOLS = {"tight": ("process", 2), "few": ("mock", 3)}
#: The attempts' folders (plans, records and logs of engines) on a disk of their own, which a fault fills.
DISK_BYTES = 64 * 1024 * 1024
SETTLED_S = 60.0
#: What was ended is gone within this.
GONE_S = 10.0
NAMESPACE = "HOSTLER_NAMESPACE"
#: A recipe of our own, which a fault spoils.
RECIPE = """\
name: own
category: faults
version: "1.0"
description: A mock engine, from a file that is spoiled while it is used.
engine: mock
pool: local
replicas: 1
parameters:
  startup_s:
    type: number
    minimum: 0
    maximum: 60
    description: Seconds before it is ready.
    sets: engine_config.mock.startup_s
"""


def recipe_path(folder: Path) -> Path:
    """Where it lies, below the harness's folder."""
    return folder / "recipes" / "faults" / "own.yaml"


class FaultyStack:
    """A running stack, and what faults need to know of it. All of it may fail while a fault holds."""

    def __init__(self, made: Stack, folder: Path, parts: Parts | None = None, beside_dir: Path | None = None) -> None:
        """``beside_dir``: state dir of another host that it will have."""
        self._made = made
        self._beside_dir = beside_dir
        self.folder = folder
        self.layout: Layout = made.layout
        self.settings = Settings.load({}, state_dir=made.state_dir)
        #: the attempts' disk is ours to fill
        self.has_disk = False
        #: what other places are made of, where it serves some
        self.parts = parts
        #: that acts may name as what they need; None is what needs none
        self.pools: set[str | None] = {None}
        #: another host of it, where it has one
        self.beside: WorkerHost | None = None
        #: what was left of it when it had ended
        self.left: list[str] = []
        #: lets in whom it is given to, for one model only
        self.limited_key = ""
        self.facts = StackFacts(folder, made.state_dir, "", made.url, "", self.layout.haproxy_socket)

    @property
    def url(self) -> str:
        return self._made.url

    def up(self) -> None:
        """Start it, or start what is missing of it."""
        self._made.up()
        url = database_url(self.settings).replace("postgresql+psycopg://", "postgresql://", 1)
        place, socket = self._made.state_dir, self.layout.haproxy_socket
        prefix = f"hostler-{self._made.environ.get(NAMESPACE)}-"
        far = self.parts.facts(prefix) if self.parts is not None else None
        if far is not None and self._beside_dir is not None:
            far = replace(far, node=NODE, node_state_dir=self._beside_dir)
        self.facts = StackFacts(self.folder, place, url, self._made.url, self._made.key, socket, far)

    def equip(self) -> None:
        """Pools, models and keys that scripts use."""
        self._made.must("model", "make-tiny", "tiny")
        for name, (backend, slots) in POOLS.items():
            self._made.call("POST", "/api/v1/pools", {"name": name, "backend": backend, "slots": slots}, 201)
        if self._beside_dir is not None:
            body = {"name": POOL, "backend": "process", "slots": SLOTS}
            self._made.call("POST", "/api/v1/pools", body, 201)
            self.pools.add(POOL)
        for name, (backend, slots, _) in ALL.items() if self.parts is not None else ():
            options = self.parts.options(name, self.folder)
            if options is not None:
                body = {"name": name, "backend": backend, "slots": slots, "options": options}
                body |= {"gpus": GPUS} if name == SHARED else {}
                self._made.call("POST", "/api/v1/pools", body, 201)
                self.pools.add(name)
        self._made.call("POST", "/api/v1/models", {"name": ALLOWED, "engine": "mock", "aliases": [ALIAS]}, 201)
        key = {"name": "limited", "role": "infer", "models": [ALLOWED]}
        self.limited_key = str(self._made.call("POST", "/api/v1/keys", key, 201)["key"])

    def mount(self) -> None:
        """Give the attempts' folder a small disk, where we may."""
        owner = self._made.state_dir.stat()
        self.layout.attempts.mkdir(mode=0o700, exist_ok=True)
        os.chown(self.layout.attempts, owner.st_uid, owner.st_gid)
        options = f"size={DISK_BYTES},mode=0700,uid={owner.st_uid},gid={owner.st_gid}"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "none", str(self.layout.attempts)],
            capture_output=True,
            check=False,
        )
        self.has_disk = done.returncode == 0

    def unmount(self) -> None:
        if self.has_disk:
            subprocess.run(["umount", "--lazy", str(self.layout.attempts)], capture_output=True, check=False)

    def processes(self) -> list[Found]:
        """Control plane and engines, as ``hostler status`` finds them."""
        return [*control_plane(self.layout), *engines(self.layout)]

    def pids(self, role: str, part: str = "all") -> list[int]:
        """Of a role: ``parent`` (what supervisord started), ``child`` (what that forked), or all."""
        found = [one.process for one in self.processes() if one.role == role]
        pids = {process.pid for process in found}
        chosen = []
        for process in found:
            with suppress(psutil.NoSuchProcess):
                is_child = process.ppid() in pids
                if part == "all" or (part == "child") == is_child:
                    chosen.append(process.pid)
        return sorted(chosen)

    def send(self, pids: list[int], number: int) -> list[int]:
        """Signal each; those that were there."""
        hit = []
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
                hit.append(pid)
        return hit

    @contextmanager
    def sql(self) -> Iterator[psycopg.Connection[Any]]:
        with psycopg.connect(self.facts.database_url, autocommit=True, connect_timeout=5) as connection:
            connection.execute("SET application_name = 'fault-driver'")
            yield connection

    def broker(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.layout.redis_socket), socket_timeout=3)

    def trouble(self) -> str:
        """Why it cannot serve; empty when every process runs and the workers are heard of."""
        try:
            programs = Supervisor(self.settings).programs()
        except SupervisorGone as error:
            return str(error)
        down = [f"{one.name} is {one.state}" for one in programs if one.state != "RUNNING"]
        if down:
            return ", ".join(down)
        try:
            with self.sql() as connection:
                count = connection.execute(
                    "SELECT count(DISTINCT role) FROM workers WHERE heartbeat_at > hostler_now() - interval '12 s'"
                ).fetchone()
        except psycopg.Error as error:
            return f"database: {error}"
        if count is None or count[0] < 3:
            return f"only {count} roles are heard of"
        frozen = self._frozen()
        if frozen:
            return f"frozen: {frozen}"
        return self.beside.trouble() if self.beside is not None else ""

    def thaw(self) -> None:
        """SIGCONT to whatever of it stands still."""
        self.send(self._frozen(), signal.SIGCONT)

    def _frozen(self) -> list[int]:
        processes = [one.process for one in self.processes()]
        processes += self.beside.processes() if self.beside is not None else []
        return [one.pid for one in processes if _status(one) == psutil.STATUS_STOPPED]

    def await_serving(self, timeout_s: float = SETTLED_S) -> str:
        """Wait until nothing is the trouble; what still is after ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        while (said := self.trouble()) and time.monotonic() < deadline:
            if read_record(self.settings) is None:
                return said
            time.sleep(0.2)
        return said

    def after_down(self) -> list[str]:
        """What still is of it a while after its end, in words."""
        deadline = time.monotonic() + GONE_S
        while True:
            left = [f"a process of {one.name}" for one in world.processes(self.facts.state_dir)]
            if self.facts.places is not None:
                left += far_world.left(self.facts.places, self.facts.state_dir, self.folder / SHARED)
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.2)

    def last_words(self) -> str:
        return self._made.last_words()


@contextmanager
def faulty_stack(
    folder: Path, plant: str = "", parts: Parts | None = None, *, with_host: bool = False
) -> Iterator[FaultyStack]:
    """A stack in ``folder``, up and equipped; nothing of it is left afterwards but the harness's own files.

    With ``parts`` it has the pools of other places too, and runs as whoever runs this: they let in nobody else. Then it
    may have another host, ``with_host``.
    """
    for name in ("armed", "fired", "starts", "talks"):
        (folder / name).mkdir()
    # the stack may run as another user
    for path in (folder, *folder.iterdir()):
        path.chmod(0o777)
    recipe_path(folder).parent.mkdir(parents=True)
    recipe_path(folder).write_text(RECIPE)
    python = make_interpreter(folder / "python")
    first = 26000 + os.getpid() % 50 * 60
    environ = {f"HOSTLER_{name}": value for name, value in QUICK.items()}
    environ |= {"HOSTLER_PORTS": f"{first}-{first + 59}", FOLDER: str(folder)}
    environ["HOSTLER_RECIPES_DIR"] = str(folder / "recipes")
    if plant:
        environ[PLANT] = plant
    if parts is not None:
        (folder / "python").chmod(0o700)
        environ[NAMESPACE] = f"f{secrets.token_hex(4)}"
        # what is launched there is so within a lease, and a container takes seconds on a busy machine
        environ["HOSTLER_LEASE_S"] = str(LEASE_S)
    there = folder / "beside" if with_host else None
    if there is not None:
        # what is not its own is the other's
        environ["HOSTLER_NODE_POOLS"] = ",".join(("local", "mock", *POOLS, *ALL))
    with stack(folder / "state", python, **environ) as made:
        found, held = FaultyStack(made, folder, parts, there), ExitStack()
        try:
            found.up()
            found.mount()
            found.equip()
            if there is not None:
                first = 29000 + os.getpid() % 50 * 20
                own = {**environ, "HOSTLER_PORTS": f"{first}-{first + 19}"}
                del own["HOSTLER_NODE_POOLS"]
                host = worker_host(there, python, made, found.settings, **own)
                found.beside = held.enter_context(host)
            yield found
        finally:
            if parts is not None:
                parts.mend()
            found.thaw()
            held.close()
            down = made.hostler("down")
            found.left = [] if plant else found.after_down()
            if down.returncode and not plant:
                found.left.append(f"code {down.returncode}, with the words {down.stderr.splitlines()[-3:]}")
            # what a planted bug lost sight of is nobody's but ours
            found.send([one.pid for one in world.processes(found.facts.state_dir)], signal.SIGKILL)
            if found.facts.places is not None:
                far = far_world.processes(found.facts.places, found.facts.state_dir)
                found.send([one.pid for one in far], signal.SIGKILL)
            found.unmount()


def _status(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.NoSuchProcess:
        return psutil.STATUS_DEAD
