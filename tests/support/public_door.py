"""The public door on its own: the real HAProxy with the real configuration, and a recorder where the API would be."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from app.gateway import proxy
from app.gateway.access_log import Scribe
from app.gateway.certificate import write_certificate
from app.gateway.config import render
from app.gateway.keys import KEYS
from app.gateway.places import Places
from app.haproxy.runtime import Session
from app.settings import Settings
from app.stack.haproxy import haproxy_program
from app.stack.layout import Layout
from app.usecases.keys import hash_key
from tests.support.embedded import wait_until
from tests.support.ports import free_port, listens

#: Small, so that a test can fill it.
LOG_BYTES = 65536
OK = (
    b"HTTP/1.1 200 OK\r\nServer: recorder/1.0\r\nX-Powered-By: x\r\nVia: 1.1 x\r\nKeep-Alive: timeout=5\r\n"
    b"Content-Length: 2\r\n\r\nok"
)


@dataclass
class Answer:
    """What came back, parsed, and whether the connection was closed behind it."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    closed: bool

    @property
    def problem(self) -> dict[str, Any]:
        """The body of an error of the gateway; asserts that it is one."""
        assert self.headers["Content-Type"] == "application/problem+json", (self.status, self.body)
        found: dict[str, Any] = json.loads(self.body)
        assert found["source"] == "gateway"
        assert found["status"] == self.status
        assert found["request_id"] == self.headers["X-Request-Id"]
        assert found["error"] == found["detail"]
        assert set(found) >= {"type", "title", "status", "detail", "instance", "code", "request_id", "errors"}
        return found


class Recorder:
    """Listens where the control API would, keeps what arrives as it arrives, and answers each head with ``answer``.

    ``answer`` None never answers, b"" closes without an answer.
    """

    def __init__(self, path: Path) -> None:
        self.seen: list[bytes] = []
        self.answer: bytes | None = OK
        #: connections whose other side went away
        self.gone = 0
        self._path = path
        self._socket: socket.socket | None = None
        self._open: set[socket.socket] = set()

    def start(self) -> None:
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self._path))
        self._socket.listen(1024)
        threading.Thread(target=self._accept, args=(self._socket,), daemon=True).start()

    def stop(self) -> None:
        """As a server that ends: what is open is closed, and nobody listens."""
        if self._socket is not None:
            # wakes the thread that accepts, which ``close`` alone does not
            self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
            self._socket = None
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._path.unlink(missing_ok=True)

    def clear(self) -> None:
        self.seen.clear()
        self.answer = OK

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._open.add(client)
        with client, suppress(OSError):
            while data := client.recv(1 << 20):
                self.seen.append(data)
                if self.answer == b"":
                    break
                if self.answer is not None and b"\r\n\r\n" in data:
                    client.sendall(self.answer)
            if self.seen and not data:
                self.gone += 1
        self._open.discard(client)


@dataclass
class Door:
    """A running HAProxy. ``send`` is for bytes as they are."""

    port: int
    layout: Layout
    places: Places
    behind: Recorder
    flower: Recorder
    process: subprocess.Popen[bytes]
    scribe: Scribe
    settings: Settings = field(repr=False)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def send(self, request: bytes, *, wait_closed_s: float = 0.5) -> Answer:
        """One request on a connection of its own."""
        with self.connect() as connection:
            connection.sendall(request)
            answer = http.client.HTTPResponse(connection, method=request.split(b" ", 1)[0].decode("latin-1"))
            answer.begin()
            body = answer.read()
            connection.settimeout(wait_closed_s)
            try:
                closed = connection.recv(1) == b""
            except TimeoutError:
                closed = False
            except ConnectionError:
                closed = True
            return Answer(answer.status, answer.headers, body, closed)

    def get(self, path: str = "/", **headers: str) -> Answer:
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        return self.send(f"GET {path} HTTP/1.1\r\nHost: door\r\n{lines}\r\n".encode(), wait_closed_s=0.01)

    def lines(self) -> list[dict[str, Any]]:
        """The access log; each line must be JSON."""
        try:
            return [json.loads(line) for line in self.places.access_log.read_text().splitlines()]
        except FileNotFoundError:
            return []

    def ask(self, command: str) -> str:
        with Session(self.layout.haproxy_socket) as session:
            return session.ask(command)


@contextmanager
def public_door(
    environ: Mapping[str, str] | None = None,
    keys: Mapping[str, str] | None = None,
    *,
    name: str = "s",
    must_listen: bool = True,
    **options: Any,
) -> Iterator[Door]:
    """A door with recorders behind it. ``environ`` are settings, ``options`` replace what they come to; ``keys`` has
    the record of each key, as the map has it; ``name`` is the state dir's."""
    made = Path(tempfile.mkdtemp(prefix="hd."))
    state_dir = made / name
    state_dir.mkdir(mode=0o700)
    settings = Settings.load({"HOSTLER_PORT": str(free_port()), **(environ or {})}, state_dir=state_dir)
    port = settings.port
    layout = Layout(state_dir)
    places, program = Places(layout), haproxy_program(settings)
    proxy.make_folder(places)
    write_certificate(settings, places)
    proxy.write_config(program, places, render(replace(proxy.options_of(settings), **options)))
    for key, record in (keys or {}).items():
        with open(places.maps / KEYS, "a") as file:
            file.write(f"{hash_key(key)} {record}\n")
    behind, flower = Recorder(layout.web_socket), Recorder(layout.flower_socket)
    behind.start()
    flower.start()
    scribe = Scribe(places.access_pipe, places.access_log, most_bytes=LOG_BYTES)
    scribe.start()
    with open(proxy.open_pipe(places.access_pipe), "wb") as log, open(made / "haproxy.log", "wb") as said:
        process = subprocess.Popen(
            proxy.argv(program),
            cwd=places.folder,
            env=proxy.environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=said,
            umask=0o077,
        )
    door = Door(port, layout, places, behind, flower, process, scribe, settings)
    try:
        if must_listen:
            wait_until(
                lambda: listens(port) and layout.haproxy_socket.exists(),
                20,
                f"HAProxy:\n{(made / 'haproxy.log').read_text()}",
            )
        yield door
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        scribe.stop()
        behind.stop()
        flower.stop()
        if layout.run != state_dir / "run":
            shutil.rmtree(layout.run, ignore_errors=True)
        shutil.rmtree(made)


def children_of(pid: int) -> list[int]:
    """The processes that ``pid`` started."""
    found = []
    for entry in os.listdir("/proc"):
        with suppress(OSError, ValueError):
            if int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(entry))
    return found
