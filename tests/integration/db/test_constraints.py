"""The schema forbids the impossible, whatever a caller believes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from sqlalchemy import text

from app.db.engine import Database
from app.domain.lifecycle import EDGES, State
from app.settings import Settings
from tests.support.embedded import fresh_database, plain_url

A, B = "aaaaaaaaaaaa", "bbbbbbbbbbbb"

BASE = f"""
INSERT INTO keys (id, name, hash, prefix, role) VALUES ('000000000000', 'k', repeat('A', 64), 'x', 'admin');
INSERT INTO replicas (id, owner, pool, backend, engine, server_mode, model_name, priority)
    SELECT id, '000000000000', 'local', 'process', 'mock', 'replica_mock', 'm', 2 FROM (VALUES ('{A}'), ('{B}')) v(id);
INSERT INTO attempts (id, replica_id, number, name, pool, backend) OVERRIDING SYSTEM VALUE
    VALUES (101, '{A}', 1, 'one', 'local', 'process'), (102, '{B}', 1, 'two', 'local', 'process');
INSERT INTO units (kind, scope, number) VALUES ('port', 'n', 20000), ('gpu', 'n', 0);
INSERT INTO leases (id, kind, scope, number, attempt_id, holder) OVERRIDING SYSTEM VALUE
    VALUES (101, 'port', 'n', 20000, 101, 'one');
INSERT INTO tasks (id, kind, priority, pool, replica_id, attempt, owner)
    VALUES ('t1', 'create', 2, 'local', '{A}', 1, '000000000000');
INSERT INTO events (id, kind, actor, cause, to_state) OVERRIDING SYSTEM VALUE
    VALUES (101, 'transition', 'x', 'y', 'pending');
