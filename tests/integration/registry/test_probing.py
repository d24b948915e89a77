"""Registered servers are asked as strangers: whether they answer, what they speak, and never with a key of ours."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from sqlalchemy import text

from app.settings import Settings
from app.usecases import keys, registrations
from app.usecases.context import Actor, Context
from app.usecases.tables import TableReader
from tests.support.embedded import wait_until
from workers.probes.batch import Prober
from workers.registered import Registered

ADMIN = Actor("test", "test", "admin")


@pytest.fixture
def ctx(settings: Settings) -> Iterator[Context]:
    context = Context.open(replace(settings, probe_interval_s=0.05, node_name="here"), pool_size=3)
    yield context
    context.close()


@contextmanager
def serving(answers: dict[str, int]) -> Iterator[tuple[int, list[Any]]]:
    """A server that answers these paths with these statuses and others with 404; (its port, what it was asked)."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.command, self.path, dict(self.headers)))
            self.send_response(answers.get(self.path, 404))
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1], asked
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def register(ctx: Context) -> Callable[..., None]:
    """Registers a server of this host with a key of role register and those models."""

    def act(
        replica_id: str, port: int, model: str = "m", role: str = "register", models: list[str] | None = None
    ) -> None:
        made = keys.create(ctx, ADMIN, {"name": f"{replica_id}-key", "role": role, "models": models}, None).record
        actor = Actor(made["id"], made["name"], role, tuple(models) if models is not None else None)
        body = {"replica_id": replica_id, "endpoint": f"localhost:{port}", "capabilities": [{"model": model}]}
        registrations.register(ctx, actor, body)

    return act


def look(ctx: Context, times: int = 1) -> None:
    registered = Registered(ctx)
    with Prober(kept=0) as prober:
        for number in range(times):
            wait_until(lambda: registered.look(prober) > 0, 5, f"look {number}")


def health(ctx: Context, replica_id: str) -> tuple[str, str | None]:
    found = registrations.get(ctx, replica_id)
    return found["health"], found["speaks"]


@pytest.mark.parametrize(
    "answers, wanted",
    [
        ({"/health": 200, "/v1/models": 200}, ("healthy", "http")),
        ({"/v2/health/ready": 200}, ("healthy", "v2")),
        ({}, ("healthy", "http")),
        ({"/health": 302}, ("healthy", "http")),
        ({"/health": 503}, ("unhealthy", "http")),
    ],
)
def test_what_answers_is_asked_without_a_key(
    ctx: Context, register: Callable[..., None], answers: dict[str, int], wanted: tuple[str, str]
) -> None:
    with serving(answers) as (port, asked):
        register("r1", port)
        assert health(ctx, "r1") == ("unknown", None)
        look(ctx)
        assert health(ctx, "r1") == wanted
    assert {method for method, _, _ in asked} == {"GET"}
    assert {path for _, path, _ in asked} == {"/health", "/v1/models", "/v2/health/ready"}
    for _, _, headers in asked:
        assert {name.lower() for name in headers} == {"host", "user-agent", "accept"}


def test_what_speaks_no_http_lives_and_joins_no_route(ctx: Context, register: Callable[..., None]) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                # a frame of HTTP/2, as gRPC servers begin
                connection.sendall(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))

        thread = threading.Thread(target=serve)
        thread.start()
        register("r1", server.getsockname()[1])
        look(ctx)
        thread.join()
    assert health(ctx, "r1") == ("healthy", "other")
    assert members(ctx) == set()


def test_who_went_is_unhealthy_after_a_second_look(ctx: Context, register: Callable[..., None]) -> None:
    registered = Registered(ctx)
    with Prober(kept=0) as prober:
        with serving({"/health": 200}) as (port, _):
            register("r1", port)
            assert registered.look(prober) == 1
            assert members(ctx) == {("m", port)}
        wait_until(lambda: registered.look(prober) > 0, 5, "another look")
        assert health(ctx, "r1")[0] == "healthy"
        wait_until(lambda: registered.look(prober) > 0, 5, "a second look")
    assert health(ctx, "r1")[0] == "unhealthy"
    assert members(ctx) == set()
    # its last answer stands there
    assert registrations.get(ctx, "r1")["answered_at"] is not None


def members(ctx: Context) -> set[tuple[str, int]]:
    """(model, port) of every registered server that is routed to."""
    table = TableReader(ctx).read().table
    return {(one.model, one.port) for one in table.members.values() if one.kind == "registered"}


def test_who_joins_a_models_route(ctx: Context, register: Callable[..., None]) -> None:
    with serving({}) as (port, _):
        register("named", port, "m", models=["m"])
        register("not-named", port, "m", models=["other"])
        register("free", port, "own")
        register("late", port, "own")
        look(ctx)
        found = TableReader(ctx).read().table.members.values()
    assert {(one.id, one.model) for one in found} == {("named", "m"), ("free", "own")}
    # whatever was asked for by its name, the address is the one that was pinned
    assert {one.ip for one in found} == {"127.0.0.1"}


def test_what_a_host_without_an_agent_took_is_asked_by_others(
    ctx: Context, settings: Settings, register: Callable[..., None]
) -> None:
    """Unless its own loopback is meant: here that would be somebody else."""
    with serving({}) as (port, _):
        register("loopback", port)
        register("elsewhere", port)
        with ctx.database.begin() as connection:
            connection.execute(
                text(
                    "UPDATE registrations SET addresses = '{192.0.2.1}', address = '192.0.2.1', local = false"
                    " WHERE replica_id = 'elsewhere'"
                )
            )
        other = Context.open(replace(settings, node_name="there"), pool_size=1)
        assert [row.replica_id for row in registrations.to_probe(other)] == ["elsewhere"]
        with ctx.database.begin() as connection:
            connection.execute(text("INSERT INTO nodes (name) VALUES ('here')"))
        assert registrations.to_probe(other) == []
        other.close()
    assert {row.replica_id for row in registrations.to_probe(ctx)} == {"loopback", "elsewhere"}


def test_another_hosts_loopback_is_not_ours(ctx: Context, settings: Settings, register: Callable[..., None]) -> None:
    with serving({}) as (port, _):
        register("r1", port)
        look(ctx)
        assert members(ctx) == {("m", port)}
        elsewhere = Context.open(replace(settings, node_name="there"), pool_size=1)
        assert members(elsewhere) == set()
        elsewhere.close()
