"""The host's agent is killed; what lived goes on, and the next one finds out what happened meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.faults.stepper import POOL
from tests.support.crew import Crew


def test_launches_deaths_and_stops_without_an_agent_are_caught_up_with(crew: Crew) -> None:
    dies = crew.create(pool=POOL)
    serves = crew.create(pool=POOL)
    stubborn = crew.create(pool=POOL, mock={"ignore_sigterm": True})
    for replica in (dies, serves, stubborn):
        crew.await_ready(replica)
    [engine] = crew.engines(serves)
    with _without_agent(crew):
        starting = crew.create(pool=POOL, mock={"startup_s": 1})
        crew.await_state(starting, "waiting_for_ready")
        os.kill(crew.engines(dies)[0], signal.SIGKILL)
        stop = crew.stop_replica(stubborn, grace_s=1)
        crew.await_that(lambda: crew.task(stop.task_id).phase == "stopping", "the stop being carried out")
    assert crew.await_ready(starting).state == "ready"
    assert crew.await_state(dies, "failed").reason in ("process_exited", "out_of_memory")
    assert crew.await_released(stubborn).state == "stopped"
    assert crew.await_task(stop.task_id).state == "succeeded"
    assert crew.replica(serves).state == "ready"
    assert crew.engines(serves) == [engine], "what served was left alone"
    assert crew.starts(serves) == 1
    crew.end(serves, starting)


def test_agent_killed_while_an_engine_hangs_in_its_diagnostics(crew: Crew) -> None:
    """Nobody waits for the dead agent's diagnostics to time out: the next one runs them itself."""
    replica = crew.create(pool=POOL, mock={"startup_s": 0.6, "latency_ms": 400})
    crew.await_that(
        lambda: crew.tasks(replica)[0].phase == "diagnosing", "the diagnostics to begin", replica_id=replica
    )
    with _without_agent(crew):
        pass
    crew.await_ready(replica, timeout_s=25)
    crew.end(replica)


def test_an_engine_that_hangs_in_its_diagnostics_is_killed_when_its_stop_says_so(crew: Crew) -> None:
    knobs = {"startup_s": 0.6, "hang": True, "ignore_sigterm": True}
    replica = crew.create(pool=POOL, mock=knobs)
    crew.await_that(
        lambda: crew.tasks(replica)[0].phase == "diagnosing", "the diagnostics to begin", replica_id=replica
    )
    crew.stop_replica(replica, grace_s=1)
    assert crew.await_released(replica, timeout_s=15).state == "stopped"


@pytest.mark.parametrize("role", ["worker", "worker-control"])
def test_a_killed_worker_is_started_again_and_what_was_asked_meanwhile_is_done(crew: Crew, role: str) -> None:
    replica = crew.create(pool=POOL)
    crew.await_ready(replica)
    crew.kill(role)
    stop = crew.stop_replica(replica)
    other = crew.create(pool=POOL)
    crew.start(role)
    crew.await_heartbeat(role)
    assert crew.await_released(replica).state == "stopped"
    assert crew.await_task(stop.task_id).state == "succeeded"
    crew.await_ready(other)
    assert crew.starts(other) == 1
    crew.end(other)


def test_worker_killed_with_all_its_children_in_the_middle_of_launches(crew: Crew) -> None:
    """Real Celery workers, not forks of ours: whatever they held is taken back at once, and launched once."""
    crew.await_heartbeat("worker")
    replicas = [crew.create(pool="silent", options={"launch_delay_s": 1.5}) for _ in range(2)]
    crew.await_that(
        lambda: all(crew.tasks(replica)[0].phase == "launching" for replica in replicas), "both launches under way"
    )
    crew.kill("worker")
    crew.start("worker")
    for replica in replicas:
        crew.await_ready(replica)
        [task] = crew.tasks(replica)
        assert (task.state, task.claims) == ("succeeded", 2), crew.story(replica)
        assert list(crew.leases(replica)) == ["slot"]
        assert [event.kind for event in crew.events(replica)].count("task_taken_back") == 1
    crew.await_heartbeat("worker")
    crew.end(*replicas)


def _await_diagnosing(crew: Crew, replica: str) -> None:
    crew.await_that(lambda: crew.tasks(replica)[0].phase == "diagnosing", "the diagnostics", replica_id=replica)


@contextmanager
def _without_agent(crew: Crew) -> Iterator[None]:
    crew.kill("agent")
    try:
        yield
    finally:
        crew.start("agent")
        crew.await_heartbeat("agent")


def test_a_worker_that_hears_no_canary_ends_to_be_started_again(crew: Crew) -> None:
    """Pitfall 4: canaries are sent and do not arrive; its heart beats all the same."""
    worker = crew.processes["worker"]

    def deafened() -> bool:
        crew.change("UPDATE nodes SET canary_at = hostler_now()")
        crew.change(
            "UPDATE workers SET consumed_at = hostler_now() - interval '200 s' WHERE pid = :pid", pid=worker.pid
        )
        return worker.poll() is not None

    crew.await_that(deafened, "the deaf worker to end")
    assert "deaf" in crew.log("worker")
    crew.start("worker")
    crew.await_heartbeat("worker")
    replica = crew.create(pool=POOL)
    crew.await_ready(replica)
    crew.end(replica)
