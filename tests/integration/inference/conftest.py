"""The model API over real engines: llama.cpp with two tiny models, the mock engine, and HAProxy's inside door."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text
from werkzeug.test import TestResponse

from app import create_app
from app.engines.registry import engine
from app.engines.tiny_model import write_tiny_gguf
from app.settings import Settings
from app.stack.layout import Layout
from app.usecases import keys
from app.usecases.context import Actor, Context
from tests.support.door import inside_door
from tests.support.engines import Running, running


@dataclass
class Served:
    """A web application whose inside door leads to engines that run."""

    app: Flask
    folder: Path
    exits: ExitStack
    routes: dict[str, list[int]] = field(default_factory=dict)
    key: str = ""
    #: close it to close the door
    door: ExitStack = field(default_factory=ExitStack)

    @property
    def ctx(self) -> Context:
        found: Context = self.app.extensions["hostler"]
        return found

    def run(self, name: str, kind: str = "llama-cpp", *, seed: int = 7, routed: bool = True, **config: Any) -> Running:
        """A ready replica of model ``name``, with its row."""
        model = None
        if kind == "llama-cpp":
            model = self.folder / f"{name}.gguf"
            if not model.exists():
                write_tiny_gguf(model, seed=seed)
        folder = self.folder / f"attempt-{secrets.token_hex(4)}"
        it = self.exits.enter_context(running(engine(kind), folder, model=model, **config))
        it.wait_ready()
        self.row(name, kind, config)
        if routed:
            self.routes.setdefault(name, []).append(it.port)
        return it

    def row(self, name: str, kind: str, config: dict[str, Any] | None = None, state: str = "ready") -> str:
        """A replica as the database holds it."""
        replica_id = secrets.token_hex(6)
        with self.ctx.database.begin() as connection:
            owner = connection.execute(text("SELECT id FROM keys LIMIT 1")).scalar_one()
            connection.execute(
                text(
                    "INSERT INTO replicas (id, owner, pool, backend, engine, server_mode, model_name, priority, state,"
                    " port, spec) VALUES (:id, :owner, 'local', 'process', :engine, 'replica', :model, 2, :state, 1,"
                    " CAST(:spec AS jsonb))"
                ),
                {
                    "id": replica_id,
                    "owner": owner,
                    "engine": kind,
                    "model": name,
                    "state": state,
                    "spec": json.dumps({"resolved": {"config": config or {}}}),
                },
            )
        return replica_id

    def open(self, **more: Any) -> None:
        """Open the door to what runs now."""
        socket = Layout(self.ctx.settings.state_dir).inside_socket
        self.door.enter_context(inside_door(socket, self.folder / "gateway", self.routes, **more))

    def make_key(self, role: str = "infer", **more: Any) -> str:
        who = Actor("test", "test", "admin")
        made = keys.create(self.ctx, who, {"name": f"{role}-{secrets.token_hex(4)}", "role": role, **more}, None)
        assert made.key is not None
        return made.key

    def get(self, path: str, key: str = "") -> TestResponse:
        return self.app.test_client().get(path, headers={"X-API-Key": key or self.key})

    def post(self, path: str, body: Any, key: str = "", **headers: str) -> TestResponse:
        named = {"X-API-Key": key or self.key} | {name.replace("_", "-"): value for name, value in headers.items()}
        return self.app.test_client().post(path, json=body, headers=named)


@pytest.fixture
def make_served(settings: Settings, tmp_path: Path) -> Iterator[Callable[..., Served]]:
    with ExitStack() as exits:

        def make(**more: Any) -> Served:
            models = tmp_path / "models"
            models.mkdir()
            chosen = replace(settings, models_dir=models, **more)
            admin = f"admin-{secrets.token_hex(16)}"
            keys.ensure_admin_key(chosen, admin)
            app = create_app(chosen)
            exits.callback(app.extensions["hostler"].close)
            served = Served(app, models, exits)
            served.key = served.make_key()
            exits.push(served.door)
            return served

        yield make


@pytest.fixture
def served(make_served: Callable[..., Served]) -> Served:
    """No engine and no door yet."""
    return make_served()


@pytest.fixture
def two_models(served: Served) -> Served:
    """llama-7b and mistral-7b, tiny ones, behind an open door."""
    served.run("llama-7b", seed=7)
    served.run("mistral-7b", seed=8)
    served.open()
    return served


def events(answer: TestResponse) -> list[dict[str, Any]]:
    """The data of a stream's events."""
    assert answer.mimetype == "text/event-stream", answer.get_data(as_text=True)
    lines = answer.get_data(as_text=True).split("\n")
    return [json.loads(line.removeprefix("data: ")) for line in lines if line]
