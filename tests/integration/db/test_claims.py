"""Claims, leases and fences as single guarded statements: who was faster has it, the other one nothing."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from app.db.engine import Database
from app.db.repos import leases, replicas, tasks
from app.db.repos.replicas import Move
from app.domain.lifecycle import IllegalTransition, State
from app.domain.tasks import Phase, TaskState
from app.settings import Settings
from tests.support.embedded import fresh_database
from tests.support.keys import INSERT_ADMIN

REPLICA = "aaaaaaaaaaaa"


@pytest.fixture
def database(parts: Settings, migrated: str) -> Iterator[Database]:
    with fresh_database(parts, migrated) as url:
        database = Database(url, pool_size=10)
        with database.begin() as connection:
            connection.execute(text(INSERT_ADMIN))
            connection.execute(
                text(
                    "INSERT INTO replicas (id, owner, pool, backend, engine, server_mode, model_name, priority)"
                    " VALUES (:id, '000000000000', 'local', 'process', 'mock', 'replica_mock', 'm', 2)"
                ),
                {"id": REPLICA},
            )
            connection.execute(
                text(
                    "INSERT INTO tasks (id, kind, priority, pool, replica_id, attempt, owner)"
                    " VALUES ('t1', 'create', 2, 'local', :id, 1, 'o')"
                ),
                {"id": REPLICA},
            )
        yield database
        database.close()


def claim(database: Database, worker: str = "w", lease_s: float = 10) -> str | None:
    with database.begin() as connection:
        found = tasks.claim_launch(connection, pool="local", node="n", worker=worker, lease_s=lease_s)
    return found.lease_token if found else None


def test_one_row_is_claimed_once_by_many_at_one_instant(database: Database) -> None:
    with ThreadPoolExecutor(8) as threads:
        tokens = list(threads.map(lambda number: claim(database, f"w{number}"), range(8)))
    assert sum(token is not None for token in tokens) == 1


def test_a_token_that_was_lost_opens_nothing(database: Database) -> None:
    token = claim(database) or ""
    other = "00000000-0000-0000-0000-000000000000"
    move = Move(REPLICA, 1, (State.PENDING, State.SCHEDULING), cause="test", task_id="t1", lease_token=other)
    with database.begin() as connection:
        assert not tasks.renew(connection, "t1", other, 10)
        assert not tasks.lock_held(connection, "t1", other)
        assert not tasks.set_phase(connection, "t1", other, Phase.LAUNCHING)
        assert not tasks.put_back(connection, "t1", other)
        assert replicas.record_moves(connection, [move]) == set()
        assert tasks.renew(connection, "t1", token, 10)
        assert tasks.lock_held(connection, "t1", token)
        assert tasks.put_back(connection, "t1", token)
        assert not tasks.renew(connection, "t1", token, 10), "what was put back is held no more"


def test_a_move_is_guarded_by_state_and_attempt_and_leaves_its_events(database: Database) -> None:
    whole = (State.PENDING, State.SCHEDULING, State.PREPARING, State.STARTING)
    with database.begin() as connection:
        assert replicas.record_moves(connection, [Move(REPLICA, 2, whole, cause="another attempt")]) == set()
        assert replicas.record_moves(connection, [Move(REPLICA, 1, whole[1:], cause="another state")]) == set()
        assert replicas.record_moves(connection, [Move(REPLICA, 1, whole, cause="test")]) == {REPLICA}
        assert replicas.record_moves(connection, [Move(REPLICA, 1, whole, cause="again")]) == set()
        steps = connection.execute(text("SELECT from_state, to_state FROM events ORDER BY id")).all()
        stamps = connection.execute(text("SELECT timestamps FROM replicas")).scalar_one()
    assert [tuple(step) for step in steps] == list(zip(whole, whole[1:], strict=False))
    assert set(whole[1:]) <= set(stamps)


def test_an_illegal_move_is_a_defect_and_not_a_result(database: Database) -> None:
    with pytest.raises(IllegalTransition), database.begin() as connection:
        replicas.record_moves(connection, [Move(REPLICA, 1, (State.PENDING, State.READY), cause="no")])


def test_a_task_ends_once(database: Database) -> None:
    with database.begin() as connection:
        assert tasks.finish(connection, ["t1"], TaskState.SUCCEEDED) == {"t1"}
        assert tasks.finish(connection, ["t1"], TaskState.FAILED) == set()
        assert tasks.read(connection, "t1").state == "succeeded"


def test_units_go_round_and_are_given_once(database: Database) -> None:
    with database.begin() as connection:
        leases.set_capacity(connection, "port", "n", range(20000, 20004))
        attempt = connection.execute(
            text(
                "INSERT INTO attempts (replica_id, number, name, pool, backend)"
                " VALUES (:id, 1, 'a', 'local', 'process') RETURNING id"
            ),
            {"id": REPLICA},
        ).scalar_one()
        first = leases.take(connection, "port", "n", 2, attempt, "a")
        assert first == [20000, 20001]
        leases.give_back(connection, "port", "n", [20000], attempt)
        assert leases.take(connection, "port", "n", 1, attempt, "a") == [20002], "what was just freed comes last"
        assert leases.take(connection, "port", "n", 5, attempt, "a") == [20000, 20003], "no more than there are"
        assert leases.free_count(connection, "port", "n") == 0
        leases.set_capacity(connection, "port", "n", [20003])
        assert leases.held(connection, attempt)["port"] == [20000, 20001, 20002, 20003], "what is held stays held"
        assert replicas.record_released(connection, REPLICA, 1)
        assert leases.free_count(connection, "port", "n") == 1


def test_the_clock_of_deadlines_can_be_moved(database: Database) -> None:
    token = claim(database, lease_s=60)
    with database.begin() as connection:
        query = text("SELECT count(*) FROM tasks WHERE lease_expires_at < hostler_now()")
        assert connection.execute(query).scalar() == 0
        connection.execute(text("UPDATE clock SET shift = interval '2 minutes'"))
        assert connection.execute(query).scalar() == 1
    assert token
