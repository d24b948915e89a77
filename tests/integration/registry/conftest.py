"""The API as it is served, gunicorn with gevent behind its gateway, on a database of its own; as many as a test has."""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.settings import Settings
from app.stack.environment import settings_environment
from app.stack.layout import ensure_run_dir, remove_run_dir
from app.usecases import keys
from app.usecases.context import Actor, Context
from tests.support import plain_http
from tests.support.embedded import wait_until

ROOT = Path(__file__).parents[3]
#: Of Linux: a program that judges what a socket hears; this one's drops all of it.
SO_ATTACH_FILTER = 26
ADMIN = Actor("test", "test", "admin")


@dataclass
class Stream:
    """A registration as a client holds it: a socket, and what came over it."""

    connection: socket.socket
    received: bytes = b""
    is_over: bool = False

    def read(self, wanted: bytes, timeout_s: float = 10) -> bytes:
        """Until ``wanted`` was received, or the end; all that was received."""
        deadline = time.monotonic() + timeout_s
        while wanted not in self.received and not self.is_over:
            self.connection.settimeout(max(0.01, deadline - time.monotonic()))
            data = self.connection.recv(65536)
            self.received += data
            # the gateway keeps the connection for another request
            self.is_over = not data or self.received.endswith(b"\r\n0\r\n\r\n")
        return self.received

    def read_to_end(self, timeout_s: float = 10) -> bytes:
        """All of it, until the answer is over."""
        return self.read(b"\0 never sent", timeout_s)

    def cut(self) -> None:
        """As if the network were cut: nothing that comes is heard, and nothing is said to it."""
        drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
        program = struct.pack("HL", 1, ctypes.addressof(drop_all))
        self.connection.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)

    def close(self) -> None:
        self.connection.close()


@dataclass
class Api:
    """One host's API and gateway. ``address`` is a port of loopback."""

    settings: Settings
    key: str
    address: tuple[str, int]
    log: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _streams: list[Stream] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{self.address[0]}:{self.address[1]}"

    def start(self) -> None:
        self.start_web()
        if "gateway" not in self.processes:
            self._spawn("gateway", "-m", "app.gateway.proxy")
        wait_until(self._answers, 30, f"the API; see {self.log}")

    def start_web(self) -> None:
        self._spawn("web", "-m", "gunicorn", "-c", "python:app.stack.gunicorn_conf", "--graceful-timeout", "1")

    def _spawn(self, name: str, *arguments: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HOSTLER_")}
        environment |= settings_environment(self.settings)
        environment |= {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
        with open(self.log, "ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, *arguments], env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self, name: str = "web") -> None:
        """SIGKILL to all processes of a role, as a power cut would."""
        self.signal(name, signal.SIGKILL)
        self.processes.pop(name).wait(10)

    def signal(self, name: str, number: signal.Signals) -> None:
        os.killpg(self.processes[name].pid, number)

    def stop(self) -> None:
        for stream in self._streams:
            stream.close()
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(15)

    def ask(self, method: str, path: str, body: Any = None, key: str | None = None) -> httpx2.Response:
        """One request on a connection of its own: any of the processes may take it."""
        headers = {"X-API-Key": self.key if key is None else key}
        return plain_http.request(method, self.url + path, json=body, headers=headers, timeout=30)

    def register(
        self, replica_id: str, endpoint: str = "localhost:50051", *capabilities: dict[str, Any], key: str | None = None
    ) -> Stream:
        """Open a registration and wait for its first line; a refusal is an AssertionError with the answer."""
        stream = self.send(
            {"replica_id": replica_id, "endpoint": endpoint, "capabilities": list(capabilities)}, key=key
        )
        found = stream.read(b'data: {"status": "registered"')
        assert f'data: {{"status": "registered", "replica_id": "{replica_id}"}}\n\n'.encode() in found, found
        return stream

    def send(self, body: Any, *, key: str | None = None, version: str = "1.1") -> Stream:
        """The request of a registration, and whatever comes."""
        content = json.dumps(body)
        connection = socket.create_connection(self.address)
        connection.sendall(
            f"POST /register HTTP/{version}\r\nHost: test\r\nX-API-Key: {self.key if key is None else key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n{content}".encode()
        )
        stream = Stream(connection)
        self._streams.append(stream)
        return stream

    def route(self, **query: str) -> dict[str, Any] | None:
        """What `/route` finds; None for its 404."""
        answer = self.ask("GET", f"/route?{httpx2.QueryParams(query)}")
        assert answer.status_code in (200, 404), answer.text
        return answer.json() if answer.status_code == 200 else None

    def ids(self) -> list[str]:
        return [one["replica_id"] for one in self.ask("GET", "/registry").json()["replicas"]]

    def _answers(self) -> bool:
        for name, process in self.processes.items():
            assert process.poll() is None, f"{name} ended: {self.log.read_text()[-4000:]}"
        try:
            return plain_http.get(f"{self.url}/ready").status_code == 200
        except httpx2.TransportError:
            return False


@pytest.fixture
def ctx(settings: Settings) -> Iterator[Context]:
    context = Context.open(settings, pool_size=3)
    yield context
    context.close()


@pytest.fixture
def make_key(ctx: Context) -> Callable[..., str]:
    """A key with that role and those models."""

    def make(role: str, models: list[str] | None = None) -> str:
        made = keys.create(ctx, ADMIN, {"name": secrets.token_hex(6), "role": role, "models": models}, None)
        assert made.key is not None
        return made.key

    return make


@pytest.fixture
def start_api(settings: Settings, tmp_path: Path) -> Iterator[Callable[..., Api]]:
    """Starts an API; all of a test are on the same database, each as a host of its own with its own state dir."""
    key = f"server-{secrets.token_hex(16)}"
    keys.ensure_admin_key(settings, key)
    started: list[Api] = []

    def start(**changed: Any) -> Api:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = probe.getsockname()
        name = f"api-{len(started)}"
        state_dir = tmp_path / name
        state_dir.mkdir(mode=0o700)
        ensure_run_dir(state_dir)
        fixed: dict[str, Any] = {"state_dir": state_dir, "port": address[1], "engine_key": "engine-key-of-the-tests"}
        api = Api(replace(settings, **{**fixed, "node_name": name, **changed}), key, address, tmp_path / f"{name}.log")
        started.append(api)
        api.start()
        return api

    yield start
    for api in started:
        api.stop()
        remove_run_dir(api.settings.state_dir)


@pytest.fixture
def api(start_api: Callable[..., Api]) -> Api:
    return start_api()
