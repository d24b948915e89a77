"""Belts: each row is put out of joint by hand, as only a defect could, and is put right by the next sweep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from app.usecases import stuck
from app.usecases.stuck import free_stuck
from tests.support.crew import Crew


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The crew's own sweep comes every ten seconds and leaves what changed just now; this test's does neither."""
    monkeypatch.setattr(stuck, "SETTLED_S", 0.0)


def test_a_replica_that_nobody_would_look_at_again_is_looked_at(crew: Crew) -> None:
    """An unreleased one: its engine died and the row that says when to look was lost."""
    replica = crew.create(pool="mock")
    crew.await_ready(replica)
    crew.change("UPDATE replicas SET state = 'stopping', next_check_at = NULL WHERE id = :id", id=replica)
    _sweep_until(crew, lambda: crew.replica(replica).released_at is not None)
    assert crew.leases(replica) == {}


def test_a_task_whose_replica_has_what_it_asks_for_ends(crew: Crew) -> None:
    replica = crew.create(pool="mock")
    crew.await_ready(replica)
    [create] = crew.tasks(replica)
    assert _reopened(crew, create.id).state == "succeeded"
    crew.end(replica)
    [create, stop] = crew.tasks(replica)
    assert _reopened(crew, stop.id).state == "succeeded"
    assert _reopened(crew, create.id).state == "cancelled"


def test_a_launch_that_no_task_carries_fails_and_gives_back_what_it_held(crew: Crew) -> None:
    crew.change("UPDATE pools SET state = 'draining' WHERE name = 'mock'")
    replica = crew.create(pool="mock")
    crew.change("UPDATE tasks SET state = 'failed', finished_at = hostler_now() WHERE replica_id = :id", id=replica)
    crew.change("UPDATE pools SET state = 'active' WHERE name = 'mock'")
    _sweep_until(crew, lambda: crew.replica(replica).released_at is not None)
    row = crew.replica(replica)
    assert (row.state, row.reason) == ("failed", "backend_error")


def test_leases_that_nobody_owns_are_returned_by_the_stacks_own_sweep(crew: Crew) -> None:
    replica = crew.create(pool="mock")
    crew.await_ready(replica)
    before = crew.leases(replica)
    assert list(before) == ["slot"]
    # the attempt ends and its leases do not
    crew.change("UPDATE attempts SET released_at = hostler_now() WHERE replica_id = :id", id=replica)
    crew.await_that(lambda: crew.leases(replica) == {}, "its lease being returned")
    held = crew.rows(
        "SELECT 1 FROM units WHERE scope = 'mock' AND number = :n AND lease_id IS NOT NULL", n=before["slot"][0]
    )
    assert held == []
    crew.stop_replica(replica)
    crew.await_released(replica)


def test_nothing_that_is_at_work_is_touched(crew: Crew) -> None:
    """Sweeps go by all the time while a launch, a stop and a serving replica take theirs."""
    ready = crew.create()
    crew.await_ready(ready)
    starting = crew.create(mock={"startup_s": 3})
    ending = crew.create(mock={"stop_s": 3})
    crew.await_ready(ending)
    crew.stop_replica(ending, grace_s=30)
    before = len(crew.events(ready))
    freed: list[int] = []

    def both_done() -> bool:
        freed.append(free_stuck(crew.ctx))
        return crew.replica(starting).state == "ready" and crew.replica(ending).released_at is not None

    crew.await_that(both_done, "the launch and the stop")
    assert set(freed) == {0}
    assert len(crew.events(ready)) == before, crew.story(ready)
    assert crew.path(ending)[-2:] == ["stopping", "stopped"]
    assert crew.path(starting)[-2:] == ["waiting_for_ready", "ready"]
    crew.end(ready, starting)


def _sweep_until(crew: Crew, condition: Callable[[], bool]) -> None:
    crew.await_that(lambda: free_stuck(crew.ctx) >= 0 and condition(), "a sweep to put it right")


def _reopened(crew: Crew, task_id: str) -> Any:
    crew.change("UPDATE tasks SET state = 'running', finished_at = NULL WHERE id = :id", id=task_id)
    _sweep_until(crew, lambda: crew.task(task_id).finished_at is not None)
    return crew.task(task_id)
