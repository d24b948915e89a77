"""supervisord: started, asked and stopped over its own socket (XML-RPC)."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy, Transport

import psutil
from supervisor.xmlrpc import Faults

from app.settings import Settings
from app.stack.errors import PartFailed, StackError
from app.stack.layout import Layout
from app.stack.roles import GROUP, LISTENER, STACK, roles_of
from app.stack.runas import Account, as_user

_SOCKET_S = 15.0
_ANSWER_S = 10.0
_SETTLED = (Faults.ALREADY_STARTED, Faults.NOT_RUNNING)


class SupervisorGone(StackError):
    """supervisord does not answer. `hostler up` starts it again."""


@dataclass(frozen=True)
class Program:
    """One supervised program. ``full_name`` is what supervisor calls it."""

    name: str
    full_name: str
    #: STOPPED, STARTING, RUNNING, BACKOFF, STOPPING, EXITED, FATAL or UNKNOWN
    state: str
    pid: int
    error: str


class Supervisor:
    """The supervisord of one state dir."""

    def __init__(self, settings: Settings) -> None:
        self._socket = Layout(settings.state_dir).supervisor_socket

    def programs(self) -> list[Program]:
        """What it supervises. Raises SupervisorGone."""
        found = []
        for info in self._call("getAllProcessInfo"):
            full_name = f"{info['group']}:{info['name']}"
            error = info["spawnerr"] or (info["description"] if info["statename"] in ("BACKOFF", "FATAL") else "")
            found.append(Program(info["name"], full_name, info["statename"], info["pid"], error))
        return found

    def answers(self) -> bool:
        try:
            return bool(self._call("getState")["statename"] == "RUNNING")
        except SupervisorGone:
            return False

    def start(self, full_name: str) -> None:
        self._call("startProcess", full_name, False)

    def start_roles(self, kind: str = STACK) -> None:
        """Start all roles, and what writes down when one of them dies. Does not wait."""
        self.start(f"{LISTENER}:{LISTENER}")
        for role in roles_of(kind):
            if role.is_door:
                self.start(f"{role.name}:{role.name}")
        self._call("startProcessGroup", GROUP, False)

    def stop(self, full_name: str) -> None:
        """Ask one program to end; does not wait."""
        self._call("stopProcess", full_name, False)

    def shutdown(self) -> None:
        """Stop all programs, roles first and Postgres last, then supervisord itself; does not wait."""
        self._call("shutdown")

    def _call(self, verb: str, *arguments: Any) -> Any:
        try:
            # the address is a form; the socket is used
            with ServerProxy("http://127.0.0.1", _SocketTransport(str(self._socket))) as server:
                return getattr(server.supervisor, verb)(*arguments)
        except Fault as fault:
            if fault.faultCode in _SETTLED:
                return None
            raise SupervisorGone(f"supervisor: {fault.faultString}") from fault
        except (OSError, http.client.HTTPException) as error:
            raise SupervisorGone(f"supervisor does not answer on {self._socket}: {error}") from error


class _SocketTransport(Transport):
    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = _SocketConnection(self._path)
        # what ``close`` closes
        self._connection = host, connection
        return connection


class _SocketConnection(http.client.HTTPConnection):
    """Supervisor's own client has no timeout: a frozen supervisord would hang every command."""

    def __init__(self, path: str) -> None:
        super().__init__("127.0.0.1", timeout=_ANSWER_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def start_supervisor(settings: Settings, account: Account, config: Path, environ: Mapping[str, str]) -> psutil.Process:
    """Start supervisord in a session of its own, holding nothing of the caller's, and wait for its socket.

    Raises PartFailed with the end of what it said.
    """
    layout = Layout(settings.state_dir)
    layout.supervisor_socket.unlink(missing_ok=True)
    said = layout.logs / "supervisor-start.log"
    argv = [sys.executable, "-m", "app.stack.supervisord", "-n", "-c", str(config)]
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as log:
        if not account.is_caller:
            os.chown(said, account.uid, account.gid)
        process = subprocess.Popen(
            argv,
            cwd=settings.state_dir,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            close_fds=True,
            umask=0o077,
            **as_user(account),
        )
    supervisor = Supervisor(settings)
    deadline = time.monotonic() + _SOCKET_S
    while not supervisor.answers():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise PartFailed(f"supervisor did not start: {said.read_text(errors='replace').strip()[-800:]}")
        time.sleep(0.02)
    return psutil.Process(process.pid)
