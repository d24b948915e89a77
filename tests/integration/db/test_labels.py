"""Totals of lists by label are exact: rows kept by triggers, and a count where there are none."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from alembic import command
from sqlalchemy import Connection, text

from app.db import migrate
from app.db.engine import Database
from app.db.repos import replica_pages
from app.settings import Settings
from tests.support.embedded import fresh_database
from tests.support.keys import INSERT_ADMIN


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    with database.begin() as connection:
        connection.execute(text(INSERT_ADMIN))
    yield database
    database.close()


def add(connection: Connection, number: int, labels: dict[str, object]) -> None:
    connection.execute(
        text(
            "INSERT INTO replicas (id, owner, pool, backend, engine, server_mode, model_name, priority, labels)"
            " VALUES (:id, '000000000000', 'local', 'process', 'mock', 'replica_mock', 'm', 2, CAST(:labels AS jsonb))"
        ),
        {"id": f"{number:012x}", "labels": json.dumps(labels)},
    )


def totals(database: Database, *labels: str) -> list[int]:
    with database.read() as connection:
        return [replica_pages.total(connection, "replicas", {"label": [label]}) for label in labels]


def test_totals_follow_what_is_made_changed_and_deleted(database: Database) -> None:
    with database.begin() as connection:
        add(connection, 1, {"team": "a", "tier": "x"})
        add(connection, 2, {"team": "a"})
        add(connection, 3, {"team": "b", "note": ""})
        add(connection, 4, {})
        add(connection, 5, {"team": 1, "nested": {"team": "a"}})
    asked = ("team=a", "team=b", "tier=x", "note=", "team=1", "team=c")
    assert totals(database, *asked) == [2, 1, 1, 1, 0, 0]
    with database.begin() as connection:
        connection.execute(text("UPDATE replicas SET labels = '{\"team\": \"b\"}' WHERE id = '000000000001'"))
        connection.execute(text("DELETE FROM replicas WHERE id = '000000000002'"))
    assert totals(database, *asked) == [0, 2, 0, 1, 0, 0]
    with database.read() as connection:
        for label, total in zip(asked, totals(database, *asked), strict=True):
            page = replica_pages.replica_page(connection, {"label": [label]}, 50, None)
            assert len(page) == total, label


def test_several_labels_must_all_match(database: Database) -> None:
    with database.begin() as connection:
        add(connection, 1, {"team": "a", "tier": "x"})
        add(connection, 2, {"team": "a"})
    with database.read() as connection:
        assert replica_pages.total(connection, "replicas", {"label": ["team=a", "tier=x"]}) == 1
        assert replica_pages.total(connection, "replicas", {"label": ["team=a"], "status": "pending"}) == 2


def test_the_schema_of_0_1_0_counts_the_replicas_themselves_and_the_upgrade_takes_their_labels_along(
    parts: Settings,
) -> None:
    with fresh_database(parts) as url:
        command.upgrade(migrate._config(url), "0001")
        database = Database(url)
        with database.begin() as connection:
            connection.execute(text(INSERT_ADMIN))
            add(connection, 1, {"team": "a"})
            add(connection, 2, {"team": "a", "size": 3})
        assert totals(database, "team=a", "team=b") == [2, 0]
        migrate.upgrade(url)
        with database.begin() as connection:
            add(connection, 3, {"team": "b"})
            rows = connection.execute(text("SELECT replica_id, name, value FROM replica_labels ORDER BY 1")).all()
        assert [(int(row[0], 16), row[1], row[2]) for row in rows] == [
            (1, "team", "a"),
            (2, "team", "a"),
            (3, "team", "b"),
        ]
        assert totals(database, "team=a", "team=b") == [2, 1]
        database.close()


def test_a_label_is_counted_in_its_index(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO replicas (id, owner, pool, backend, engine, server_mode, model_name, priority, labels)"
                " SELECT lpad(to_hex(g), 12, '0'), '000000000000', 'local', 'process', 'mock', 'replica_mock', 'm', 2,"
                " jsonb_build_object('run', g::text, 'team', CASE WHEN g % 25 = 0 THEN 'a' ELSE 'b' END)"
                " FROM generate_series(1, 20000) g"
            )
        )
    with database.read() as connection:
        connection.execute(text("ANALYZE replica_labels"))
        query = "EXPLAIN SELECT count(*) FROM replica_labels WHERE name = 'team' AND value = 'a'"
        plan = "\n".join(row[0] for row in connection.execute(text(query)))
    assert "ix_replica_labels_pair" in plan, plan
    assert totals(database, "team=a", "run=77") == [800, 1]
