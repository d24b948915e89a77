"""Whether anything is still in motion: what the driver waits for before the checker has its say."""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg

from tests.faults.harness.journal import Journal
from tests.faults.harness.stack import FaultyStack

#: After the last fault ended everything must have come to rest within this.
CONVERGE_S = 30.0
_LOOK_S = 0.2

#: Open tasks, replicas on their way, and ended ones whose process or lease is left. A create that waits in a pool
#: without a free slot rests too: it waits as it was asked to. So does one that wants more GPUs than are free, and who
#: stands behind it; the members of a service that start together want what all of them want. A service rests when it
#: has as many replicas as it should have, as far as they do not wait so or were given up. And whose job a cluster holds
#: until somebody there lets it go, or begins anew in two minutes because a node failed.
_MOVING = """
WITH queue AS (
    SELECT t.id, t.replica_id, t.pool, t.priority, t.seq, t.arguments->>'gang' AS gang,
        coalesce(CAST(coalesce(r.spec->'resources'->>'gpus', r.spec->'resources'->>'gpu') AS integer), 0) AS gpus
    FROM tasks t JOIN replicas r ON r.id = t.replica_id
    WHERE t.state = 'queued' AND t.kind IN ('create', 'restart') AND r.state = 'pending'),
wants AS (
    SELECT q.*, count(*) OVER gang AS slots, sum(gpus) OVER gang AS all_gpus FROM queue q
    WINDOW gang AS (PARTITION BY pool, coalesce(q.gang, q.id))),
free AS (
    SELECT p.name, (SELECT count(*) FROM units u WHERE u.kind = 'slot' AND u.scope = p.name AND u.lease_id IS NULL
            AND NOT u.retired) AS slots,
        (SELECT count(*) FROM units WHERE kind = 'gpu' AND lease_id IS NULL AND NOT retired) AS gpus FROM pools p),
waiting AS (
    SELECT w.id, w.replica_id FROM wants w WHERE EXISTS (
        SELECT 1 FROM wants b JOIN free f ON f.name = b.pool WHERE b.pool = w.pool
          AND (b.priority, b.seq) <= (w.priority, w.seq) AND (b.slots > f.slots OR b.all_gpus > f.gpus))),
held AS (
    SELECT r.id FROM replicas r JOIN attempts a ON a.replica_id = r.id AND a.number = r.attempt
    WHERE r.state = 'scheduling' AND a.told->>'state' = 'PENDING'
        AND (a.told->>'why' LIKE '%held%' OR a.told->>'why' = 'BeginTime'))
SELECT 'task ' || t.id || ' ' || t.kind || ' ' || t.state || ' of ' || t.replica_id FROM tasks t
WHERE t.state IN ('queued', 'running') AND t.replica_id IS NOT NULL AND t.id NOT IN (SELECT id FROM waiting)
    AND t.replica_id NOT IN (SELECT id FROM held)
UNION ALL
SELECT 'service ' || s.id || ' has ' || l.live || ' of ' || s.count || ', open tasks ' || o.tasks || ', hints '
    || h.hints FROM services s,
LATERAL (SELECT count(DISTINCT m.ordinal) FILTER (WHERE m.revision = s.revision) AS live, count(*) AS alive,
        count(*) FILTER (WHERE r.id IN (SELECT replica_id FROM waiting)) AS waiting
    FROM service_members m JOIN replicas r ON r.id = m.replica_id WHERE m.service_id = s.id
      AND r.desired_state = 'running' AND r.state NOT IN ('stopped', 'failed')) AS l,
LATERAL (SELECT count(*) AS hints FROM service_hints WHERE service_id = s.id) AS h,
LATERAL (SELECT count(*) AS tasks FROM tasks t WHERE t.arguments->>'service_id' = s.id AND t.replica_id IS NULL
    AND t.state IN ('queued', 'running')) AS o
WHERE s.ended_at IS NULL AND (h.hints > 0 OR s.desired_state <> 'running' OR (
    NOT s.paused AND l.waiting = 0 AND NOT s.rollout ? 'refused' AND (o.tasks > 0
        OR (NOT s.rollout ? 'given_up' AND (l.live <> s.count OR l.alive <> s.count)))))
UNION ALL
SELECT 'replica ' || id || ' ' || state FROM replicas WHERE released_at IS NULL
    AND state IN ('scheduling', 'preparing', 'starting', 'waiting_for_ready', 'unreachable', 'stopping', 'stopped',
                  'failed') AND id NOT IN (SELECT id FROM held)
UNION ALL
SELECT 'replica ' || r.id || ' pending without a task' FROM replicas r WHERE r.state = 'pending' AND NOT EXISTS (
    SELECT 1 FROM tasks t WHERE t.replica_id = r.id AND t.state IN ('queued', 'running'))
"""


