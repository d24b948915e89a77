"""The hot statements at 100,000 replicas and a million events: an index each, and few pages, as the product sends them.

The statements are caught on their way to Postgres while the use case runs, and explained with their own values.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from sqlalchemy import event, text

from app.db.engine import Database
from app.db.repos import events as events_repo
from app.db.repos import log_copies, service_hints, service_members, service_tasks
from app.db.repos import retention as retention_repo
from app.db.repos import tasks as tasks_repo
from app.domain.tasks import Phase, TaskKind
from app.errors import ModelNotFound
from app.settings import Settings
from app.usecases import (
    events,
    explain,
    health,
    replicas,
    retention,
    served,
    served_models,
    services,
    sweeps,
    tasks,
    watching,
)
from app.usecases.context import Actor, Context
from tests.support.embedded import fresh_database, plain_url

#: `HOSTLER_TEST_EVENTS=1000000 make test TESTS=tests/integration/db/test_plans.py` is the full size; CI has less time.
REPLICAS, EVENTS = 100_000, int(os.environ.get("HOSTLER_TEST_EVENTS", "300000"))
QUEUED, SERVING = 5_000, 10_000
OPEN = "00000000000a"
BIG = {
    "replicas",
    "events",
    "tasks",
    "attempts",
    "leases",
    "idempotency",
    "replica_labels",
    "services",
    "service_members",
}
#: 8 KiB each, of one statement. A page of 50 or a claim takes some dozens; what looks at all that serves takes more.
FEW, MANY = 600, 25_000

#: One of the services has died 20,000 times, and was scaled as often.
SERVICES, ONE = 1_000, "000000000001"
#: Of a log that is read while it is written to, in words of one byte.
CHUNKS = 2_000
SPEC = '{"update": {}, "restart": {}, "config": {}, "warnings": [], "replica": {}, "all_or_nothing": false}'

LOAD = f"""
ALTER TABLE replicas DISABLE TRIGGER USER;
INSERT INTO keys (id, name, hash, prefix, role) VALUES ('000000000001', 'k', repeat('A', 64), 'x', 'admin');
INSERT INTO nodes (name) VALUES ('n');
INSERT INTO replicas (id, owner, pool, backend, engine, server_mode, model_name, labels, priority, state, reason, node,
                      desired_state, released_at, created_at, port, spec)
SELECT lpad(to_hex(g), 12, '0'), '000000000001', 'mock', 'mock', 'mock', 'replica_mock', 'm' || g % 10,
       jsonb_build_object('run', g::text, 'team', CASE WHEN g % 25 = 0 THEN 'a' ELSE 'b' END), 2,
       CASE WHEN g <= {QUEUED} THEN 'pending' WHEN g <= {QUEUED + SERVING} THEN 'ready'
            WHEN g % 2 = 0 THEN 'stopped' ELSE 'failed' END,
       CASE WHEN g > {QUEUED + SERVING} AND g % 2 = 1 THEN 'process_exited' END,
       CASE WHEN g > {QUEUED} AND g <= {QUEUED + SERVING} THEN 'n' END, 'running',
       CASE WHEN g > {QUEUED + SERVING} THEN hostler_now() - g * interval '1 second' END,
       hostler_now() - g * interval '1 second',
       CASE WHEN g > {QUEUED} AND g <= {QUEUED + SERVING} THEN 20000 END, '{{"resolved": {{"config": {{}}}}}}'
FROM generate_series(1, {REPLICAS}) g;
ALTER TABLE replicas ENABLE TRIGGER USER;
INSERT INTO replica_counts (state, server_mode, model_name, pool, owner, change)
SELECT state, server_mode, model_name, pool, owner, count(*) FROM replicas GROUP BY 1, 2, 3, 4, 5;
INSERT INTO replica_labels (replica_id, name, value)
SELECT id, name, value FROM replicas, jsonb_each_text(labels) AS label (name, value);
INSERT INTO attempts (replica_id, number, name, pool, backend, node, backend_ref, launching_at, released_at)
SELECT id, 1, 'a-' || id, 'mock', 'mock', node, '{{}}', created_at, released_at FROM replicas WHERE state <> 'pending';
INSERT INTO tasks (id, kind, state, phase, priority, pool, replica_id, attempt, owner, finished_at, created_at)
SELECT 't' || id, 'create', CASE WHEN state = 'pending' THEN 'queued' ELSE 'succeeded' END,
       CASE WHEN state = 'pending' THEN 'queued' ELSE 'done' END, 2, 'mock', id, 1, owner,
       CASE WHEN state <> 'pending' THEN created_at END, created_at FROM replicas;
