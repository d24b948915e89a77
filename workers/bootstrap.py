"""What one worker process holds: its identity, its context and its backends. Made after the fork, once."""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import psutil

from app.errors import Collided, Unavailable
from app.settings import Settings
from app.stack.layout import ensure_run_dir
from app.usecases import launch_claims, places
from app.usecases.context import Context
from workers.backends import proc
from workers.backends.base import Backend, BackendContext, BackendError
from workers.backends.registry import BACKENDS, open_backend, place_of

log = logging.getLogger(__name__)


class Runtime:
    """One per process. ``id`` is what ``worker_id`` makes: a reused pid is another worker."""

    def __init__(self, settings: Settings, role: str) -> None:
        self.settings = settings
        self.role = role
        self.ctx = Context.open(settings, application_name=f"hostler-{role}")
        self.id = worker_id(settings.node_name, role, os.getpid())
        self._backends: dict[tuple[str, str], Backend] = {}
        #: one instance for all threads, for some keep what others must find
        self._opening = threading.Lock()

    def backend(self, name: str, options: Mapping[str, Any] | None = None) -> Backend:
        """The backend of that name at the place that ``options`` say. Raises BackendError when there is none."""
        place = place_of(name, options or {})
        key = name, json.dumps(place, sort_keys=True)
        with self._opening:
            if key not in self._backends:
                self._backends[key] = open_backend(name, replace(self._backend_context, options=place))
            return self._backends[key]

    def backend_of(self, row: Any) -> Backend:
        """The backend that runs a replica, at its place."""
        return self.backend(row.backend, (row.spec.get("resolved") or {}).get("backend_options"))

    def places(self) -> list[Backend]:
        """Every backend at every place that a pool which this host serves, or an open attempt, names; those that know
        only one place are at it."""
        placed = [name for name, backend in BACKENDS.items() if backend.place_options]
        found = [self.backend(name) for name in BACKENDS if name not in placed]
        for name, options in places.named(self.ctx, placed) if placed else ():
            found.append(self.backend(name, options))
        return list(dict.fromkeys(found))

    def rehearse(self) -> None:
        """Be as fast at the first launch as at the tenth."""
        self.prepare(*(self.backend(name) for name, backend in BACKENDS.items() if not backend.place_options))
        try:
            launch_claims.rehearse(self.ctx)
        except (Collided, Unavailable) as error:
            log.warning("started without its database: %s", error)

    def prepare(self, *backends: Backend) -> None:
        """Let these backends do ahead what their next launch would wait for. It matters to nothing but speed."""
        for backend in backends:
            try:
                backend.prepare()
            except BackendError as error:
                log.warning("backend %s is not prepared for its next launch: %s", backend.name, error)

    @cached_property
    def _backend_context(self) -> BackendContext:
        return BackendContext(
            state_dir=self.settings.state_dir,
            run_dir=ensure_run_dir(self.settings.state_dir),
            log_bytes=self.settings.log_bytes,
            node_gpus=self.settings.node_gpus,
        )


def worker_id(node: str, role: str, pid: int) -> str:
    """``node/boot.ticks/role/pid/start time``: the identity of a process of ours, which a reused pid does not share.

    Boot and ticks identify it. The start time, seconds of the epoch, is for readers and for the agents of 0.1.0, who
    know nothing else: it moves with every step of the host's clock, and would make all workers look dead.
    """
    seen = proc.stat(pid)
    if seen is None:
        raise psutil.NoSuchProcess(pid)
    return f"{node}/{_birth(seen)}/{role}/{pid}/{psutil.Process(pid).create_time():.2f}"


def process_of(worker: str) -> str:
    """What of a worker's id stays the same when the clock steps."""
    return worker.rpartition("/")[0]


def is_alive(worker: str) -> bool:
    """Whether the process of that identity runs on this host."""
    process, _, started = worker.rpartition("/")
    rest, pid = process.rsplit("/", 1)
    seen = proc.stat(int(pid))
    if seen is None or seen.ended:
        return False
    birth = rest.rsplit("/", 2)[-2]
    if _BIRTH.fullmatch(birth):
        return birth == _birth(seen)
    try:
        # a worker of 0.1.0
        return f"{psutil.Process(int(pid)).create_time():.2f}" == started
    except psutil.NoSuchProcess:
        return False


_BIRTH = re.compile(r"[0-9a-f]{8}\.[0-9]+")


def _birth(seen: proc.Stat) -> str:
    return f"{proc.boot_id()[:8]}.{seen.start}"


_runtime: tuple[int, Runtime] | None = None


def runtime() -> Runtime:
    """This process's runtime. A child that was forked makes its own: connections are not shared."""
    global _runtime
    if _runtime is None or _runtime[0] != os.getpid():
        _runtime = (os.getpid(), Runtime(Settings.load(), os.environ.get("HOSTLER_ROLE", "worker")))
    return _runtime[1]
