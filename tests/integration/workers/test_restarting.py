"""A restart is a new attempt of the same spec; what the old one said and held stays told."""

from __future__ import annotations

import pytest

from app.errors import Conflict
from app.usecases import logs
from app.usecases.restarts import request_restart
from app.usecases.tasks import request_cancel
from tests.support.crew import Crew

LAUNCHED = ["scheduling", "preparing", "starting", "waiting_for_ready", "ready"]


def test_restart_from_ready(crew: Crew) -> None:
    replica = crew.create(mock={"log_lines": ["hello"]})
    crew.await_ready(replica)
    [old] = crew.engines(replica)
    restart = request_restart(crew.ctx, crew.actor, replica)
    assert crew.await_task(restart.task_id).state == "succeeded"
    row = crew.await_ready(replica)
    assert row.attempt == 2
    [new] = crew.engines(replica)
    assert new != old
    assert crew.path(replica) == ["pending", *LAUNCHED, "stopping", "pending", *LAUNCHED]
    assert crew.attempt(replica, 1).released_at is not None
    assert crew.attempt(replica, 2).released_at is None
    assert {kind: len(held) for kind, held in crew.leases(replica).items()} == {"port": 1, "slot": 1}
    for attempt in (1, 2):
        assert "hello\n" in list(logs.read(crew.ctx, replica, attempt))
    crew.end(replica)


def test_restart_from_failed_keeps_the_first_attempts_reason_and_log(crew: Crew) -> None:
    """Trap 5: logs of attempt 1 are still there after the retry."""
    replica = crew.create(pool="local", mock={"exit_on_start": 5, "log_lines": ["first words"]})
    crew.await_state(replica, "failed")
    crew.await_released(replica)
    crew.change("UPDATE replicas SET spec = jsonb_set(spec, '{resolved,config,mock}', '{}') WHERE id = :id", id=replica)
    restart = request_restart(crew.ctx, crew.actor, replica)
    assert crew.await_task(restart.task_id).state == "succeeded"
    row = crew.await_ready(replica)
    assert (row.attempt, row.reason, row.message) == (2, None, "")
    first = crew.attempt(replica, 1)
    assert (first.reason, first.exit_code) == ("process_exited", 5)
    assert "first words\n" in list(logs.read(crew.ctx, replica, 1))
    assert "first words\n" not in list(logs.read(crew.ctx, replica, 2))
    crew.end(replica)


def test_restart_from_stopped_and_while_its_end_is_not_seen(crew: Crew) -> None:
    replica = crew.create(pool="mock", options={"stop_delay_s": 2})
    crew.await_ready(replica)
    crew.stop_replica(replica, grace_s=30)
    with pytest.raises(Conflict):
        request_restart(crew.ctx, crew.actor, replica)
    crew.await_released(replica)
    request_restart(crew.ctx, crew.actor, replica)
    row = crew.await_ready(replica)
    assert (row.attempt, row.desired_state, row.released_at) == (2, "running", None)
    crew.end(replica)


def test_a_lifetime_counts_from_the_first_launch_after_each_end(crew: Crew) -> None:
    """A replica that was stopped before its launch keeps no old end for its next attempt."""
    replica = crew.create(pool="mock", job={"job_timeout_s": 2})
    crew.await_ready(replica)
    assert crew.await_released(replica).reason == "lifetime_expired"
    request_restart(crew.ctx, crew.actor, replica)
    crew.await_ready(replica)
    assert crew.await_released(replica).reason == "lifetime_expired"
    assert crew.path(replica).count("ready") == 2


@pytest.mark.parametrize("phase", ["queued", "launching", "waiting_for_ready", "diagnosing"])
def test_cancel_of_a_create_in_each_phase(crew: Crew, phase: str) -> None:
    bodies = {
        "queued": {"pool": "drained"},
        "launching": {"pool": "mock", "options": {"queue_s": 60}},
        "waiting_for_ready": {"mock": {"startup_s": 60}},
        "diagnosing": {"mock": {"startup_s": 0.5, "hang": True}},
    }
    if phase == "queued":
        crew.change("UPDATE pools SET state = 'draining' WHERE name = 'drained'")
    replica = crew.create(**bodies[phase])
    [task] = crew.await_that(
        lambda: [task for task in crew.tasks(replica) if task.phase == phase], f"the create {phase}", replica_id=replica
    )
    found = request_cancel(crew.ctx, crew.actor, task.id)
    assert (found["state"], found["reason"]) == ("cancelled", "cancelled")
    row = crew.await_released(replica)
    assert (row.state, row.reason) == ("stopped", "cancelled")
    assert crew.engines(replica) == []
    assert request_cancel(crew.ctx, crew.actor, task.id)["state"] == "cancelled", "cancelling twice is no error"
    with pytest.raises(Conflict):
        request_cancel(crew.ctx, crew.actor, crew.tasks(replica)[1].id)
    crew.change("UPDATE pools SET state = 'active' WHERE name = 'drained'")


def test_a_launch_that_ends_unexpectedly_each_time_is_given_up(crew: Crew) -> None:
    crew.change("UPDATE pools SET state = 'draining' WHERE name = 'drained'")
    replica = crew.create(pool="drained")
    # a defect that no error class knows, at the last of the allowed tries
    crew.change("UPDATE replicas SET spec = spec - 'resolved' WHERE id = :id", id=replica)
    crew.change("UPDATE tasks SET claims = 3 WHERE replica_id = :id", id=replica)
    crew.change("UPDATE pools SET state = 'active' WHERE name = 'drained'")
    row = crew.await_released(replica)
    assert (row.state, row.reason) == ("failed", "backend_error")
    assert crew.tasks(replica)[0].state == "failed"
