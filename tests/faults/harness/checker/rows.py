"""What Postgres says, read in one snapshot."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row

#: A database that has just been started again may still refuse.
CONNECT_S = 15.0

#: Events about servers that others registered: no replicas of ours, whatever they are called.
_OF_REGISTRATIONS = frozenset({"registration_started", "registration_taken_over", "registration_ended"})
_TOUCHED = """
    SELECT r.id FROM replicas r WHERE r.released_at IS NULL
    UNION SELECT e.replica_id FROM events e WHERE e.id > %(after_event)s AND e.replica_id IS NOT NULL
"""
_EVENTS = f"""
    SELECT id, xid::text::bigint AS xid, at, kind, replica_id, attempt, task_id, pool, node, actor, cause, from_state,
           to_state, reason, message, request_id
    FROM events WHERE id > %(after_event)s OR replica_id IN ({_TOUCHED}) ORDER BY id
"""
_WAITING = """
    WITH queue AS (
        SELECT t.replica_id, t.pool, t.priority, t.seq,
               CAST(coalesce(r.spec->'resources'->>'gpus', r.spec->'resources'->>'gpu', '0') AS integer) AS gpus
        FROM tasks t JOIN replicas r ON r.id = t.replica_id
        WHERE t.state = 'queued' AND t.kind IN ('create', 'restart') AND r.state = 'pending'),
    slots AS (
        SELECT p.name, p.state = 'active' AND EXISTS (SELECT 1 FROM units u WHERE u.kind = 'slot' AND u.scope = p.name
            AND u.lease_id IS NULL AND NOT u.retired) AS free FROM pools p),
    hosts AS (
        SELECT scope, count(*) FILTER (WHERE lease_id IS NULL AND NOT retired) AS free FROM units
        WHERE kind = 'gpu' GROUP BY scope)
    SELECT q.replica_id FROM queue q JOIN slots ON slots.name = q.pool
    WHERE NOT slots.free OR EXISTS (
        SELECT 1 FROM queue before WHERE before.pool = q.pool
            AND (before.priority, before.seq) <= (q.priority, q.seq)
            AND before.gpus > coalesce((SELECT max(free) FROM hosts), 0))
"""


@dataclass
class Rows:
    """Rows that this seed touched, and all that is still open. ``events`` are ordered by id."""

    now: Any
    #: transactions below this one have ended: their events may be shown by a stream
    settled: int
    replicas: dict[str, Any] = field(default_factory=dict)
    attempts: list[Any] = field(default_factory=list)
    tasks: dict[str, Any] = field(default_factory=dict)
    #: with ``name, replica_id, attempt, closed`` of the attempt that holds or held it (NULL when it was deleted)
    leases: list[Any] = field(default_factory=list)
    units: list[Any] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    keys: list[Any] = field(default_factory=list)
    #: replicas whose launch waits as it should: no slot is free, or no GPU for it or for who stands before it
    waiting: set[str] = field(default_factory=set)
    host_bound: dict[str, bool] = field(default_factory=dict)

    def events_by_replica(self) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = defaultdict(list)
        for event in self.events:
            if event.replica_id is not None and event.kind not in _OF_REGISTRATIONS:
                found[event.replica_id].append(event)
        return found

    def open_attempts(self) -> list[Any]:
        return [attempt for attempt in self.attempts if attempt.released_at is None]


def read_rows(database_url: str, after_event: int, after_task: int) -> Rows:
    """Everything the checks look at. Raises psycopg.OperationalError when the database does not come back."""
    values = {"after_event": after_event, "after_task": after_task}
    with _connect(database_url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True

        def ask(query: str) -> list[Any]:
            return connection.execute(query, values).fetchall()

        moment = ask("SELECT hostler_now() AS now, pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS settled")[0]
        rows = Rows(moment.now, moment.settled)
        rows.replicas = {row.id: row for row in ask(f"SELECT * FROM replicas WHERE id IN ({_TOUCHED})")}
        rows.attempts = ask(f"SELECT * FROM attempts WHERE replica_id IN ({_TOUCHED}) ORDER BY id")
        rows.tasks = {
            row.id: row
            for row in ask(f"SELECT * FROM tasks WHERE seq > %(after_task)s OR replica_id IN ({_TOUCHED}) ORDER BY seq")
        }
        rows.leases = ask(
            "SELECT l.*, a.name, a.replica_id, a.number AS attempt, a.released_at AS closed FROM leases l"
            " LEFT JOIN attempts a ON a.id = l.attempt_id"
            f" WHERE l.released_at IS NULL OR a.replica_id IN ({_TOUCHED}) ORDER BY l.id"
        )
        rows.units = ask("SELECT * FROM units WHERE lease_id IS NOT NULL")
        rows.events = ask(_EVENTS)
        rows.keys = ask("SELECT * FROM idempotency")
        rows.waiting = {row.replica_id for row in ask(_WAITING)}
        rows.host_bound = {row.name: row.host_bound for row in ask("SELECT name, host_bound FROM backends")}
    return rows


def _connect(database_url: str) -> psycopg.Connection[Any]:
    deadline = time.monotonic() + CONNECT_S
    while True:
        try:
            return psycopg.connect(database_url, row_factory=namedtuple_row, connect_timeout=5)
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