"""

TASK = "INSERT INTO tasks (id, kind, priority, pool, replica_id, attempt, owner, state)"
EVENT = "INSERT INTO events (kind, actor, cause, from_state, to_state, reason) VALUES ('transition', 'x', 'y'"
SERVICE = "INSERT INTO services (id, name, owner, pool, count)"
LEASE = "INSERT INTO leases (kind, scope, number, attempt_id, holder)"
#: what nobody may do -> the constraint (or words) that forbid it
FORBIDDEN: dict[str, tuple[str, str]] = {
    "two live leases on a port": (f"{LEASE} VALUES ('port', 'n', 20000, 102, 'two')", "uq_leases_live"),
    "a lease on a port that is not there": (f"{LEASE} VALUES ('port', 'n', 1, 102, 'two')", "fk_leases_kind_scope"),
    "a slot beyond capacity": (f"{LEASE} VALUES ('slot', 'local', 64, 102, 'two')", "fk_leases_kind_scope_number"),
    "a live lease without an attempt": (f"{LEASE} VALUES ('gpu', 'n', 0, NULL, 'x')", "ck_leases_live_has_attempt"),
    "two units under one lease": ("UPDATE units SET lease_id = 101 WHERE kind IN ('port', 'gpu')", "uq_units_lease"),
    "two open creates": (f"{TASK} VALUES ('t2', 'create', 2, 'local', '{A}', 1, 'o', 'queued')", "uq_tasks_open"),
    "a stop beside an open create": (f"{TASK} VALUES ('t2', 'stop', 0, 'local', '{A}', 1, 'o', 'queued')", "uq_tasks"),
    "a restart beside an open create": (
        f"{TASK} VALUES ('t2', 'restart', 2, 'local', '{A}', 2, 'o', 'running')",
        "uq_tasks_open_lifecycle",
    ),
    "a made-up kind": (f"{TASK} VALUES ('t2', 'x', 2, 'local', '{B}', 1, 'o', 'queued')", "ck_tasks_kind_known"),
    "beyond p3": (f"{TASK} VALUES ('t2', 'stop', 4, 'local', '{B}', 1, 'o', 'queued')", "ck_tasks_priority_range"),
    "an end without its time": ("UPDATE tasks SET state = 'failed'", "ck_tasks_finished_when_ended"),
    "a lease of a task that does not run": (
        "UPDATE tasks SET lease_token = gen_random_uuid(), lease_expires_at = now()",
        "ck_tasks_lease_only_running",
    ),
    "half a lease": ("UPDATE tasks SET state = 'running', lease_expires_at = now()", "ck_tasks_lease_whole"),
    "an illegal step": (f"{EVENT}, 'stopped', 'ready', NULL)", "fk_events_from_state_to_state"),
    "a beginning elsewhere": (f"{EVENT}, NULL, 'ready', NULL)", "ck_events_starts_pending"),
    "a made-up reason": (f"{EVENT}, 'ready', 'failed', 'bad luck')", "ck_events_reason_known"),
    "history rewritten": ("UPDATE events SET actor = 'somebody else'", "never changed"),
    "a made-up state": ("UPDATE replicas SET state = 'fine'", "ck_replicas_state_known"),
    "a failure without a reason": ("UPDATE replicas SET state = 'failed'", "ck_replicas_failed_has_reason"),
    "alive and released": ("UPDATE replicas SET released_at = now()", "ck_replicas_released_is_terminal"),
    "an id that is not hex": (f"UPDATE replicas SET id = 'zzzzzzzzzzzz' WHERE id = '{B}'", "ck_replicas_id_is_hex"),
    "a port that does not exist": ("UPDATE replicas SET port = 70000", "ck_replicas_port_range"),
    "an owner that does not exist": ("UPDATE replicas SET owner = 'x'", "fk_replicas_owner"),
    "a pool that does not exist": ("UPDATE replicas SET pool = 'x'", "fk_replicas_pool"),
    "a pool taken away from its replicas": ("DELETE FROM pools WHERE name = 'local'", "fk_replicas_pool"),
    "two open attempts": (
        f"INSERT INTO attempts (replica_id, number, name, pool, backend) VALUES ('{A}', 2, 'x', 'local', 'process')",
        "uq_attempts_replica_open",
    ),
    "two attempts of one name": (
        f"INSERT INTO attempts (replica_id, number, name, pool, backend, released_at)"
        f" VALUES ('{B}', 2, 'one', 'local', 'process', now())",
        "uq_attempts_name",
    ),
    "more slots than there can be": ("UPDATE pools SET slots = 100001", "ck_pools_slots_range"),
    "a key in plain text": ("UPDATE keys SET hash = 'secret'", "ck_keys_hash_is_sha256"),
    "a made-up role": ("UPDATE keys SET role = 'god'", "ck_keys_role_known"),
    "two stacks in one database": ("INSERT INTO stack (single, id) VALUES (false, 'x')", "ck_stack_one_row"),
    "a service's task that a worker might claim": (
        "INSERT INTO tasks (id, kind, priority, pool, attempt, owner, arguments)"
        " VALUES ('t2', 'service_scale', 2, 'local', 1, 'o', '{\"service_id\": \"x\"}')",
        "ck_tasks_of_replica_or_service",
    ),
    "a task of nothing": (
        "INSERT INTO tasks (id, kind, state, priority, pool, attempt, owner)"
        " VALUES ('t2', 'stop', 'running', 2, 'x', 1, 'o')",
        "ck_tasks_of_replica_or_service",
    ),
    "two running services of one name": (
        f"{SERVICE} VALUES ('{A}', 's', '000000000000', 'local', 1), ('{B}', 's', '000000000000', 'local', 1)",
        "uq_services_name",
    ),
    "a service that runs and has ended": (
        "INSERT INTO services (id, name, owner, pool, count, ended_at)"
        f" VALUES ('{A}', 's', '000000000000', 'local', 1, now())",
        "ck_services_ended_is_cancelled",
    ),
    "a member of a revision that is not there": (
        f"INSERT INTO service_members (replica_id, service_id, revision, ordinal) VALUES ('{A}', '{A}', 1, 0)",
        "fk_service_members_service_id",
    ),
    "a service of nobody": (f"{SERVICE} VALUES ('{A}', 's', 'x', 'local', 1)", "fk_services_owner"),
    "one tick twice": (
        "INSERT INTO sweeps (name, tick, worker) VALUES ('repair', 1, 'a'), ('repair', 1, 'b')",
        "pk_sweeps",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def database(parts: Settings, migrated: str) -> Iterator[Database]:
    with _filled(parts, migrated) as database:
        yield database


@contextmanager
def _filled(parts: Settings, migrated: str) -> Iterator[Database]:
    with fresh_database(parts, migrated) as url:
        database = Database(url, pool_size=2)
        with database.begin() as connection:
            for statement in filter(str.strip, BASE.split(";\n")):
                connection.execute(text(statement))
        yield database
        database.close()


@pytest.mark.parametrize("what", list(FORBIDDEN))
def test_forbidden(database: Database, what: str) -> None:
    statement, words = FORBIDDEN[what]
    with pytest.raises(psycopg.Error, match=words):
        _carry_out(database, statement)


def test_capacity_that_was_taken_away_is_not_leased_again(database: Database) -> None:
    with pytest.raises(psycopg.Error, match="beyond capacity"):
        _carry_out(
            database,
            "UPDATE units SET retired = true WHERE kind = 'gpu'",
            f"{LEASE} VALUES ('gpu', 'n', 0, 102, 'two')",
        )


def _carry_out(database: Database, *statements: str) -> None:
    # past our own Database, which turns some refusals into answers for users
    with psycopg.connect(plain_url(database.url)) as connection:
        for statement in statements:
            connection.execute(statement)
        # the deferred ones are checked here instead of at the commit
        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")


def test_the_lifecycle_rows_are_the_table(database: Database) -> None:
    with database.read() as connection:
        rows = connection.execute(text("SELECT from_state, to_state FROM lifecycle_edges"))
        assert {(State(row[0]), State(row[1])) for row in rows} == EDGES


def test_history_outlives_what_it_tells_of(parts: Settings, migrated: str) -> None:
    """Deleting a replica leaves its events and who held which port, and nothing that is open."""
    with _filled(parts, migrated) as database:
        with database.begin() as connection:
            connection.execute(text("UPDATE leases SET released_at = now()"))
            connection.execute(text(f"DELETE FROM replicas WHERE id = '{A}'"))
        with database.read() as connection:
            [lease] = connection.execute(text("SELECT holder, attempt_id FROM leases"))
            assert tuple(lease) == ("one", None)
            assert connection.execute(text("SELECT count(*) FROM events")).scalar() == 1
            assert connection.execute(text(f"SELECT count(*) FROM tasks WHERE replica_id = '{A}'")).scalar() == 0
