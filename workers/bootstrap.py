"""What one worker process holds: its identity, its context and its backends. Made after the fork, once."""

from __future__ import annotations

import logging
import os
from functools import cached_property

import psutil

from app.errors import Collided, Unavailable
from app.settings import Settings
from app.usecases import launch_claims
from app.usecases.context import Context
from workers.backends.base import Backend, BackendContext, BackendError
from workers.backends.registry import BACKENDS, open_backend

log = logging.getLogger(__name__)


class Runtime:
    """One per process. ``id`` is ``node/role/pid/start time``: a reused pid is another worker."""

    def __init__(self, settings: Settings, role: str) -> None:
        self.settings = settings
        self.role = role
        self.ctx = Context.open(settings, application_name=f"hostler-{role}")
        self.id = worker_id(settings.node_name, role, os.getpid())
        self._backends: dict[str, Backend] = {}

    def backend(self, name: str) -> Backend:
        """The backend of that name. Raises BackendError when this version has none."""
        if name not in self._backends:
            self._backends[name] = open_backend(name, self._backend_context)
        return self._backends[name]

    def backends(self) -> dict[str, Backend]:
        """All backends of this version."""
        return {name: self.backend(name) for name in BACKENDS}

    def rehearse(self) -> None:
        """Be as fast at the first launch as at the tenth."""
        self.prepare(*BACKENDS)
        try:
            launch_claims.rehearse(self.ctx)
        except (Collided, Unavailable) as error:
            log.warning("started without its database: %s", error)

    def prepare(self, *backends: str) -> None:
        """Let these backends do ahead what their next launch would wait for. It matters to nothing but speed."""
        for name in backends:
            try:
                self.backend(name).prepare()
            except BackendError as error:
                log.warning("backend %s is not prepared for its next launch: %s", name, error)

    @cached_property
    def _backend_context(self) -> BackendContext:
        return BackendContext(
            state_dir=self.settings.state_dir,
            log_bytes=self.settings.log_bytes,
            node_gpus=self.settings.node_gpus,
        )


def worker_id(node: str, role: str, pid: int) -> str:
    """The identity of a process of ours, which a reused pid does not share."""
    return f"{node}/{role}/{pid}/{psutil.Process(pid).create_time():.2f}"


def is_alive(worker: str) -> bool:
    """Whether the process of that identity runs on this host."""
    _node, _role, pid, started = worker.rsplit("/", 3)
    try:
        process = psutil.Process(int(pid))
        return f"{process.create_time():.2f}" == started and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


_runtime: tuple[int, Runtime] | None = None


def runtime() -> Runtime:
    """This process's runtime. A child that was forked makes its own: connections are not shared."""
    global _runtime
    if _runtime is None or _runtime[0] != os.getpid():
        _runtime = (os.getpid(), Runtime(Settings.load(), os.environ.get("HOSTLER_ROLE", "worker")))
    return _runtime[1]
