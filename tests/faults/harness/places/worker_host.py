"""Another host of the stack, as far as the stack can tell: `hostler worker` with a state dir and a name of its own.

It runs one pool, and only engines of that pool; database and broker are the stack's, and in truth it is this very host.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from app.settings import Settings
from app.stack.processes import control_plane, engines
from app.stack.secrets import SHARED
from app.stack.supervisor import Supervisor, SupervisorGone
from app.stack.urls import broker_url, database_url
from tests.support.stacks import Stack, stack

POOL, NODE = "beside", "beside"
SLOTS = 3


class WorkerHost:
    """It has come up, and may be broken."""

    def __init__(self, made: Stack) -> None:
        self._made = made
        self.layout = made.layout
        self._settings = Settings.load({}, state_dir=made.state_dir)

    def up(self) -> None:
        """Start it, or what is missing of it. On loopback only a gateway of its own would reach its engines."""
        self._made.must("worker", "-d", "--pool", POOL, "--address", "127.0.0.1")

    def down(self) -> None:
        self._made.hostler("down")

    def processes(self) -> list[psutil.Process]:
        """All of it but its engines."""
        return [one.process for one in control_plane(self.layout)]

    def pids(self, role: str) -> list[int]:
        found = [*control_plane(self.layout), *engines(self.layout)]
        return sorted(one.process.pid for one in found if one.role == role)

    def trouble(self) -> str:
        """As the stack's."""
        try:
            programs = Supervisor(self._settings).programs()
        except SupervisorGone as error:
            return f"beside: {error}"
        down = [f"{one.name} is {one.state}" for one in programs if one.state != "RUNNING"]
        return f"beside: {', '.join(down)}" if down else ""


@contextmanager
def worker_host(folder: Path, python: str, of: Stack, settings: Settings, **environ: str) -> Iterator[WorkerHost]:
    """One that joined the stack ``of``, with its keys; nothing of it is left afterwards."""
    environ |= {
        "HOSTLER_DATABASE_URL": database_url(settings),
        "HOSTLER_BROKER_URL": broker_url(settings),
        "HOSTLER_NODE_NAME": NODE,
    }
    with stack(folder, python, **environ) as made:
        made.layout.secrets.mkdir(mode=0o700, parents=True)
        for name in SHARED:
            shutil.copyfile(of.layout.secrets / name, made.layout.secrets / name)
            (made.layout.secrets / name).chmod(0o600)
        found = WorkerHost(made)
        try:
            found.up()
            yield found
        finally:
            _send([one.pid for one in found.processes()], signal.SIGCONT)
            found.down()


def _send(pids: list[int], number: int) -> None:
    for pid in pids:
        try:
            psutil.Process(pid).send_signal(number)
        except psutil.NoSuchProcess:
            continue
