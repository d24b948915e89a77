"""Services with workers, an agent and real processes: what dies is replaced, what is asked for comes once."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from app.usecases import services
from app.usecases.services import ServiceOutcome
from tests.support.crew import Crew
from tests.support.services import Hands


def create(crew: Crew, count: int = 2, **body: Any) -> ServiceOutcome:
    """A service of mock engines, real processes on this host."""
    asked = {"recipe_name": "inference/mock", "replicas": count, "pool": "local", **body}
    return services.create(crew.ctx, crew.actor, asked)


def members(crew: Crew, service: str, *states: str) -> list[Any]:
    return Hands(crew.ctx).replicas(service, *states)


def await_healthy(crew: Crew, service: str) -> dict[str, Any]:
    def healthy() -> Any:
        shown = services.get(crew.ctx, service)
        return shown if shown["overall_status"] == "healthy" and shown["plan"]["settled"] else None

    shown: dict[str, Any] = crew.await_that(healthy, f"service {service} being healthy")
    return shown


def end(crew: Crew, service: str) -> None:
    crew.await_task(services.cancel(crew.ctx, crew.actor, service).task_id)
    for row in members(crew, service):
        crew.await_released(row.id)
        assert crew.engines(row.id) == []


def test_from_a_recipe_to_processes_and_away(crew: Crew) -> None:
    outcome = create(crew, 3, name="trio")
    assert crew.await_task(outcome.task_id).state == "succeeded"
    shown = await_healthy(crew, "trio")
    assert len({one["port"] for one in shown["replicas"]}) == 3
    assert len(shown["endpoints"]) == 3
    ready = services.ready_members(crew.ctx, "trio")
    assert [(one["ordinal"], one["port"]) for one in ready] == [
        (one["ordinal"], one["port"]) for one in shown["replicas"]
    ]
    for row in members(crew, outcome.service_id):
        assert crew.starts(row.id) == 1
    end(crew, "trio")
    shown = services.get(crew.ctx, outcome.service_id)
    assert (shown["status"], shown["cleanup"]) == ("cancelled", None)


def test_a_killed_replica_is_replaced_and_the_other_is_left_alone(crew: Crew) -> None:
    service = create(crew, 2, restart={"stable_s": 0}).service_id
    await_healthy(crew, service)
    victim, other = members(crew, service)
    os.kill(crew.engines(victim.id)[0], signal.SIGKILL)
    crew.await_state(victim.id, "failed")
    await_healthy(crew, service)
    new = members(crew, service)[-1]
    assert (new.ordinal, new.replaces) == (victim.ordinal, victim.id)
    assert len(members(crew, service)) == 3
    assert crew.starts(new.id) == 1
    assert crew.path(other.id).count("ready") == 1
    assert crew.replica(victim.id).reason == "process_exited"
    end(crew, service)


def test_an_update_of_processes_keeps_them_answering(crew: Crew) -> None:
    service = create(crew, 2).service_id
    await_healthy(crew, service)
    old = {row.id for row in members(crew, service)}
    asked = services.update(crew.ctx, crew.actor, service, {"model_name": "other"})
    assert crew.await_task(asked.task_id).state == "succeeded"
    shown = await_healthy(crew, service)
    assert {one["model_name"] for one in shown["replicas"]} == {"other"}
    assert not old & {one["replica_id"] for one in shown["replicas"]}
    for replica in old:
        crew.await_released(replica)
    end(crew, service)


@pytest.mark.parametrize("without", [("agent",), ("beat", "worker-control")])
def test_whoever_is_left_reconciles(crew: Crew, without: tuple[str, ...]) -> None:
    """The agent's thread and Celery's task each suffice; on the mock backend nothing else is the agent's alone."""
    service = create(crew, 1, pool="mock", restart={"stable_s": 0}).service_id
    await_healthy(crew, service)
    for name in without:
        crew.kill(name)
    try:
        [only] = members(crew, service)
        services.scale(crew.ctx, crew.actor, service, 2)
        # as an autoscaler would: nobody reconciles in its transaction
        crew.change("UPDATE services SET count = 3, look_at = hostler_now() WHERE id = :id", id=service)
        crew.await_that(lambda: len(members(crew, service)) == 3, "the others to be made")
    finally:
        for name in without:
            crew.start(name)
    await_healthy(crew, service)
    assert [row.id for row in members(crew, service, "ready")][:1] == [only.id]
    end(crew, service)


def test_the_database_drops_every_connection_in_the_middle(crew: Crew) -> None:
    service = create(crew, 2, restart={"stable_s": 0}).service_id
    await_healthy(crew, service)
    victim = members(crew, service)[0]
    os.kill(crew.engines(victim.id)[0], signal.SIGKILL)
    for _ in range(5):
        crew.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    crew.await_state(victim.id, "failed")
    await_healthy(crew, service)
    assert len(members(crew, service)) == 3, "replaced once"
    end(crew, service)
