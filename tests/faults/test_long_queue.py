"""10,000 creates wait in one pool: all goes on, slower or refused with a time to come back, and in the right order."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from app.errors import QueueFull, Unavailable
from app.usecases import tasks
from app.usecases.explain import explain
from tests.faults.stepper import POOL
from tests.support.crew import Crew

QUEUED = 10_000
TIGHT, SLOTS = "tight", 2

#: As many copies of one create, at four priorities in turn.
_COPIES = """
WITH copies AS (
    SELECT n, substr(md5('replica' || n), 1, 12) AS id, substr(md5('task' || n), 1, 16) AS task_id
    FROM generate_series(1, :count) AS n
),
made AS (
    INSERT INTO replicas (id, owner, pool, backend, engine, server_mode, model_name, spec, labels, priority, timestamps)
    SELECT c.id, r.owner, r.pool, r.backend, r.engine, r.server_mode, r.model_name, r.spec, r.labels, c.n % 4,
        r.timestamps
    FROM copies c, replicas r WHERE r.id = :like RETURNING id
),
asked AS (
    INSERT INTO tasks (id, kind, priority, pool, replica_id, attempt, owner)
    SELECT c.task_id, 'create', c.n % 4, r.pool, c.id, 1, r.owner
    FROM copies c, replicas r WHERE r.id = :like ORDER BY c.n
)
INSERT INTO events (kind, replica_id, attempt, task_id, pool, actor, cause, to_state)
SELECT 'transition', c.id, 1, c.task_id, r.pool, 'tester', 'create requested', 'pending'
FROM copies c, replicas r WHERE r.id = :like ORDER BY c.n
"""


@pytest.fixture
def queue(crew: Crew) -> Iterator[str]:
    """A pool of two slots with a long queue; the id of one of those that wait."""
    crew.change("UPDATE pools SET state = 'draining' WHERE name = :pool", pool=TIGHT)
    first = crew.create(pool=TIGHT, job={"job_priority": "p3"}, timeouts={"queue_timeout_s": 3600})
    crew.change(_COPIES, count=QUEUED, like=first)
    crew.change("ANALYZE tasks, replicas")
    crew.change("UPDATE pools SET state = 'active' WHERE name = :pool", pool=TIGHT)
    crew.ctx.doorbell.ring_now("create", f"pool.{TIGHT}", pool=TIGHT)
    try:
        yield first
    finally:
        crew.change("UPDATE pools SET state = 'draining' WHERE name = :pool", pool=TIGHT)
        running = [row.id for row in _of(crew, "state <> 'pending' AND released_at IS NULL")]
        crew.end(*running)
        crew.change("DELETE FROM replicas WHERE pool = :pool", pool=TIGHT)
        crew.change("UPDATE pools SET state = 'active' WHERE name = :pool", pool=TIGHT)


@pytest.mark.timeout(120)
def test_ten_thousand_wait_and_nothing_goes_wrong(crew: Crew, queue: str) -> None:
    crew.await_that(lambda: len(_of(crew, "state = 'ready'")) == SLOTS, "full slots")
    # of four priorities three go before it
    assert explain(crew.ctx, queue)["position"] == QUEUED * 3 // 4 - SLOTS + 1

    # others ask meanwhile, for this pool and for another
    with ThreadPoolExecutor(8) as pool:
        here = list(pool.map(lambda _: _ask(crew, TIGHT), range(16)))
        elsewhere = list(pool.map(lambda _: _ask(crew, POOL), range(4)))
    accepted = [one for one in here if one]
    assert accepted, "not all were refused"
    for replica in (one for one in elsewhere if one):
        crew.await_ready(replica)

    # those who give up are out at once
    waiting = [row.id for row in _of(crew, "state = 'pending' AND priority = 2")][:40]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda one: tasks.request_cancel(crew.ctx, crew.actor, crew.tasks(one)[0].id), waiting))
    assert {(crew.replica(one).state, crew.tasks(one)[0].state) for one in waiting} == {("stopped", "cancelled")}
    assert all(crew.replica(one).released_at for one in waiting)

    # whose turn it is was asked for first, of the best priority
    expected = [
        row.replica_id
        for row in crew.rows(
            "SELECT replica_id FROM tasks t JOIN replicas r ON r.id = t.replica_id WHERE t.pool = :pool"
            " AND t.kind = 'create' AND t.state IN ('queued', 'running', 'succeeded') AND r.released_at IS NULL"
            " ORDER BY t.priority, t.seq LIMIT 12",
            pool=TIGHT,
        )
    ]
    for turn in range(0, len(expected), SLOTS):
        due = expected[turn : turn + SLOTS]
        for replica in due:
            crew.await_ready(replica)
        assert sorted(row.id for row in _of(crew, "released_at IS NULL AND state <> 'pending'")) == sorted(due)
        crew.end(*due)

    slots = "SELECT count(*) FROM leases WHERE kind = 'slot' AND scope = :pool AND released_at IS NULL"
    assert crew.rows(slots, pool=TIGHT)[0][0] <= SLOTS
    doubled = (
        "SELECT a.id FROM leases a JOIN leases b ON b.kind = a.kind AND b.scope = a.scope AND b.number = a.number"
        " AND b.id > a.id AND (a.released_at IS NULL OR a.released_at > b.acquired_at)"
        " WHERE a.kind = 'slot' AND a.scope = :pool"
    )
    assert crew.rows(doubled, pool=TIGHT) == []
    waits = "SELECT count(*) FROM tasks WHERE pool = :pool AND state = 'queued'"
    left = QUEUED + 1 + len(accepted) - len(waiting) - len(expected)
    crew.await_that(lambda: crew.rows(waits, pool=TIGHT)[0][0] == left - SLOTS, "everybody else to wait")
    crew.end(*(one for one in elsewhere if one))


def _ask(crew: Crew, pool: str) -> str | None:
    """A replica, or None where it was refused with a time to come back."""
    try:
        return crew.create(pool=pool, run_diagnostics=False, timeouts={"queue_timeout_s": 3600})
    except (QueueFull, Unavailable):
        # both go out with Retry-After
        return None


def _of(crew: Crew, condition: str) -> list[Any]:
    return crew.rows(f"SELECT id FROM replicas WHERE pool = :pool AND {condition} ORDER BY created_at", pool=TIGHT)
