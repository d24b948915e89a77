"""Whoever asks for a service, or reconciles one, is killed before each line: what was begun is done once, by others."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from app.settings import Settings
from app.usecases import reconciling, services
from app.usecases.context import Idempotency
from tests.faults.steppers import Fork, Steppers, open_steppers
from tests.support.crew import Crew, crew_settings, running_crew
from tests.support.embedded import fresh_database
from tests.support.sampling import sampled
from tests.support.services import Hands

Line = tuple[str, int]
#: Killed side by side: each asks for a service of its own.
TOGETHER = 12
#: Sessions of a fork: until Postgres has ended them, what they locked is left alone.
_HELD = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'hostler-worker'"
BODY = {"recipe_name": "inference/mock", "pool": "mock", "replicas": 2}


@pytest.fixture(scope="module")
def still(parts: Settings, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    """A stack of which no process runs, so that nobody is faster than who is killed."""
    folder = tmp_path_factory.mktemp("still")
    with (
        fresh_database(parts, migrated) as url,
        running_crew(crew_settings(parts, url, folder), folder, roles=()) as crew,
    ):
        yield crew


@pytest.fixture(scope="module")
def forks(still: Crew) -> Iterator[Steppers]:
    with open_steppers(still, still.folder / "steps") as steppers:
        yield steppers


@pytest.mark.timeout(300)
def test_killed_at_each_line_of_a_create(still: Crew, forks: Steppers) -> None:
    lines = _lines(forks.fork("service", list_lines=True, body=BODY))
    assert len(lines) > 60
    lines = sampled(lines)
    for first in range(0, len(lines), TOGETHER):
        together = {line: f"s{first + number}" for number, line in enumerate(lines[first : first + TOGETHER])}
        killed = {
            line: forks.fork("service", stop_at=line, signal=signal.SIGKILL, body={**BODY, "name": name})
            for line, name in together.items()
        }
        for fork in killed.values():
            fork.await_ended()
        _await_noticed(still)
        for line, fork in killed.items():
            _is_whole_or_not_there(still, together[line], fork, line)


@pytest.mark.timeout(300)
def test_killed_at_each_line_of_a_reconcile(still: Crew, forks: Steppers) -> None:
    """A member that died is replaced, one that is too many is stopped, a first time whole is remembered: once each."""
    first = _prepared(still)
    lines = _lines(forks.fork("reconcile", list_lines=True))
    assert len(lines) > 60
    _was_done_once(still, first, ("none", 0))
    for line in sampled(lines):
        prepared = _prepared(still)
        fork = forks.fork("reconcile", stop_at=line, signal=signal.SIGKILL)
        fork.await_ended()
        assert fork.result == {}, line
        _await_noticed(still)
        # hints were taken with what came of them, or not at all
        reconciling.sweep(still.ctx)
        _was_done_once(still, prepared, line)


def _await_noticed(crew: Crew) -> None:
    crew.await_that(lambda: not crew.rows(_HELD), "Postgres to notice that they are dead")


def _lines(fork: Fork) -> list[Line]:
    fork.await_ended()
    assert fork.outcome
    return [tuple(line) for line in fork.result["lines"]]


def _is_whole_or_not_there(crew: Crew, name: str, fork: Fork, line: Line) -> None:
    story = f"killed before {line}: {fork.result}"
    before = crew.rows("SELECT * FROM services WHERE name = :name", name=name)
    assert len(before) <= 1, story
    if before:
        _has(crew, before[0].id, 2, story)
    # who asked hears nothing and asks again, with the same key
    key = Idempotency(fork.case, "POST", "/api/v1/services", "")
    again = services.create(crew.ctx, crew.actor, {**BODY, "name": name}, key)
    assert again.replayed == bool(before), story
    reconciling.sweep(crew.ctx)
    _has(crew, again.service_id, 2, story)
    assert len(crew.rows("SELECT 1 FROM services WHERE name = :name", name=name)) == 1, story


def _has(crew: Crew, service: str, count: int, story: str) -> None:
    rows = crew.rows(
        "SELECT r.id, m.ordinal, (SELECT count(*) FROM tasks t WHERE t.replica_id = r.id AND t.kind = 'create') AS"
        " creates FROM service_members m JOIN replicas r ON r.id = m.replica_id WHERE m.service_id = :id",
        id=service,
    )
    assert sorted(row.ordinal for row in rows) == list(range(count)), story
    assert {row.creates for row in rows} == {1}, story
    labelled = crew.rows("SELECT id FROM replicas WHERE labels->>'service_id' = :id", id=service)
    assert {row.id for row in labelled} == {row.id for row in rows}, story
    tasks = crew.rows("SELECT kind FROM tasks WHERE arguments->>'service_id' = :id", id=service)
    assert [row.kind for row in tasks] == ["service_create"], story


def _prepared(crew: Crew) -> dict[str, Any]:
    """Three services about which something is to be done; all earlier ones are at rest."""
    hands = Hands(crew.ctx)
    dying, shrinking, rising = (
        services.create(crew.ctx, crew.actor, {**BODY, "restart": {"stable_s": 0}}).service_id for _ in range(3)
    )
    for service in (dying, shrinking):
        hands.make_ready(*(row.id for row in hands.live(service)))
    reconciling.sweep(crew.ctx)
    victim = hands.live(dying)[0]
    hands.fail(victim.id)
    crew.change("UPDATE services SET count = 1, look_at = hostler_now() WHERE id = :id", id=shrinking)
    hands.make_ready(*(row.id for row in hands.live(rising)))
    return {"dying": dying, "victim": victim.id, "shrinking": shrinking, "rising": rising}


def _was_done_once(crew: Crew, prepared: dict[str, Any], line: Line) -> None:
    story = f"killed before {line}"
    hands = Hands(crew.ctx)
    replacing = [row for row in hands.replicas(prepared["dying"]) if row.replaces == prepared["victim"]]
    assert len(replacing) == 1, story
    told = "SELECT 1 FROM events WHERE kind = :kind AND data->>'service_id' = :id"
    assert len(crew.rows(told, kind="service_replacing", id=prepared["dying"])) == 1, story
    stopping = hands.replicas(prepared["shrinking"], "stopping", "stopped")
    assert len(stopping) == 1, story
    assert len([task for task in crew.tasks(stopping[0].id) if task.kind == "stop"]) == 1, story
    assert len(crew.rows(told, kind="service_good", id=prepared["rising"])) == 1, story
    [task] = crew.rows("SELECT state FROM tasks WHERE arguments->>'service_id' = :id", id=prepared["rising"])
    assert task.state == "succeeded", story
    assert len(hands.live(prepared["rising"])) == 2, story
    # out of the way of those that come after
    crew.change("UPDATE services SET desired_state = 'cancelled', ended_at = hostler_now(), look_at = NULL")
    crew.change("DELETE FROM service_hints")
