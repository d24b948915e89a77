"""Changes of one replica at the same instant: each user is told what came of theirs, never that they collided."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text

from app.db.repos import replicas as replicas_repo
from app.db.repos import tasks
from app.domain.tasks import LIFECYCLE_KINDS
from app.errors import Collided, Conflict, NotFound
from app.settings import Settings
from app.usecases import replicas
from app.usecases.context import Actor, Context
from app.usecases.creates import request_create
from app.usecases.keys import ensure_admin_key
from tests.support.embedded import wait_until

ROUNDS = 12
AT_ONCE = 4


@pytest.fixture
def ctx(settings: Settings) -> Iterator[Context]:
    made = Context.open(settings, pool_size=AT_ONCE + 1)
    ensure_admin_key(settings, "k" * 32)
    yield made
    made.close()


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


def test_a_task_that_came_while_the_replica_was_waited_for_is_a_collision(ctx: Context, actor: Actor) -> None:
    """A worker may hold that task by now and wait for the replica: going on would be waiting for each other."""
    replica = _serving(ctx, actor)

    def lock() -> Any:
        with ctx.database.begin() as connection:
            return tasks.lock_with_replica(connection, replica, LIFECYCLE_KINDS)

    with ThreadPoolExecutor(1) as threads:
        with ctx.database.begin() as connection:
            replicas_repo.lock(connection, replica)
            waiting = threads.submit(lock)
            wait_until(lambda: _waits(ctx), 10, "somebody who waits for the replica")
            connection.execute(
                text(
                    "INSERT INTO tasks (id, kind, priority, pool, replica_id, attempt, owner)"
                    " VALUES ('t1', 'restart', 2, 'mock', :id, 2, :owner)"
                ),
                {"id": replica, "owner": actor.key_id},
            )
        with pytest.raises(Collided):
            waiting.result(10)
    # and once more it sees it
    found, row = lock()
    assert [task.id for task in found] == ["t1"]
    assert row is not None
    assert row.id == replica


def _waits(ctx: Context) -> bool:
    query = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with ctx.database.read() as connection:
        return connection.execute(text(query)).first() is not None
