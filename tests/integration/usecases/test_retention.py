"""What has been kept long enough goes, table by table; nothing that lives goes, and no stream loses it silently."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text

from app.db.engine import Database
from app.db.models import metadata
from app.settings import Settings
from app.usecases import events, retention
from app.usecases.context import Context
from app.usecases.retention import BOUNDS, Bounded, Kept

LIVING, ENDED, UNRELEASED, RESTARTED = "a" * 12, "b" * 12, "c" * 12, "d" * 12
#: Of a service that runs: the last one of its place, and the one before.
LAST, REPLACED = "e" * 12, "f" * 12

#: All of it "now"; tests then move the clock.
SEED = f"""
INSERT INTO keys (id, name, hash, prefix, role, revoked_at, expires_at) VALUES
    ('000000000001', 'used', repeat('A', 64), 'x', 'admin', NULL, NULL),
    ('000000000002', 'revoked', repeat('B', 64), 'x', 'read', hostler_now(), NULL),
    ('000000000003', 'expired', repeat('C', 64), 'x', 'read', NULL, hostler_now()),
    ('000000000004', 'revoked owner', repeat('D', 64), 'x', 'operate', hostler_now(), NULL),
    ('000000000005', 'later', repeat('E', 64), 'x', 'read', NULL, hostler_now() + interval '1 year');
INSERT INTO nodes (name) VALUES ('gone'), ('busy');
INSERT INTO units (kind, scope, number) VALUES ('port', 'gone', 1), ('port', 'gone', 2), ('port', 'busy', 1),
    ('slot', 'deleted-pool', 0), ('slot', 'deleted-pool', 1);
INSERT INTO replicas (id, owner, pool, backend, engine, server_mode, model_name, priority, state, reason, attempt,
                      released_at) VALUES
    ('{LIVING}', '000000000004', 'local', 'process', 'mock', 'replica_mock', 'm', 2, 'ready', NULL, 3, NULL),
    ('{ENDED}', '000000000001', 'local', 'process', 'mock', 'replica_mock', 'm', 2, 'stopped', NULL, 1, hostler_now()),
    ('{UNRELEASED}', '000000000001', 'local', 'process', 'mock', 'replica_mock', 'm', 2, 'failed', 'node_lost', 1,
        NULL),
    ('{RESTARTED}', '000000000001', 'local', 'process', 'mock', 'replica_mock', 'm', 2, 'pending', NULL, 2, NULL),
    ('{LAST}', '000000000001', 'mock', 'mock', 'mock', 'replica_mock', 'm', 2, 'failed', 'process_exited', 1,
        hostler_now()),
    ('{REPLACED}', '000000000001', 'mock', 'mock', 'mock', 'replica_mock', 'm', 2, 'failed', 'process_exited', 1,
        hostler_now());
INSERT INTO services (id, name, owner, pool, count, revision, good_revision, desired_state, ended_at) VALUES
    ('5e0000000001', 'serving', '000000000003', 'mock', 1, 3, 2, 'running', NULL),
    ('5e0000000002', 'over', '000000000001', 'mock', 1, 1, NULL, 'cancelled', hostler_now());
INSERT INTO service_revisions (service_id, number, actor, cause) VALUES
    ('5e0000000001', 1, 'a', 'c'), ('5e0000000001', 2, 'a', 'c'), ('5e0000000001', 3, 'a', 'c'),
    ('5e0000000002', 1, 'a', 'c');
INSERT INTO service_members (replica_id, service_id, revision, ordinal, created_at) VALUES
    ('{REPLACED}', '5e0000000001', 3, 0, hostler_now() - interval '1 minute'),
    ('{LAST}', '5e0000000001', 3, 0, hostler_now());
