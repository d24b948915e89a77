"""What the checker must find in a database: each thing spoiled alone, and nothing in a database that is right."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.checker.story import SEED, UP, A, B, C, Story, name_of

LEASE = "INSERT INTO leases (kind, scope, number, attempt_id, holder, released_at)"
ATTEMPT_OF = "SELECT id FROM attempts WHERE replica_id ="


def _late(story: Story, spoil: str) -> None:
    story.task("late", A, "health", "running")
    story.sql(f"UPDATE tasks SET {spoil} WHERE id = 'late'")


def _lease_twice(story: Story) -> None:
    story.sql("DROP INDEX uq_leases_live")
    story.sql(f"{LEASE} SELECT 'slot', 'mock', 1, id, name, NULL FROM attempts WHERE replica_id = '{C}'")


def _illegal_step(story: Story) -> None:
    story.sql("INSERT INTO lifecycle_edges VALUES ('ready', 'pending')")
    story.step(A, "ready", "pending")
    story.sql("UPDATE replicas SET state = 'pending' WHERE id = %s", A)


def _move_after_release(story: Story) -> None:
    story.sql("INSERT INTO lifecycle_edges VALUES ('stopped', 'failed')")
    story.step(B, "stopped", "failed")


def _give_up(story: Story) -> None:
    story.sql(
        "INSERT INTO events (kind, replica_id, attempt, actor, cause, from_state, to_state, reason, message)"
        " VALUES ('transition', %s, 1, 'x', 'x', 'ready', 'failed', 'backend_error', '4 workers died over it; see')",
        A,
    )


def _set_off(story: Story) -> None:
    story.step(A, "ready", "stopping")
    story.sql("UPDATE replicas SET state = 'stopping' WHERE id = %s", A)


def _late_step(story: Story) -> None:
    """The last step of A as if its transaction had begun before all others."""
    story.sql("ALTER TABLE events DISABLE TRIGGER events_append_only")
    story.sql("UPDATE events SET xid = '3' WHERE replica_id = %s AND to_state = 'ready'", A)


SPOILS: dict[str, tuple[Callable[[Story], None], str]] = {
    "two tasks of one request": (
        lambda s: s.task("more", A, "health", "succeeded", f"f-{SEED}-1"),
        "outcomes: one request made more than one task",
    ),
    "an end twice": (
        lambda s: s.event("task_succeeded", A, task=f"create-{A}"),
        "outcomes: a task did not end exactly once",
    ),
    "an end of another kind": (
        lambda s: s.sql("UPDATE tasks SET state = 'failed' WHERE id = %s", f"create-{A}"),
        "outcomes: a task did not end exactly once",
    ),
    "no end": (
        lambda s: s.task("mute", A, "health", "succeeded"),
        "outcomes: a task did not end exactly once",
    ),
    "an end too early": (
        lambda s: s.sql("UPDATE tasks SET state = 'running', finished_at = NULL WHERE id = %s", f"create-{A}"),
        "outcomes: an open task has ended before",
    ),
    "a task of nobody": (
        lambda s: s.task("odd", A, "health", "succeeded", f"f-{SEED}-99"),
        "outcomes: a task that nobody asked for",
    ),
    "two creates": (
        lambda s: s.task("odd", A, "create", "succeeded"),
        "outcomes: a replica does not have exactly one create",
    ),
    "a launch given up": (
        _give_up,
        "outcomes: a launch was given up for no reason of its own",
    ),
    "a key forgotten": (
        lambda s: s.sql("DELETE FROM idempotency WHERE key = 'key-1'"),
        "keys: what a key did is not remembered as it was answered",
    ),
    "an open task": (
        lambda s: s.task("open", A, "diagnose", "queued"),
        "tasks: a task is open though all should be at rest",
    ),
    "a task past its deadline": (
        lambda s: _late(s, "deadline_at = now() - interval '1 minute'"),
        "tasks: a task is past its deadline",
    ),
    "a lease nobody renews": (
        lambda s: _late(s, "lease_token = gen_random_uuid(), lease_expires_at = now() - interval '1 minute'"),
        "tasks: a task is held by one that stopped renewing",
    ),
    "a replica past its deadline": (
        lambda s: s.sql("UPDATE replicas SET deadline_at = now() - interval '1 minute' WHERE id = %s", A),
        "tasks: a replica is past its deadline",
    ),
    "a replica past its lifetime": (
        lambda s: s.sql("UPDATE replicas SET lifetime_ends_at = now() - interval '1 minute' WHERE id = %s", A),
        "tasks: a replica outlived its lifetime",
    ),
    "a replica on its way": (_set_off, "tasks: a replica is still on its way though all should be at rest"),
    "asked to stop in vain": (
        lambda s: s.sql("UPDATE replicas SET desired_state = 'stopped' WHERE id = %s", A),
        "tasks: a replica serves though it was asked to stop",
    ),
    "never released": (
        lambda s: s.sql("UPDATE replicas SET released_at = NULL WHERE id = %s", B),
        "tasks: an ended replica was never released",
    ),
    "an illegal step": (_illegal_step, "transitions: illegal step ready -> pending"),
    "a gap": (
        lambda s: s.step(A, "unhealthy", "ready"),
        "transitions: step unhealthy -> ready was taken when it was ready",
    ),
    "a step of another attempt": (
        lambda s: s.sql(
            "INSERT INTO events (kind, replica_id, attempt, actor, cause, from_state, to_state)"
            " VALUES ('transition', %s, 2, 'x', 'x', 'ready', 'unhealthy')",
            A,
        ),
        "transitions: step ready -> unhealthy is of attempt 2 though 1 was the one at hand",
    ),
    "a row that says otherwise": (
        lambda s: s.sql("UPDATE replicas SET state = 'unhealthy' WHERE id = %s", A),
        "transitions: the row does not say what its last event said",
    ),
    "released twice": (
        lambda s: s.event("released", B),
        "transitions: an attempt was released more than once",
    ),
    "moved after the release": (_move_after_release, "transitions: an attempt moved after it was released"),
    "vanished": (
        lambda s: s.sql("DELETE FROM replicas WHERE id = %s", B),
        "transitions: a replica vanished that nobody deleted",
    ),
    "no event at all": (
        lambda s: s.sql("DELETE FROM events WHERE replica_id = %s", A),
        "transitions: a replica without any event",
    ),
    "a later step shown first": (_late_step, "streams: a later step is shown before an earlier one"),
    "a lease of one that is over": (
        lambda s: s.sql(f"{LEASE} SELECT 'slot', 'mock', 9, id, name, NULL FROM attempts WHERE replica_id = '{B}'"),
        "leases: a lease is held by an attempt that is over",
    ),
    "a lease of another attempt": (
        lambda s: s.sql("UPDATE replicas SET attempt = 2 WHERE id = %s", A),
        "leases: a lease is held by an attempt that is not the replica's",
    ),
    "one unit, two leases": (_lease_twice, "leases: a unit is leased more than once now"),
    "a unit that knows nothing": (
        lambda s: s.sql("UPDATE units SET lease_id = NULL WHERE kind = 'port'"),
        "leases: a unit and its lease do not agree",
    ),
    "no slot": (
        lambda s: s.sql(f"UPDATE leases SET released_at = now() WHERE kind = 'slot' AND holder = '{name_of(A)}'"),
        "leases: an open attempt does not hold exactly one slot",
    ),
    "another port": (
        lambda s: s.sql("UPDATE attempts SET port = 1 WHERE replica_id = %s", C),
        "leases: an open attempt does not hold exactly the port it is said to have",
    ),
    "a unit held by two": (
        lambda s: s.sql(
            f"{LEASE} SELECT 'slot', 'mock', 1, id, name, released_at FROM attempts WHERE replica_id = '{B}'"
        ),
        "history: a unit was held by two at once",
    ),
    "a lease without a claim": (
        lambda s: s.sql(
            f"{LEASE} VALUES ('slot', 'mock', 5, NULL, 'hostler-test-dddddddddddd-1', now())"
            f" , ('slot', 'mock', 6, ({ATTEMPT_OF} '{A}'), 'hostler-test-dddddddddddd-1', now())"
        ),
        "history: a lease was taken without a claim",
    ),
}


def test_a_stack_that_is_right_passes(story: Story) -> None:
    assert story.findings() == set()


@pytest.mark.parametrize("name", SPOILS)
def test_what_is_spoiled_is_found(story: Story, name: str) -> None:
    spoil, expected = SPOILS[name]
    spoil(story)
    assert expected in story.findings()


def _queue(story: Story, replica: str, number: int, pool: str, spec: str = "{}") -> None:
    story.sql(
        "INSERT INTO replicas (id, owner, pool, backend, engine, server_mode, model_name, priority, spec)"
        " VALUES (%s, '000000000000', %s, 'mock', 'mock', 'replica_mock', 'm', 2, %s)",
        *(replica, pool, spec),
    )
    story.task(f"waits-{number}", replica, "create", "queued", f"f-{SEED}-{number}")
    story.sql("UPDATE tasks SET pool = %s WHERE replica_id = %s", pool, replica)
    story.step(replica, None, "pending", f"f-{SEED}-{number}")
    story.asked(number, "/api/v1/replicas", status=202, replica_id=replica, task_id=f"waits-{number}")


def test_what_waits_for_room_is_at_rest(story: Story) -> None:
    story.sql("INSERT INTO pools (name, backend, slots) VALUES ('full', 'mock', 0)")
    _queue(story, "dddddddddddd", 4, "full")
    assert story.findings() == set()


def test_what_waits_for_gpus_is_at_rest_and_so_is_who_stands_behind_it(story: Story) -> None:
    story.sql("INSERT INTO units (kind, scope, number) VALUES ('gpu', 'node', 0)")
    _queue(story, "dddddddddddd", 4, "mock", '{"resources": {"gpu": 2}}')
    _queue(story, "eeeeeeeeeeee", 5, "mock")
    assert story.findings() == set()


def test_what_could_be_launched_is_not_at_rest(story: Story) -> None:
    story.sql("INSERT INTO units (kind, scope, number) VALUES ('gpu', 'node', 0)")
    _queue(story, "dddddddddddd", 4, "mock", '{"resources": {"gpu": 1}}')
    assert "tasks: a task is open though all should be at rest" in story.findings()


def test_a_restart_begins_a_new_attempt(story: Story) -> None:
    story.sql(
        "INSERT INTO events (kind, replica_id, attempt, actor, cause, from_state, to_state)"
        " VALUES ('transition', %s, 1, 'x', 'x', 'stopped', 'pending')",
        B,
    )
    for one, other in zip(UP, UP[1:], strict=False):
        story.sql(
            "INSERT INTO events (kind, replica_id, attempt, actor, cause, from_state, to_state)"
            " VALUES ('transition', %s, 2, 'x', 'x', %s, %s)",
            B,
            one,
            other,
        )
    assert not {text for text in story.findings() if text.startswith("transitions: step")}