INSERT INTO leases (kind, scope, number, attempt_id, holder, released_at)
SELECT 'slot', 'mock', a.id % 20000, a.id, a.name, a.released_at FROM attempts a WHERE a.released_at IS NOT NULL;
INSERT INTO idempotency (owner, method, path, key, body_hash, created_at)
SELECT 'k', 'POST', '/', g::text, 'x', hostler_now() - g * interval '1 second' FROM generate_series(1, 50000) g;
INSERT INTO events (kind, replica_id, task_id, pool, actor, cause, to_state, at)
SELECT 'transition', lpad(to_hex(g % {REPLICAS} + 1), 12, '0'), 't' || lpad(to_hex(g % {REPLICAS} + 1), 12, '0'),
       'mock', 'hostler', 'c', 'pending', hostler_now() - interval '20 days' FROM generate_series(1, {EVENTS}) g;
INSERT INTO services (id, name, owner, pool, count, look_at)
SELECT lpad(to_hex(g), 12, '0'), 's' || g, '000000000001', 'mock', 3, hostler_now()
FROM generate_series(1, {SERVICES}) g;
INSERT INTO service_revisions (service_id, number, actor, cause, spec)
SELECT id, 1, 'a', 'c', '{SPEC}' FROM services;
INSERT INTO service_members (replica_id, service_id, revision, ordinal)
SELECT lpad(to_hex({QUEUED} + (s - 1) * 3 + o + 1), 12, '0'), lpad(to_hex(s), 12, '0'), 1, o
FROM generate_series(1, {SERVICES}) s, generate_series(0, 2) o;
INSERT INTO service_members (replica_id, service_id, revision, ordinal, past)
SELECT id, '{ONE}', 1, 0, true FROM replicas WHERE state = 'failed' ORDER BY id LIMIT 20000;
INSERT INTO tasks (id, kind, state, phase, priority, pool, attempt, owner, finished_at, arguments)
SELECT 'ts' || g, 'service_scale', 'succeeded', 'done', 2, 'mock', 1, 'k', hostler_now(),
       jsonb_build_object('service_id', '{ONE}') FROM generate_series(1, 20000) g;
