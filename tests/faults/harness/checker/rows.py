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
           to_state, reason, message, request_id, data
    FROM events WHERE id > %(after_event)s OR replica_id IN ({_TOUCHED}) ORDER BY id
"""
_WAITING = """
    WITH queue AS (
        SELECT t.replica_id, t.pool, t.priority, t.seq, t.arguments->>'gang' AS gang,
               CAST(coalesce(r.spec->'resources'->>'gpus', r.spec->'resources'->>'gpu', '0') AS integer) AS gpus
        FROM tasks t JOIN replicas r ON r.id = t.replica_id
        WHERE t.state = 'queued' AND t.kind IN ('create', 'restart') AND r.state = 'pending'),
    -- who starts together wants all at once
    wants AS (
        SELECT q.*, count(*) OVER gang AS slots, sum(gpus) OVER gang AS all_gpus FROM queue q
        WINDOW gang AS (PARTITION BY pool, coalesce(q.gang, q.replica_id))),
    slots AS (
        SELECT p.name, CASE WHEN p.state = 'active' THEN (SELECT count(*) FROM units u WHERE u.kind = 'slot'
            AND u.scope = p.name AND u.lease_id IS NULL AND NOT u.retired) ELSE 0 END AS free FROM pools p),
    hosts AS (
        SELECT scope, count(*) FILTER (WHERE lease_id IS NULL AND NOT retired) AS free FROM units
        WHERE kind = 'gpu' GROUP BY scope)
    SELECT q.replica_id FROM wants q JOIN slots ON slots.name = q.pool
    WHERE slots.free = 0 OR EXISTS (
        SELECT 1 FROM wants before WHERE before.pool = q.pool
            AND (before.priority, before.seq) <= (q.priority, q.seq)
            AND (before.slots > slots.free OR before.all_gpus > coalesce((SELECT max(free) FROM hosts), 0)))
"""


#: Replicas whose job their cluster holds until somebody there lets it go, or begins anew minutes after a node failed.
_HELD = """
    SELECT r.id FROM replicas r JOIN attempts a ON a.replica_id = r.id AND a.number = r.attempt
    WHERE r.state = 'scheduling' AND a.told->>'state' = 'PENDING'
        AND (a.told->>'why' LIKE '%%held%%' OR a.told->>'why' = 'BeginTime')
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
    #: replicas that wait in the queue of a cluster, as they are told to
    held: set[str] = field(default_factory=set)
    host_bound: dict[str, bool] = field(default_factory=dict)
    #: local ends of replicas that only a tunnel leads to
    tunnels: list[Any] = field(default_factory=list)
    services: dict[str, Any] = field(default_factory=dict)
    #: by (service, number)
    revisions: dict[tuple[str, int], Any] = field(default_factory=dict)
    #: by replica, with its place in its service
    members: dict[str, Any] = field(default_factory=dict)
    #: services that were hinted at and not looked at since
    hints: set[str] = field(default_factory=set)

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
        rows.held = {row.id for row in ask(_HELD)}
        # those of seeds before have ended
        services = "SELECT id FROM services WHERE ended_at IS NULL UNION SELECT data->>'service_id' FROM events"
        services = f"({services} WHERE id > %(after_event)s AND data ? 'service_id')"
        rows.services = {row.id: row for row in ask(f"SELECT * FROM services WHERE id IN {services}")}
        revisions = ask(f"SELECT * FROM service_revisions WHERE service_id IN {services}")
        rows.revisions = {(row.service_id, row.number): row for row in revisions}
        members = ask(f"SELECT * FROM service_members WHERE service_id IN {services} ORDER BY created_at, replica_id")
        rows.members = {row.replica_id: row for row in members}
        rows.hints = {row.service_id for row in ask("SELECT DISTINCT service_id FROM service_hints")}
        rows.tunnels = ask("SELECT * FROM tunnels ORDER BY attempt_id, node")
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