def moving(stack: FaultyStack) -> list[str]:
    """What is still in motion, in words; a database that does not answer is in motion too."""
    try:
        with stack.sql() as connection:
            return [str(row[0]) for row in connection.execute(_MOVING)]
    except psycopg.Error as error:
        return [f"the database: {error}".strip()]


#: Launches that a backend was away for, and that are tried again by then: after 2, 8 and then each 32 s.
_TRIED_AGAIN = """
SELECT extract(epoch FROM max(t.not_before) - hostler_now()) FROM tasks t JOIN replicas r ON r.id = t.replica_id
WHERE t.state = 'queued' AND t.kind IN ('create', 'restart') AND r.state = 'scheduling'
    AND t.not_before > hostler_now()
"""
#: From then on it has so long to come to rest.
_AFTER_TRY_S = 10.0
#: Jobs that their cluster forgot, and that have told lately that they live: after 30 s they count as lost.
_FORGOTTEN = """
SELECT count(*) FROM replicas WHERE backend = 'slurm' AND released_at IS NULL
    AND (state = 'unreachable' OR (state IN ('failed', 'stopping') AND reason = 'node_lost'))
"""
_LOST_S = 25.0


def until_tried_again(stack: FaultyStack) -> float:
    """How much longer (s) rest is to be waited for, because a launch waits for its next try, or a job that its cluster
    forgot to be given up; 0: none does."""
    try:
        with stack.sql() as connection:
            row = connection.execute(_TRIED_AGAIN).fetchone()
            forgotten = connection.execute(_FORGOTTEN).fetchone()
    except psycopg.Error:
        return 0.0
    tried_s = float(row[0]) + _AFTER_TRY_S if row is not None and row[0] is not None else 0.0
    return max(tried_s, _LOST_S if forgotten is not None and forgotten[0] else 0.0)


def await_rest(stack: FaultyStack, journal: Journal, deadline: float) -> list[str]:
    """Wait until nothing moves in the database and every process of the stack runs, or ``deadline`` (monotonic)."""
    before: list[str] = []
    while True:
        left = moving(stack)
        if not left:
            trouble = stack.trouble()
            left = [trouble] if trouble else moving(stack)
        if left != before:
            journal.write("moving", what=left)
            before = left
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(_LOOK_S)


def end_all(stack: FaultyStack, ask: Callable[..., object], deadline: float) -> list[str]:
    """Stop whatever the seed left and wait until it is gone, so that the next one begins with nothing."""
    while True:
        try:
            with stack.sql() as connection:
                services = connection.execute(
                    "SELECT id, desired_state FROM services WHERE ended_at IS NULL"
                ).fetchall()
                rows = connection.execute("SELECT id, state FROM replicas WHERE released_at IS NULL").fetchall()
        except psycopg.Error as error:
            services, rows = [], [("?", str(error))]
        if not (rows or services) or time.monotonic() > deadline:
            return [f"service {one} {state}" for one, state in services] + [
                f"replica {one} {state}" for one, state in rows
            ]
        for service, state in services:
            # first, or they replace what is stopped
            if state == "running":
                ask("POST", f"/api/v1/services/{service}/status", {"status": "cancelled"})
        for replica, state in rows:
            if state not in ("stopping", "stopped", "failed", "?"):
                ask("POST", f"/api/v1/replicas/{replica}/stop", {"force": True})
        time.sleep(_LOOK_S)
