"""A gateway's HAProxy, a database, and replicas that are rows with a small server of the test's own behind them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from app.gateway.keeping import Keeper
from app.gateway.writing import Files
from app.settings import Settings
from app.usecases import gateways
from app.usecases.context import Context
from tests.support.haproxies import Front, state_dir
from tests.support.keys import INSERT_ADMIN
from tests.support.records import Records

NODE = "here"


@dataclass
class World(Records):
    """Rows, servers, and this gateway's keeper."""

    front: Front
    servers: dict[str, Server] = field(default_factory=dict)
    keeper: Keeper | None = None

    def add(self, replica_id: str, model: str = "tiny", state: str = "ready", **more: Any) -> Server:
        """A replica with a server behind it."""
        server = Server(replica_id)
        self.servers[replica_id] = server
        values = {"service": "", "port": server.port, "node": NODE, "gateway_config": {}} | more
        self.change(
            "INSERT INTO replicas (id, owner, pool, backend, engine, server_mode, model_name, priority, state, node,"
            " host, port, base_url, labels, spec) VALUES (:id, '000000000000', 'local', 'process', 'mock',"
            " 'replica_mock', :model, 2, :state, :node, '127.0.0.1', :port, 'http://127.0.0.1:' || :port,"
            " CASE WHEN :service = '' THEN '{}' ELSE jsonb_build_object('service_id', CAST(:service AS text)) END,"
            " jsonb_build_object('resolved', jsonb_build_object('config', '{}'::jsonb), 'gateway_config',"
            " CAST(:gateway_config AS jsonb)))",
            id=replica_id,
            model=model,
            state=state,
            **{**values, "gateway_config": json.dumps(values["gateway_config"])},
        )
        self.change(
            "INSERT INTO attempts (replica_id, number, name, pool, backend, node, port, launching_at)"
            " VALUES (:id, 1, 'x-' || :id, 'local', 'process', :node, :port, hostler_now())",
            id=replica_id,
            node=values["node"],
            port=values["port"],
        )
        return server

    def set_state(self, replica_id: str, state: str) -> None:
        reason = "process_exited" if state == "failed" else None
        self.change(
            "UPDATE replicas SET state = :state, reason = :reason,"
            " base_url = CASE WHEN :state IN ('failed', 'stopped') THEN NULL ELSE base_url END WHERE id = :id",
            id=replica_id,
            state=state,
            reason=reason,
        )

    def release(self, replica_id: str) -> None:
        """Its attempt was seen gone."""
        self.set_state(replica_id, "failed")
        self.change("UPDATE attempts SET released_at = hostler_now() WHERE replica_id = :id", id=replica_id)
        self.change("UPDATE replicas SET released_at = hostler_now() WHERE id = :id", id=replica_id)

    def new_keeper(self, rest_s: float = 0.0) -> Keeper:
        """As an agent that starts makes it."""
        front = self.front
        files = Files(front.places, front.render, front.place)
        gateways.heartbeat(self.ctx, version="t", haproxy_up=True)
        self.keeper = Keeper(self.ctx, front.places, front.haproxy, files, front.place, front.slot_names, rest_s=rest_s)
        return self.keeper

    def turn(self, times: int = 1) -> Any:
        keeper = self.keeper or self.new_keeper()
        for _ in range(times):
            found = keeper.turn()
        return found

    def held(self) -> set[str]:
        return {row.server for row in self.rows("SELECT server FROM gateway_servers")}

    def answers(self, model: str = "tiny", count: int = 4) -> set[str]:
        """Who answers ``count`` requests for a model; statuses for what nobody answers."""
        found = [self.front.get(route=model) for _ in range(count)]
        return {one.text if one.status_code == 200 else str(one.status_code) for one in found}


class Server:
    """Says its name; ``/stream`` says a word and holds the answer open until ``finish``."""

    def __init__(self, name: str) -> None:
        self.release = release = threading.Event()
        self.healthy = True
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status = 200 if outer.healthy or self.path != "/health" else 500
                self._answer(status, name.encode())

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", "0")))
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                with suppress(OSError):
                    self._chunk(b"begun")
                    release.wait(600)
                    self._chunk(b" ended")
                    self._chunk(b"")

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def _chunk(self, body: bytes) -> None:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(body), body))
                self.wfile.flush()

            def log_message(self, *_: object) -> None: ...

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            # callers of these tests go away in the middle of things
            def handle_error(self, *_: object) -> None: ...

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def finish(self) -> None:
        self.release.set()

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def gateway_settings(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("g")
    state = state_dir(folder)
    return replace(settings, state_dir=state, models_dir=state / "models", node_name=NODE)


@pytest.fixture
def front(gateway_settings: Settings) -> Iterator[Front]:
    front = Front(gateway_settings)
    front.start()
    yield front
    front.kill()


@pytest.fixture
def world(gateway_settings: Settings, front: Front) -> Iterator[World]:
    ctx = Context.open(gateway_settings)
    world = World(gateway_settings, ctx, None, front)  # type: ignore[arg-type]
    world.change(INSERT_ADMIN)
    world.new_keeper()
    yield world
    for server in world.servers.values():
        server.close()
    ctx.close()


@pytest.fixture
def front_of(gateway_settings: Settings) -> Iterator[Callable[[int], Front]]:
    """A HAProxy with as many slots as asked."""
    made: list[Front] = []

    def make(slots: int) -> Front:
        made.append(Front(gateway_settings, slots))
        made[-1].start()
        return made[-1]

    yield make
    for front in made:
        front.kill()


def paths(folder: Path) -> dict[str, str]:
    """What the gateway's files hold; without those of keys, which these tests have not."""
    files = (path for path in folder.rglob("*") if path.is_file() and "key" not in path.name)
    return {str(path.relative_to(folder)): path.read_text() for path in files}
