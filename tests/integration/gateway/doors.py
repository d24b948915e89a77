"""A gateway for tests: HAProxy with the product's own configuration and a slow lane, over engines that say their names.

The table is made by hand and stands in the files from the start; no agent and no database.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from app.domain.lifecycle import State
from app.domain.routing import ModelFacts, RegistrationFacts, ReplicaFacts, RouteTable, plan_routes
from app.gateway import maps
from app.gateway.assignment import assign, servers_of, slot_names
from app.gateway.config import Options, render
from app.gateway.config.lanes import Lanes
from app.gateway.config.slots import check_words
from app.gateway.files import write_file
from app.gateway.keys import KeyFacts, make_key_maps
from app.gateway.places import Places
from app.gateway.proxy import make_folder
from app.gateway.servers import arguments
from app.gateway.snapshot import Snapshot, to_json
from app.settings import Settings
from app.stack.haproxy import haproxy_program
from app.stack.layout import Layout, remove_run_dir
from app.usecases.keys import hash_key
from tests.support.embedded import wait_until
from tests.support.ports import free_port
from tests.support.sayers import Sayer

ENGINE_KEY = "the-key-of-the-engines-0123456789"
_SLOTS = 8


@dataclass
class Answer:
    """One answer, read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def served_by(self) -> str | None:
        """Which engine answered, None when it was the gateway."""
        found = self.json
        return found.get("served_by") if isinstance(found, dict) else None


@dataclass
class Door:
    """A running gateway."""

    settings: Settings
    port: int
    layout: Layout
    keys: dict[str, str] = field(default_factory=dict)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = "all",
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 20,
    ) -> Answer:
        """One request on a connection of its own. ``key`` is the name of one of the keys, or None."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            content = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
            sent = {"X-API-Key": self.keys[key]} if key else {}
            if content is not None:
                sent["Content-Type"] = "application/json"
            connection.request(method, path, content, {**sent, **(headers or {})})
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def chat(self, model: str, *, key: str | None = "all", **more: Any) -> Answer:
        body = {"messages": [{"role": "user", "content": "hello"}], "model": model, **more}
        return self.ask("POST", "/v1/chat/completions", body, key=key)

    def raw(self, data: bytes, *, timeout_s: float = 10) -> bytes:
        """Bytes as they are, and all that comes back until the other side closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s) as connection:
            connection.sendall(data)
            found = b""
            while piece := connection.recv(65536):
                found += piece
            return found

    def command(self, line: str) -> str:
        """One command at the runtime socket."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(self.layout.haproxy_socket))
            connection.sendall(line.encode() + b"\n")
            found = b""
            while piece := connection.recv(65536):
                found += piece
            return found.decode()


def replica(sayer: Sayer, model: str, number: int, **more: Any) -> ReplicaFacts:
    """A ready replica of ``model``; its id is made from ``number``."""
    return ReplicaFacts(f"{number:012x}", 1, State.READY, model, "127.0.0.1", sayer.port, **more)


@contextmanager
def open_door(
    tmp: Path,
    replicas: Sequence[ReplicaFacts],
    *,
    models: Sequence[ModelFacts] = (),
    registrations: Sequence[RegistrationFacts] = (),
    keys: Mapping[str, Mapping[str, Any]] | None = None,
    slow_lane: bool = True,
    lanes: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    certificate: str = "",
    max_body: int = 32 * 1024 * 1024,
) -> Iterator[Door]:
    """A gateway over these. ``keys``: name -> fields of KeyFacts; the key ``all`` of role infer is always there."""
    settings = Settings.load({}, state_dir=tmp / "s", max_body=max_body)
    settings.state_dir.mkdir(mode=0o700, exist_ok=True)
    places = Places(Layout(settings.state_dir))
    make_folder(places)
    table = plan_routes(replicas, models, registrations)
    port = free_port()
    known = _write(places, table, {"all": {"role": "infer"}, **(keys or {})})
    options = Options(
        "127.0.0.1",
        port,
        threads=2,
        certificate=certificate,
        max_body=max_body,
        lanes=replace(Lanes(engine_key=ENGINE_KEY, slots=_SLOTS), **(lanes or {})),
    )
    write_file(places.config, render(options, _servers(table, options.lanes)))
    running = [_haproxy(settings, places, tmp)]
    try:
        if slow_lane:
            running.append(_slow_lane(settings, environ or {}, tmp))
            wait_until(lambda: _answers(places.layout.slow_lane_socket), 20, "the slow lane")
        wait_until(lambda: _answers(places.layout.inside_socket), 10, f"HAProxy; see {tmp}/haproxy.err")
        yield Door(settings, port, places.layout, known)
    finally:
        for process in running:
            # gunicorn takes it for "at once", HAProxy ends by it too
            process.send_signal(signal.SIGQUIT if process is not running[0] else signal.SIGTERM)
        for process in running:
            process.wait(20)
        remove_run_dir(settings.state_dir)


def _haproxy(settings: Settings, places: Places, tmp: Path) -> subprocess.Popen[bytes]:
    argv = [str(haproxy_program(settings)), "-W", "-f", places.config.name]
    with open(tmp / "access.log", "wb") as log, open(tmp / "haproxy.err", "wb") as told:
        return subprocess.Popen(argv, cwd=places.folder, stdout=log, stderr=told)


def _slow_lane(settings: Settings, environ: Mapping[str, str], tmp: Path) -> subprocess.Popen[bytes]:
    own = {"HOSTLER_STATE_DIR": str(settings.state_dir), "HOSTLER_MAX_BODY": str(settings.max_body)}
    # told to end, it waits that long for connections which HAProxy keeps
    argv = [sys.executable, "-m", "gunicorn", "-c", "python:app.gateway.slow_lane.gunicorn_conf"]
    argv += ["--graceful-timeout", "1"]
    with open(tmp / "slow-lane.err", "wb") as told:
        return subprocess.Popen(argv, env={**os.environ, **own, **environ}, stdout=subprocess.DEVNULL, stderr=told)


def _write(places: Places, table: RouteTable, keys: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    assignment = assign(table, {}, slot_names(_SLOTS))
    known = {name: f"hostler_{name}_0123456789abcdefghij" for name in keys}
    facts = [
        KeyFacts(id=f"{number:012x}", hash=hash_key(known[name]), **more)
        for number, (name, more) in enumerate(keys.items(), 1)
    ]
    files = {**maps.make_maps(table, assignment), **make_key_maps(facts)}
    for name, entries in files.items():
        write_file(places.maps / name, maps.render_map(entries))
    write_file(places.table, to_json(Snapshot(table, assignment)))
    return known


def _servers(table: RouteTable, lanes: Lanes) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for (slot, server), member in servers_of(table, assign(table, {}, slot_names(_SLOTS))).items():
        relay = lanes.relay.removeprefix("unix@")
        found.setdefault(slot, []).append(f"{server} {arguments(member, relay, check_words(lanes))}")
    return found


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
        except OSError:
            return False
        return True
