"""Belts: each row is put out of joint by hand, as only a defect could, and is put right by the next sweep."""

from __future__ import annotations

from tests.support.crew import Crew


def test_a_replica_that_nobody_would_look_at_again_is_looked_at(crew: Crew) -> None:
    """An unreleased one: its engine died and the row that says when to look was lost."""
    replica = crew.create(pool="mock")
    crew.await_ready(replica)
    crew.change("UPDATE replicas SET state = 'stopping', next_check_at = NULL WHERE id = :id", id=replica)
    crew.await_released(replica)


def test_a_task_whose_replica_has_what_it_asks_for_ends(crew: Crew) -> None:
    replica = crew.create(pool="mock")
    crew.await_ready(replica)
    [task] = crew.tasks(replica)
    crew.change("UPDATE tasks SET state = 'running', finished_at = NULL WHERE id = :id", id=task.id)
    assert crew.await_task(task.id).state == "succeeded"
    crew.end(replica)
    [create, stop] = crew.tasks(replica)
    crew.change("UPDATE tasks SET state = 'running', finished_at = NULL WHERE id = :id", id=stop.id)
    assert crew.await_task(stop.id).state == "succeeded"
    crew.change("UPDATE tasks SET state = 'running', finished_at = NULL WHERE id = :id", id=create.id)
    assert crew.await_task(create.id).state == "cancelled"


def test_a_launch_that_no_task_carries_fails_and_gives_back_what_it_held(crew: Crew) -> None:
    crew.change("UPDATE pools SET state = 'draining' WHERE name = 'mock'")
    replica = crew.create(pool="mock")
    crew.change("UPDATE tasks SET state = 'failed', finished_at = hostler_now() WHERE replica_id = :id", id=replica)
    crew.change("UPDATE pools SET state = 'active' WHERE name = 'mock'")
    row = crew.await_state(replica, "failed")
    assert row.reason == "backend_error"
    crew.await_released(replica)


def test_leases_that_nobody_owns_are_returned(crew: Crew) -> None:
    replica = crew.create(pool="mock")
    crew.await_ready(replica)
    before = crew.leases(replica)
    assert list(before) == ["slot"]
    # the attempt ends and its leases do not
    crew.change("UPDATE attempts SET released_at = hostler_now() WHERE replica_id = :id", id=replica)
    crew.await_that(lambda: crew.leases(replica) == {}, "its lease being returned")
    held = crew.rows("SELECT 1 FROM units WHERE scope = 'mock' AND number = :n AND lease_id IS NOT NULL",
                     n=before["slot"][0])  # fmt: skip
    assert held == []
    crew.stop_replica(replica)
    crew.await_released(replica)


def test_nothing_that_is_at_work_is_touched(crew: Crew) -> None:
    """Sweeps go by while a launch, a stop and a serving replica take their time."""
    ready = crew.create()
    crew.await_ready(ready)
    starting = crew.create(mock={"startup_s": 12})
    ending = crew.create(mock={"stop_s": 12})
    crew.await_ready(ending)
    crew.stop_replica(ending, grace_s=30)
    before = {name: len(crew.events(name)) for name in (ready, ending)}
    crew.await_ready(starting)
    crew.await_released(ending)
    assert len(crew.events(ready)) == before[ready], crew.story(ready)
    assert crew.path(ending)[-2:] == ["stopping", "stopped"]
    assert crew.path(starting)[-2:] == ["waiting_for_ready", "ready"]
    crew.end(ready, starting)
