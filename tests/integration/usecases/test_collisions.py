"""Changes of one replica at the same instant: each user is told what came of theirs, never that they collided."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text

from app.errors import Conflict, NotFound
from app.settings import Settings
from app.usecases import replicas
from app.usecases.context import Actor, Context
from app.usecases.creates import request_create
from app.usecases.keys import ensure_admin_key

ROUNDS = 12
AT_ONCE = 4


@pytest.fixture
def ctx(settings: Settings) -> Iterator[Context]:
    made = Context.open(settings, pool_size=AT_ONCE + 1)
    ensure_admin_key(settings, "k" * 32)
    yield made
    made.close()


@pytest.fixture
def actor(ctx: Context) -> Actor:
    with ctx.database.read() as connection:
        return Actor(connection.execute(text("SELECT id FROM keys")).scalar_one(), "admin", "admin")


def _serving(ctx: Context, actor: Actor) -> str:
    """A replica that its rows call ready; no worker runs here."""
    asked = request_create(ctx, actor, {"server_mode": "replica_mock", "model_name": "m", "pool": "mock"})
    with ctx.database.begin() as connection:
        connection.execute(text("UPDATE tasks SET state = 'succeeded', phase = 'done', finished_at = hostler_now()"))
        connection.execute(text("UPDATE replicas SET state = 'ready' WHERE id = :id"), {"id": asked.replica_id})
    return asked.replica_id


def _at_once(*acts: Callable[[], Any]) -> list[Any]:
    barrier = threading.Barrier(len(acts))

    def run(act: Callable[[], Any]) -> Any:
        barrier.wait()
        try:
            return act()
        except (Conflict, NotFound) as answer:
            return answer

    with ThreadPoolExecutor(len(acts)) as threads:
        return list(threads.map(run, acts))


def test_stops_at_once_share_one_task(ctx: Context, actor: Actor) -> None:
    for _ in range(ROUNDS):
        replica = _serving(ctx, actor)
        outcomes = _at_once(*[lambda replica=replica: replicas.request_stop(ctx, actor, replica)] * AT_ONCE)
        assert len({outcome.task_id for outcome in outcomes}) == 1
        assert replicas.get(ctx, replica)["status"] == "stopping"


def test_a_stop_is_never_lost_to_a_restart(ctx: Context, actor: Actor) -> None:
    for _ in range(ROUNDS):
        replica = _serving(ctx, actor)
        outcomes = _at_once(
            lambda replica=replica: replicas.request_stop(ctx, actor, replica),
            lambda replica=replica: replicas.request_restart(ctx, actor, replica),
            lambda replica=replica: replicas.request_restart(ctx, actor, replica),
            lambda replica=replica: replicas.delete(ctx, actor, replica),
        )
        assert outcomes[0].task_id, outcomes
        assert isinstance(outcomes[3], Conflict)
        shown = replicas.get(ctx, replica)
        assert (shown["status"], shown["desired_state"]) == ("stopping", "stopped")