INSERT INTO service_hints (service_id)
SELECT lpad(to_hex(g % {SERVICES} + 1), 12, '0') FROM generate_series(1, 20000) g;
INSERT INTO log_copies (attempt_id, wanted_until, size_bytes)
SELECT id, hostler_now() + interval '1 hour', {CHUNKS} FROM attempts WHERE node = 'n' ORDER BY id LIMIT 40;
INSERT INTO log_chunks (copy_id, starts, place, data)
SELECT c.id, g, 'p' || g, 'x' FROM log_copies c, generate_series(0, {CHUNKS} - 1) g
"""

Caught = list[tuple[str, Any]]
Acts = dict[str, tuple[int, Callable[[Context], Any]]]


@pytest.fixture(scope="module")
def loaded(parts: Settings, migrated: str) -> Iterator[Context]:
    with fresh_database(parts, migrated) as url:
        with psycopg.connect(plain_url(url), autocommit=True) as connection:
            for statement in LOAD.strip().split(";\n"):
                connection.execute(statement.rstrip(";").encode())
            connection.execute("VACUUM ANALYZE")
        settings = Settings(**{**parts.__dict__, "database_url": url, "namespace": "plans", "node_name": "n"})
        context = Context(settings, Database(url))
        yield context
        context.close()


@contextmanager
def caught(database: Database) -> Iterator[Caught]:
    """What is sent meanwhile, with its values."""
    found: Caught = []

    def take(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_more: Any) -> None:
        found.append((statement, parameters))

    event.listen(database._engine, "before_cursor_execute", take)
    try:
        yield found
    finally:
        event.remove(database._engine, "before_cursor_execute", take)


def _in_vain(act: Callable[[Any], Any]) -> Callable[[Context], None]:
    """``act`` in a transaction that is given up: the next test finds the same rows."""

    def run(ctx: Context) -> None:
        with ctx.database.begin() as connection:
            act(connection)
            connection.rollback()

    return run


def _read(act: Callable[[Any], Any]) -> Callable[[Context], Any]:
    def run(ctx: Context) -> Any:
        with ctx.database.read() as connection:
            return act(connection)

    return run


def _claim_launch(connection: Any) -> None:
    task = tasks_repo.claim_launch(connection, pool="mock", node="n", worker="n/w", lease_s=15)
    assert task is not None
    tasks_repo.is_overtaking(connection, task.id, "mock")


def _claim_stop(connection: Any) -> None:
    kinds = {"kind": TaskKind.STOP, "phase": Phase.STOPPING}
    tasks_repo.claim_other(connection, pool="mock", node="n", worker="n/w", lease_s=15, **kinds)


def _unknown_model(ctx: Context) -> None:
    with pytest.raises(ModelNotFound):
        served.choose(ctx, ANYBODY, "nothing")


#: The first attempt, whose log is the first copy's.
COPIED = 1
ANYBODY = Actor("000000000001", "k", "admin")
ACTS: Acts = {
    "claim of a launch": (FEW, _in_vain(_claim_launch)),
    "claim of a stop": (FEW, _in_vain(_claim_stop)),
    "what is due": (MANY, lambda ctx: watching.claim_due(ctx, ctx.settings.node_name)),
    "what is due elsewhere": (MANY, lambda ctx: watching.claim_due(ctx, None)),
    "page": (FEW, lambda ctx: replicas.list_replicas(ctx, {}, 50, None)),
    # the newest 15,000 are none of them and are passed over: the planner takes states to be spread evenly
    "page by status": (2 * FEW, lambda ctx: replicas.list_replicas(ctx, {"status": "failed"}, 50, None)),
    "page by model": (FEW, lambda ctx: replicas.list_replicas(ctx, {"model_name": "m3"}, 50, None)),
    "page by pool": (FEW, lambda ctx: replicas.list_replicas(ctx, {"pool": "mock"}, 50, None)),
    "page by owner": (FEW, lambda ctx: replicas.list_replicas(ctx, {"owner": "000000000001"}, 50, None)),
    "page by label": (FEW, lambda ctx: replicas.list_replicas(ctx, {"label": ["team=a"]}, 50, None)),
    "one replica": (FEW, lambda ctx: replicas.get(ctx, OPEN)),
    "tasks by state": (FEW, lambda ctx: tasks.list_tasks(ctx, {"state": "queued"}, 50, None)),
    "tasks of a replica": (FEW, lambda ctx: tasks.list_tasks(ctx, {"replica_id": OPEN}, 50, None)),
    "events, newest first": (FEW, lambda ctx: events.list_events(ctx, {}, 50, None)),
    "events of a task": (FEW, lambda ctx: events.list_events(ctx, {"task_id": f"t{OPEN}"}, 50, None)),
    "events of a replica": (FEW, lambda ctx: events.of_replica(ctx, OPEN, 50, None)),
    "events, onward": (FEW, lambda ctx: events.list_events(ctx, {}, 50, "5-5", oldest_first=True)),
    "the feed's first look": (FEW, _read(lambda connection: events_repo.newest_settled(connection, 500))),
    "the feed": (FEW, _read(lambda connection: events_repo.settled_behind(connection, (2**40, 5), 1000))),
    "health": (FEW, lambda ctx: health.look(ctx.database)),
    "services that are due": (FEW, _read(lambda connection: service_hints.due(connection, 200, 35.0))),
    "hints of a service": (FEW, _read(lambda connection: service_hints.read(connection, [ONE]))),
    "members of a service": (FEW, _read(lambda connection: service_members.planned(connection, [ONE]))),
    "open tasks of a service": (FEW, _read(lambda connection: service_tasks.open_of(connection, [ONE]))),
    "one service": (FEW, lambda ctx: services.get(ctx, ONE)),
    "one service, by name": (FEW, lambda ctx: services.find(ctx, "s1")),
    "page of services": (3 * FEW, lambda ctx: services.page(ctx, {}, 50, None)),
    "who of a service is ready": (FEW, lambda ctx: services.ready_members(ctx, "000000000002")),
    "tasks of a service": (FEW, lambda ctx: tasks.list_tasks(ctx, {"service_id": "000000000002"}, 50, None)),
    "events of a service": (FEW, lambda ctx: events.list_events(ctx, {"service_id": ONE}, 50, None)),
    "joining a log": (FEW, _in_vain(lambda connection: log_copies.join(connection, COPIED, ""))),
    "joining a log somewhere": (FEW, _in_vain(lambda connection: log_copies.join(connection, COPIED, "p1000"))),
    "news of a log": (FEW, _read(lambda connection: log_copies.news(connection, COPIED, CHUNKS - 3))),
    "a log that grows": (
        FEW,
        _in_vain(lambda connection: log_copies.append(connection, 1, CHUNKS, "", "p", b"word", False, 1000)),
    ),
    "logs to copy": (3 * FEW, _in_vain(lambda connection: log_copies.take(connection, "n/agent", "n"))),
    "queue position": (FEW, lambda ctx: explain.explain(ctx, OPEN)),
    "pools to ring for": (FEW, sweeps.waiting),
    "expired leases": (FEW, sweeps.take_back_expired),
    # the newest 500 of the model wait, and are passed over
    "asking a model": (2 * FEW, lambda ctx: served.choose(ctx, ANYBODY, "m3")),
    "asking a model that nobody has": (FEW, _unknown_model),
    "models that can be asked": (MANY, lambda ctx: served_models.list_served(ctx, ANYBODY)),
    "overdue": (FEW, sweeps.end_overdue),
    "lifetimes": (FEW, sweeps.end_lifetimes),
    **{
        f"retention of {table}": (
            MANY,
            _in_vain(lambda connection, table=table: retention_repo.forget(connection, table, 15 * 86400.0, 500)),  # type: ignore[misc]
        )
        for table, bound in retention.BOUNDS.items()
        if isinstance(bound, retention.Kept)
    },
    **{
        f"retention of {table}, nothing old": (
            FEW,
            _in_vain(lambda connection, table=table: retention_repo.forget(connection, table, 900 * 86400.0, 500)),  # type: ignore[misc]
        )
        for table in ("replicas", "tasks", "attempts", "leases", "events", "idempotency", "sweeps")
    },
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", sorted(ACTS))
def test_a_hot_statement_has_its_index_and_takes_few_pages(loaded: Context, name: str) -> None:
    most_pages, act = ACTS[name]
    with caught(loaded.database) as statements:
        act(loaded)
    assert statements, "nothing was caught: it goes past SQLAlchemy"
    for statement, values in statements:
        if not statement.lstrip().upper().startswith(("SELECT", "WITH", "UPDATE", "DELETE", "INSERT")):
            continue
        plan = _explained(loaded, statement, values)
        scanned = [node["Relation Name"] for node in _nodes(plan) if node["Node Type"] == "Seq Scan"]
        assert not BIG & set(scanned), f"{statement}\n{plan}"
        pages = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        assert pages <= most_pages, f"{pages} pages: {statement}\n{plan}"


def test_the_load_is_what_it_should_be(loaded: Context) -> None:
    with loaded.database.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM replicas")).scalar_one() == REPLICAS
        assert connection.execute(text("SELECT count(*) FROM events")).scalar_one() >= EVENTS


def _explained(ctx: Context, statement: str, values: Any) -> dict[str, Any]:
    with ctx.database.begin() as connection:
        found = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", values).scalar_one()
        connection.rollback()
    return dict(found[0]["Plan"])


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)
