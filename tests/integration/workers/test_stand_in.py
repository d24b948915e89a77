"""Without a broker the agent carries out what waits: what its host serves, and nothing else."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from app.domain.tasks import LAUNCH_KINDS
from app.settings import Settings
from app.usecases import pools, presence
from app.usecases.context import Actor, Context
from app.usecases.creates import request_create
from app.usecases.presence import NodeFacts
from tests.support.backends import publish
from workers.backends.registry import BACKENDS
from workers.bootstrap import Runtime
from workers.stand_in import StandIn


@pytest.fixture
def runtime(settings: Settings, tmp_path: Path) -> Iterator[Runtime]:
    """Of a host that serves the pool ``ours``; there is a pool ``theirs`` too."""
    made = Runtime(replace(settings, state_dir=tmp_path, node_pools="ours"), "agent")
    publish(made.ctx, *BACKENDS.values())
    presence.register_node(made.ctx, NodeFacts(1, 1, [], "boot", "test"))
    yield made
    made.ctx.close()


def test_pools_of_other_hosts_are_left_to_them(runtime: Runtime) -> None:
    ctx, actor = runtime.ctx, Actor(secrets.token_hex(6), "tester", "admin")
    with ctx.database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO keys (id, name, hash, prefix, role) VALUES (:id, 'tester', repeat('A', 64), 'x', 'admin')"
            ),
            {"id": actor.key_id},
        )
    asked = {}
    for pool in ("ours", "theirs"):
        pools.create(ctx, actor, {"name": pool, "backend": "mock", "slots": 2})
        body = {"server_mode": "replica_mock", "model_name": "m", "pool": pool}
        asked[pool] = request_create(ctx, actor, body).replica_id
    _turn(runtime)
    assert _states(ctx) == {asked["ours"]: "ready", asked["theirs"]: "pending"}
    _turn(_serving_all(runtime))
    assert _states(ctx) == {asked["ours"]: "ready", asked["theirs"]: "ready"}


def _turn(runtime: Runtime) -> None:
    stand_in = StandIn(runtime.settings, lambda: True, threading.Event())
    stand_in._turn(runtime, list(LAUNCH_KINDS))


def _serving_all(runtime: Runtime) -> Runtime:
    runtime.settings = replace(runtime.settings, node_pools="")
    return runtime


def _states(ctx: Context) -> dict[str, str]:
    with ctx.database.read() as connection:
        return {row.id: row.state for row in connection.execute(text("SELECT id, state FROM replicas"))}