INSERT INTO attempts (id, replica_id, number, name, pool, backend, node, released_at) OVERRIDING SYSTEM VALUE VALUES
    (101, '{LIVING}', 1, 'living-1', 'local', 'process', 'gone', hostler_now()),
    (102, '{LIVING}', 3, 'living-3', 'local', 'process', 'busy', NULL),
    (103, '{ENDED}', 1, 'ended-1', 'local', 'process', 'gone', hostler_now()),
    (104, '{UNRELEASED}', 1, 'unreleased-1', 'local', 'process', 'busy', NULL),
    (105, '{RESTARTED}', 1, 'restarted-1', 'local', 'process', 'gone', hostler_now());
INSERT INTO leases (id, kind, scope, number, attempt_id, holder, released_at) OVERRIDING SYSTEM VALUE VALUES
    (101, 'port', 'gone', 1, 101, 'living-1', hostler_now()),
    (102, 'port', 'busy', 1, 102, 'living-3', NULL),
    (103, 'slot', 'deleted-pool', 0, NULL, 'other', hostler_now());
UPDATE units SET lease_id = 102 WHERE kind = 'port' AND scope = 'busy';
INSERT INTO tasks (id, kind, state, phase, priority, pool, replica_id, attempt, owner, finished_at) VALUES
    ('t-living', 'create', 'succeeded', 'done', 2, 'local', '{LIVING}', 3, 'k', hostler_now()),
    ('t-ended', 'stop', 'succeeded', 'done', 2, 'local', '{ENDED}', 1, 'k', hostler_now()),
    ('t-unreleased', 'stop', 'running', 'stopping', 2, 'local', '{UNRELEASED}', 1, 'k', NULL),
    ('t-restarted', 'restart', 'queued', 'queued', 2, 'local', '{RESTARTED}', 2, 'k', NULL);
INSERT INTO registrars (id, node) VALUES ('gone/web/1', 'gone');
INSERT INTO registrations (replica_id, generation, owner, registrar, ended_at, end_reason, node, endpoint, host, port,
                           addresses, address, local) VALUES
    ('r-living', 1, '000000000001', 'gone/web/1', NULL, NULL, 'gone', 'a:1', 'a', 1, '{{::1}}', '::1', true),
    ('r-ended', 2, '000000000001', NULL, hostler_now(), 'closed', 'gone', 'a:1', 'a', 1, '{{::1}}', '::1', true);
