"""Trap 3: a stop in each state, twice, over a hung SIGTERM, and on top of a restart; what is stopped is gone."""

from __future__ import annotations

import time

import pytest

from app.errors import Conflict, NotFound
from app.usecases.restarts import request_restart
from tests.support.crew import Crew

#: How to bring a replica into a state and keep it there: body of the create, then what the row must show.
IN_STATE: dict[str, tuple[str, dict[str, object]]] = {
    "starting": ("mock", {"options": {"queue_s": 60}}),
    "waiting_for_ready": ("local", {"mock": {"startup_s": 60}}),
    "ready": ("local", {}),
    "unhealthy": ("local", {"mock": {"health_fails_after_s": 0.5}}),
    "unreachable": ("mock", {"options": {"unreachable_after_s": 0.5, "unreachable_for_s": 3}}),
    "failed": ("mock", {"options": {"fail_launch": "always"}}),
}


@pytest.mark.parametrize("state", list(IN_STATE))
def test_stop_in_each_state_that_lasts(crew: Crew, state: str) -> None:
    pool, body = IN_STATE[state]
    replica = crew.create(pool=pool, **body)
    crew.await_state(replica, state)
    if state == "failed":
        crew.await_released(replica)
    before = crew.tasks(replica)[0].state
    stop = crew.stop_replica(replica)
    row = crew.await_released(replica)
    if state == "failed":
        assert stop.already
        assert (row.state, row.reason) == ("failed", "launch_failed")
        return
    assert row.state == "stopped", crew.story(replica)
    assert crew.await_task(stop.task_id).state == "succeeded"
    create = crew.tasks(replica)[0]
    if before == "running":
        assert (create.state, create.reason, row.reason) == ("cancelled", "cancelled", "cancelled")
    assert crew.engines(replica) == []


def test_stop_while_it_is_queued_ends_it_at_once(crew: Crew) -> None:
    crew.change("UPDATE pools SET state = 'draining' WHERE name = 'drained'")
    replica = crew.create(pool="drained")
    stop = crew.stop_replica(replica)
    row = crew.replica(replica)
    assert (row.state, row.reason, row.released_at is not None) == ("stopped", "cancelled", True)
    assert [task.state for task in crew.tasks(replica)] == ["cancelled", "succeeded"]
    assert crew.task(stop.task_id).message == "nothing was launched"
    crew.change("UPDATE pools SET state = 'active' WHERE name = 'drained'")


@pytest.mark.parametrize("state", ["scheduling", "preparing"])
def test_stop_in_the_states_of_a_launcher_that_is_lost(crew: Crew, state: str) -> None:
    """A launcher holds these states for milliseconds; one that died in them leaves rows like these."""
    crew.change("UPDATE pools SET state = 'draining' WHERE name = 'drained'")
    replica = crew.create(pool="drained")
    name = crew.name(replica)
    crew.change(
        "WITH a AS (INSERT INTO attempts (replica_id, number, name, pool, backend)"
        " VALUES (:id, 1, :name, 'drained', 'mock') RETURNING id),"
        " u AS (SELECT number FROM units WHERE kind = 'slot' AND scope = 'drained' AND lease_id IS NULL LIMIT 1),"
        " l AS (INSERT INTO leases (kind, scope, number, attempt_id, holder)"
        "   SELECT 'slot', 'drained', u.number, a.id, :name FROM a, u RETURNING id, number),"
        " s AS (UPDATE units SET lease_id = l.id FROM l WHERE kind = 'slot' AND scope = 'drained'"
        "   AND units.number = l.number),"
        " t AS (UPDATE tasks SET state = 'running', lease_token = gen_random_uuid(),"
        "   lease_expires_at = hostler_now() + interval '1 hour' WHERE replica_id = :id)"
        " UPDATE replicas SET state = :state WHERE id = :id",
        id=replica,
        name=name,
        state=state,
    )
    stop = crew.stop_replica(replica)
    row = crew.await_released(replica)
    assert (row.state, row.reason) == ("stopped", "cancelled")
    assert crew.await_task(stop.task_id).state == "succeeded"
    crew.change("UPDATE pools SET state = 'active' WHERE name = 'drained'")


def test_stop_twice_is_one_stop(crew: Crew) -> None:
    replica = crew.create(mock={"stop_s": 0.5})
    crew.await_ready(replica)
    first, second = crew.stop_replica(replica), crew.stop_replica(replica)
    assert first.task_id == second.task_id
    crew.await_released(replica)
    third = crew.stop_replica(replica)
    assert (third.already, third.task_id) == (True, first.task_id)
    assert [task.kind for task in crew.tasks(replica)] == ["create", "stop"]
    assert crew.path(replica).count("stopping") == 1


