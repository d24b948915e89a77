"""What the checker must find of services: each thing spoiled alone, and nothing in a service that is right.

The service ``S`` has two places: ``D`` is ready in the first, ``E`` was stopped by hand in the second, and ``F`` took
its place.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.checker.story import DOWN, OWNER, SEED, UP, A, Story

S = "555555555555"
D, E, F, G = "dddddddddddd", "eeeeeeeeeeee", "ffffffffffff", "999999999999"
UPDATE = {"max_surge": 1, "max_unavailable": 0}


def tell(story: Story, kind: str, replica: str | None = None, task: str | None = None, **data: Any) -> None:
    """An event of the service."""
    story.sql(
        "INSERT INTO events (kind, replica_id, task_id, actor, cause, request_id, data)"
        " VALUES (%s, %s, %s, 'tester', 'test', %s, %s)",
        *(kind, replica, task, f"f-{SEED}-10", json.dumps({"service_id": S, **data})),
    )


def member(story: Story, replica: str, ordinal: int, revision: int = 1, replaces: str | None = None) -> None:
    story.sql(
        "INSERT INTO service_members (replica_id, service_id, revision, ordinal, replaces) VALUES (%s, %s, %s, %s, %s)",
        *(replica, S, revision, ordinal, replaces),
    )
    story.sql("UPDATE replicas SET labels = %s WHERE id = %s", json.dumps({"service_id": S}), replica)


def revise(story: Story, number: int) -> None:
    story.sql(
        "INSERT INTO service_revisions (service_id, number, spec, actor, cause) VALUES (%s, %s, %s, 'tester', 'test')",
        *(S, number, json.dumps({"update": UPDATE})),
    )


def task(story: Story, name: str, kind: str, state: str, request: int, **columns: str) -> None:
    ended = "NULL" if state == "running" else "now()"
    story.sql(
        "INSERT INTO tasks (id, kind, state, priority, pool, attempt, owner, request_id, arguments, reason,"
        f" finished_at) VALUES (%s, %s, %s, 0, 'mock', 1, %s, %s, %s, %s, {ended})",
        *(name, kind, state, OWNER, f"f-{SEED}-{request}", json.dumps({"service_id": S}), columns.get("reason")),
    )


@pytest.fixture
def served(story: Story) -> Story:
    story.sql(
        "INSERT INTO services (id, name, owner, pool, count, good_revision) VALUES (%s, 's', %s, 'mock', 2, 1)",
        *(S, OWNER),
    )
    revise(story, 1)
    story.asked(10, "/api/v1/services", status=202, service_id=S, task_id="made")
    tell(story, "service_created", count=2, revision=1)
    story.replica(D, UP, "mock", 10)
    member(story, D, 0)
    story.asked(11, f"/api/v1/replicas/{E}/stop")
    story.replica(E, DOWN, "mock", 11)
    member(story, E, 1)
    story.asked(12, f"/api/v1/services/{S}/scale")
    story.replica(F, UP, "mock", 12)
    member(story, F, 1, replaces=E)
    tell(story, "service_good", revision=1)
    task(story, "made", "service_create", "succeeded", 10)
    tell(story, "task_succeeded", task="made")
    return story


def cancel(story: Story) -> None:
    tell(story, "service_cancelled")
    story.sql("UPDATE services SET desired_state = 'cancelled' WHERE id = %s", S)


def _third(story: Story, ordinal: int = 2, replaces: str | None = None) -> None:
    story.asked(13, f"/api/v1/services/{S}/scale")
    story.replica(G, UP, "mock", 13)
    member(story, G, ordinal, replaces=replaces)


def _one_too_many(story: Story) -> None:
    story.sql("UPDATE service_revisions SET spec = %s", json.dumps({"update": {"max_surge": 0, "max_unavailable": 1}}))
    _third(story)


def _no_longer_wanted(story: Story) -> None:
    revise(story, 2)
    tell(story, "service_updated", revision=2, before=1)
    story.sql("UPDATE services SET revision = 2 WHERE id = %s", S)


def _stopped(story: Story) -> None:
    for one, other in (("ready", "stopping"), ("stopping", "stopped")):
        story.step(D, one, other)
    story.sql("UPDATE replicas SET state = 'stopped', released_at = now() WHERE id = %s", D)


def _too_good(story: Story) -> None:
    revise(story, 2)
    tell(story, "service_updated", revision=2, before=1)
    tell(story, "service_good", revision=2)
    story.sql("UPDATE services SET revision = 2, good_revision = 2 WHERE id = %s", S)


def _early(story: Story) -> None:
    tell(story, "service_scaled", count=4, before=2)
    task(story, "grown", "service_scale", "succeeded", 12)
    tell(story, "task_succeeded", task="grown")


def _left(story: Story) -> None:
    cancel(story)
    task(story, "put-away", "service_stop", "succeeded", 12)
    tell(story, "task_succeeded", task="put-away")


def _part_of_a_gang(story: Story) -> None:
    """G waited from the beginning, and got its capacity after the others."""
    story.sql("UPDATE tasks SET arguments = %s WHERE kind = 'create' AND replica_id = ANY(%s)", _gang(), [D, F, G])
    story.sql("DELETE FROM events WHERE kind = 'service_good'")
    story.sql("UPDATE services SET good_revision = NULL, count = 3")


def _gang() -> str:
    return json.dumps({"gang": S})


def _waiting_gang(story: Story) -> None:
    story.asked(13, f"/api/v1/services/{S}/scale")
    story.sql("ALTER TABLE events DISABLE TRIGGER events_append_only")
    story.replica(G, UP, "mock", 13)
    member(story, G, 2)
    first = story.connection.execute("SELECT min(id) FROM events WHERE replica_id = %s", [D]).fetchone()
    assert first is not None
    # it was asked for before the first of them was claimed
    story.sql("UPDATE events SET id = %s WHERE replica_id = %s AND to_state = 'pending'", first[0] - 1000, G)
    _part_of_a_gang(story)


SPOILS: dict[str, tuple[Callable[[Story], None], str]] = {
    "no place": (
        lambda s: s.sql("DELETE FROM service_members WHERE replica_id = %s", D),
        "services: a replica of a service has no place in it",
    ),
    "a stranger in a place": (
        lambda s: s.sql(
            "INSERT INTO service_members (replica_id, service_id, revision, ordinal) VALUES (%s, %s, 1, 2)", A, S
        ),
        "services: a place of a service is held by a replica that is not its",
    ),
    "one too many": (_one_too_many, "services: a service had more replicas than its count and surge allow"),
    "one more at rest": (_third, "services: a service has more replicas than it should when all is at rest"),
    "replaced alive": (
        lambda s: _third(s, 0, replaces=D),
        "services: a replica was replaced that had not ended",
    ),
    "replaced twice": (lambda s: _third(s, 1, replaces=E), "services: a replica was replaced twice"),
    "stopped for nothing": (_stopped, "services: a ready replica was stopped without a cause"),
    "good too soon": (_too_good, "services: a revision was called good before all of it were ready"),
    "good by its row alone": (
        lambda s: s.sql("UPDATE services SET good_revision = NULL"),
        "services: a service's good revision is not the last that was told",
    ),
    "done too soon": (_early, "services: a task of a service succeeded before all were ready"),
    "failed for nothing": (
        lambda s: task(s, "odd", "service_scale", "failed", 12),
        "services: a task of a service failed without a reason",
    ),
    "gone too soon": (_left, "services: a stop of a service succeeded and something was left"),
    "a part of a gang": (_waiting_gang, "services: a part of a gang got its capacity"),
    "not ended": (cancel, "services: a cancelled service has not ended"),
    "ended in silence": (
        lambda s: (cancel(s), s.sql("UPDATE services SET ended_at = now()"))[0],
        "services: the end of a service was not told once",
    ),
    "a hint": (
        lambda s: s.sql("INSERT INTO service_hints (service_id) VALUES (%s)", S),
        "services: nobody looked at a service that was hinted at",
    ),
    "too few": (
        lambda s: s.sql("UPDATE services SET count = 3 WHERE id = %s", S),
        "services: a service has fewer replicas than it should",
    ),
    "of another revision": (
        _no_longer_wanted,
        "services: a replica is of another revision than is wanted when all is at rest",
    ),
    "two of one request": (
        lambda s: task(s, "again", "service_scale", "succeeded", 10),
        "outcomes: one request made more than one task",
    ),
    "an open task": (
        lambda s: task(s, "open", "service_scale", "running", 12),
        "tasks: a task is open though all should be at rest",
    ),
}


def test_a_service_that_is_right_passes(served: Story) -> None:
    assert served.findings() == set()


@pytest.mark.parametrize("name", SPOILS)
def test_what_is_spoiled_is_found(served: Story, name: str) -> None:
    spoil, expected = SPOILS[name]
    spoil(served)
    assert expected in served.findings()


def test_a_gang_that_waits_for_room_is_at_rest_and_so_is_its_service(served: Story) -> None:
    served.sql("INSERT INTO pools (name, backend, slots) VALUES ('three', 'mock', 3)")
    served.sql("INSERT INTO units (kind, scope, number) SELECT 'slot', 'three', n FROM generate_series(0, 2) n")
    tell(served, "service_scaled", count=6, before=2)
    served.sql("UPDATE services SET count = 6 WHERE id = %s", S)
    task(served, "grown", "service_scale", "running", 12)
    for number in range(4):
        replica = f"{number:012x}"
        served.asked(20 + number, f"/api/v1/services/{S}/scale")
        served.sql(
            "INSERT INTO replicas (id, owner, pool, backend, engine, server_mode, model_name, priority)"
            " VALUES (%s, %s, 'three', 'mock', 'mock', 'replica_mock', 'm', 2)",
            *(replica, OWNER),
        )
        served.task(f"waits-{number}", replica, "create", "queued", f"f-{SEED}-{20 + number}")
        served.sql("UPDATE tasks SET pool = 'three', arguments = %s WHERE replica_id = %s", _gang(), replica)
        served.step(replica, None, "pending", f"f-{SEED}-{20 + number}")
        member(served, replica, 2 + number)
    served.sql("UPDATE service_revisions SET spec = %s", json.dumps({"update": {**UPDATE, "max_surge": 4}}))
    assert served.findings() == set()


def test_an_update_that_is_paused_is_at_rest(served: Story) -> None:
    _no_longer_wanted(served)
    task(served, "paused", "service_update", "running", 12)
    served.sql("UPDATE services SET paused = true WHERE id = %s", S)
    assert served.findings() == set()


def test_a_replica_that_its_service_stopped_when_scaled_down_had_a_cause(served: Story) -> None:
    tell(served, "service_scaled", count=1, before=2)
    served.sql("UPDATE services SET count = 1 WHERE id = %s", S)
    _stopped(served)
    served.sql(
        "WITH l AS (UPDATE leases SET released_at = now() WHERE attempt_id IN"
        " (SELECT id FROM attempts WHERE replica_id = %s) RETURNING id)"
        " UPDATE units SET lease_id = NULL WHERE lease_id IN (SELECT id FROM l)",
        D,
    )
    served.sql("UPDATE attempts SET released_at = now() WHERE replica_id = %s", D)
    served.event("released", D)
    served.sql("DELETE FROM service_hints")
    assert served.findings() == set()