INSERT INTO idempotency (owner, method, path, key, body_hash) VALUES ('k', 'POST', '/', 'old', 'x');
INSERT INTO sweeps (name, tick, worker) VALUES ('repair', 1, 'w');
INSERT INTO workers (id, node, role, pid) VALUES ('gone/worker/1/1', 'gone', 'worker', 1);
INSERT INTO events (kind, actor, cause, replica_id) VALUES ('old', 'a', 'c', '{LIVING}');
"""
#: What is left of the seed after a year, by table: all that lives, and what refers to it.
LEFT = {
    "attempts": ["living-3", "unreleased-1"],
    "events": ["replica_deleted", "replica_deleted"],
    "idempotency": [],
    "keys": ["expired", "later", "revoked owner", "used"],
    "leases": ["living-3"],
    "nodes": ["busy"],
    "registrations": ["r-living"],
    "replicas": [LIVING, UNRELEASED, RESTARTED, LAST],
    "service_revisions": ["serving 2", "serving 3"],
    "services": ["serving"],
    "sweeps": ["history horizon"],
    "tasks": ["t-restarted", "t-unreleased"],
    "units": ["port busy 1"],
    "workers": [],
}
SHOWN = {
    "attempts": "name",
    "events": "kind",
    "idempotency": "key",
    "leases": "holder",
    "registrations": "replica_id",
    "replicas": "id",
    "service_revisions": "(SELECT name FROM services WHERE id = service_id) || ' ' || number",
    "tasks": "id",
    "units": "kind || ' ' || scope || ' ' || number",
    "workers": "id",
}


@pytest.fixture
def ctx(settings: Settings) -> Iterator[Context]:
    context = Context(settings, Database(settings.database_url))
    change(context, "DELETE FROM units")
    yield context
    context.close()


@pytest.fixture
def seeded(ctx: Context) -> Context:
    for statement in SEED.strip().split(";\n"):
        change(ctx, statement.rstrip(";"))
    return ctx


def change(ctx: Context, statement: str, **values: Any) -> None:
    with ctx.database.begin() as connection:
        connection.exec_driver_sql(statement) if not values else connection.execute(text(statement), values)


def rows(ctx: Context, query: str) -> list[Any]:
    with ctx.database.read() as connection:
        return [row[0] for row in connection.execute(text(query))]


def shown(ctx: Context, table: str) -> list[str]:
    return sorted(rows(ctx, f"SELECT {SHOWN.get(table, 'name')} FROM {table}"))


def pass_time(ctx: Context, interval: str) -> None:
    change(ctx, f"UPDATE clock SET shift = shift + interval '{interval}'")


def forget_all(ctx: Context) -> int:
    total = 0
    while count := retention.forget_old(ctx):
        total += count
    return total


def test_every_table_has_a_bound() -> None:
    assert set(BOUNDS) == set(metadata.tables)


def test_each_bound_by_age_is_tested() -> None:
    assert set(LEFT) == {table for table, bound in BOUNDS.items() if isinstance(bound, Kept)}


def test_nothing_young_goes(seeded: Context) -> None:
    # units that nobody can lease any more have no age
    before = {table: shown(seeded, table) for table in LEFT if table != "units"}
    forget_all(seeded)
    assert {table: shown(seeded, table) for table in before} == before


@pytest.mark.parametrize("table", sorted(LEFT))
def test_what_is_old_goes_and_what_lives_stays(seeded: Context, table: str) -> None:
    pass_time(seeded, "1 year")
    # that key has not been expired for long
    change(seeded, "UPDATE keys SET expires_at = hostler_now() WHERE name = 'later'")
    forget_all(seeded)
    assert shown(seeded, table) == sorted(LEFT[table])


def test_short_lived_things_go_sooner(seeded: Context) -> None:
    pass_time(seeded, "11 minutes")
    forget_all(seeded)
    assert (shown(seeded, "workers"), shown(seeded, "sweeps")) == ([], ["repair"])
    pass_time(seeded, "1 hour")
    forget_all(seeded)
    assert (shown(seeded, "sweeps"), shown(seeded, "idempotency")) == ([], ["old"])
    pass_time(seeded, "1 day")
    forget_all(seeded)
    assert shown(seeded, "idempotency") == []
    assert shown(seeded, "events") == ["old"]


def test_a_deleted_replica_is_told(seeded: Context) -> None:
    pass_time(seeded, "1 year")
    forget_all(seeded)
    told = rows(seeded, "SELECT replica_id FROM events WHERE kind = 'replica_deleted'")
    assert sorted(told) == [ENDED, REPLACED]
    assert rows(seeded, "SELECT coalesce(sum(change), 0)::int FROM replica_counts") == [4]


def test_a_replica_with_an_open_task_stays(seeded: Context) -> None:
    change(
        seeded,
        "INSERT INTO tasks (id, kind, priority, pool, replica_id, attempt, owner)"
        f" VALUES ('t-new', 'diagnose', 2, 'local', '{ENDED}', 1, 'k')",
    )
    pass_time(seeded, "1 year")
    forget_all(seeded)
    assert ENDED in shown(seeded, "replicas")


def test_one_pass_takes_small_batches_and_little_time(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 10)
    monkeypatch.setattr(retention, "BUDGET_S", 0.0)
    change(ctx, "INSERT INTO events (kind, actor, cause) SELECT 'old', 'a', 'c' FROM generate_series(1, 25)")
    change(
        ctx,
        "INSERT INTO idempotency (owner, method, path, key, body_hash)"
        " SELECT 'k', 'POST', '/', n::text, 'x' FROM generate_series(1, 15) n",
    )
    pass_time(ctx, "1 year")
    counts = []
    while count := retention.forget_old(ctx):
        counts.append(count)
    # a batch of each table in each pass
    assert counts == [20, 15, 5]


def test_a_host_that_comes_back_is_not_forgotten(seeded: Context) -> None:
    pass_time(seeded, "1 year")
    change(seeded, "UPDATE nodes SET heartbeat_at = hostler_now() WHERE name = 'gone'")
    forget_all(seeded)
    assert "gone" in shown(seeded, "nodes")
    assert "port gone 2" in shown(seeded, "units")


def test_locked_rows_are_left_for_the_next_pass(seeded: Context) -> None:
    pass_time(seeded, "1 year")
    with seeded.database.begin() as other:
        other.execute(text("SELECT 1 FROM tasks WHERE id = 't-living' FOR UPDATE"))
        forget_all(seeded)
        assert "t-living" in shown(seeded, "tasks")
    forget_all(seeded)
    assert "t-living" not in shown(seeded, "tasks")


def record(ctx: Context, number: int) -> str:
    events.record_event(ctx, "test", {"number": number})
    with ctx.database.read() as connection:
        row = connection.execute(text("SELECT xid::text, id FROM events ORDER BY xid DESC, id DESC LIMIT 1")).one()
    return f"{row[0]}-{row[1]}"


def next_events(stream: Iterator[dict[str, Any] | None], count: int) -> list[Any]:
    told = (next(event for event in stream if event is not None) for _ in range(count))
    return [event["kind"] if event["kind"] == "reset" else event["data"]["number"] for event in told]


@pytest.fixture
def forgotten(ctx: Context) -> list[str]:
    """Places of five events of which the first three are forgotten."""
    places = [record(ctx, number) for number in range(3)]
    pass_time(ctx, "1 year")
    places += [record(ctx, number) for number in range(3, 5)]
    forget_all(ctx)
    assert rows(ctx, "SELECT (data->>'number')::int FROM events ORDER BY xid, id") == [3, 4]
    return places


def test_a_stream_that_resumes_before_the_beginning_is_told(ctx: Context, forgotten: list[str]) -> None:
    assert next_events(events.follow(ctx, {}, forgotten[0], 0.1), 3) == ["reset", 3, 4]
    reset = next(events.follow(ctx, {}, forgotten[0], 0.1))
    assert reset is not None
    # and when it comes back with the id of that, it is not told again
    assert reset["id"] == forgotten[2]
    assert next_events(events.follow(ctx, {}, reset["id"], 0.1), 2) == [3, 4]


@pytest.mark.parametrize("place", [2, 3])
def test_a_stream_that_missed_nothing_is_not(ctx: Context, forgotten: list[str], place: int) -> None:
    assert next_events(events.follow(ctx, {}, forgotten[place], 0.1), 1) == [place + 1]


def test_whoever_asks_for_all_that_is_kept_gets_that(ctx: Context, forgotten: list[str]) -> None:
    assert next_events(events.follow(ctx, {}, "0-0", 0.1), 2) == [3, 4]


def test_filters_do_not_hide_a_reset(ctx: Context, forgotten: list[str]) -> None:
    stream = events.follow(ctx, {"replica_id": LIVING}, forgotten[0], 0.1)
    assert next_events(stream, 1) == ["reset"]


def test_the_beginning_never_moves_back(ctx: Context, forgotten: list[str]) -> None:
    horizon = rows(ctx, "SELECT result::text FROM sweeps WHERE name = 'history horizon'")
    change(
        ctx,
        "INSERT INTO events (id, xid, at, kind, actor, cause) OVERRIDING SYSTEM VALUE"
        " VALUES (9000000, '5', hostler_now() - interval '1 year', 'test', 'a', 'c')",
    )
    forget_all(ctx)
    assert rows(ctx, "SELECT count(*) FROM events WHERE id = 9000000") == [0]
    assert rows(ctx, "SELECT result::text FROM sweeps WHERE name = 'history horizon'") == horizon


def test_bounds_are_said_in_words() -> None:
    assert all((bound.why if isinstance(bound, Bounded) else bound.what) for bound in BOUNDS.values())