def test_engine_that_ignores_sigterm_is_killed_when_its_grace_is_over(crew: Crew) -> None:
    replica = crew.create(mock={"ignore_sigterm": True})
    crew.await_ready(replica)
    begun = time.monotonic()
    crew.stop_replica(replica, grace_s=2)
    crew.await_released(replica)
    took_s = time.monotonic() - begun
    assert took_s >= 2, crew.story(replica)
    assert took_s < 6, crew.story(replica)
    assert crew.attempt(replica).signal == 9


def test_force_after_a_hung_sigterm_does_not_wait_for_the_grace(crew: Crew) -> None:
    replica = crew.create(mock={"ignore_sigterm": True})
    crew.await_ready(replica)
    stop = crew.stop_replica(replica, grace_s=60)
    crew.await_that(lambda: crew.attempt(replica).stop_asked_at, "the first ask")
    assert crew.replica(replica).state == "stopping"
    assert crew.stop_replica(replica, force=True).task_id == stop.task_id
    crew.await_released(replica, timeout_s=10)
    assert crew.attempt(replica).signal == 9


def test_a_leader_that_died_before_its_group_is_not_gone_yet(crew: Crew) -> None:
    """Trap 4: the shell ends at once, its child lives on: failed, and the port is free only when the child is dead."""
    script = "import os,time\nif os.fork() == 0: time.sleep(600)\nos._exit(3)"
    replica = crew.create(
        mode="platform_workload", platform_config={"command": ["python3", "-c", script]}, run_diagnostics=False
    )
    row = crew.await_state(replica, "failed")
    assert row.reason == "process_exited"
    crew.await_released(replica)
    assert crew.engines(replica) == []


def test_a_pid_that_belongs_to_somebody_else_is_never_signalled(crew: Crew) -> None:
    """Trap 4: the stored pid was reused; the stop finds its own by the mark and leaves the stranger alone."""
    import os
    import subprocess

    replica = crew.create()
    crew.await_ready(replica)
    [engine] = crew.engines(replica)
    stranger = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        crew.change(
            "UPDATE attempts SET backend_ref = jsonb_set(backend_ref, '{ref,pid}', to_jsonb(CAST(:pid AS int)))"
            " WHERE replica_id = :id",
            pid=stranger.pid,
            id=replica,
        )
        crew.stop_replica(replica, grace_s=1)
        crew.await_released(replica)
        assert stranger.poll() is None
        assert not os.path.exists(f"/proc/{engine}")
    finally:
        stranger.kill()
        stranger.wait()


def test_stop_during_a_restart_wins(crew: Crew) -> None:
    replica = crew.create(mock={"stop_s": 1})
    crew.await_ready(replica)
    restart = request_restart(crew.ctx, crew.actor, replica)
    crew.await_state(replica, "stopping")
    stop = crew.stop_replica(replica)
    row = crew.await_released(replica)
    assert row.state == "stopped"
    assert crew.task(restart.task_id).state == "cancelled"
    assert crew.await_task(stop.task_id).state == "succeeded"
    assert crew.engines(replica) == []


def test_stop_of_what_cannot_be_asked_waits_until_it_can(crew: Crew) -> None:
    replica = crew.create(pool="mock", options={"fail_stop": 2})
    crew.await_ready(replica)
    crew.stop_replica(replica)
    crew.await_that(lambda: "stop:" in crew.replica(replica).message, "the trouble being told")
    assert crew.await_released(replica).state == "stopped"


def test_a_stop_waits_behind_no_launch(crew: Crew) -> None:
    """Urgent work has its own queue and process: the launchers here are busy for seconds."""
    replica = crew.create(pool="mock")
    crew.await_ready(replica)
    slow = [crew.create(pool="mock", options={"launch_delay_s": 4}) for _ in range(6)]
    crew.await_that(lambda: any(crew.replica(one).state == "starting" for one in slow), "launches under way")
    begun = time.monotonic()
    crew.stop_replica(replica)
    crew.await_released(replica)
    assert time.monotonic() - begun < 3
    crew.end(*slow)


def test_what_is_not_there_cannot_be_stopped_and_what_is_open_cannot_be_restarted(crew: Crew) -> None:
    with pytest.raises(NotFound):
        crew.stop_replica("0123456789ab")
    replica = crew.create(mock={"startup_s": 60})
    crew.await_state(replica, "waiting_for_ready")
    with pytest.raises(Conflict):
        request_restart(crew.ctx, crew.actor, replica)
    crew.end(replica)
