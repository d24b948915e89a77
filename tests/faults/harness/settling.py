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
#: stands behind it.
_MOVING = """
SELECT 'task ' || t.id || ' ' || t.kind || ' ' || t.state || ' of ' || t.replica_id FROM tasks t
JOIN replicas r ON r.id = t.replica_id
WHERE t.state IN ('queued', 'running') AND NOT (
    t.state = 'queued' AND t.kind IN ('create', 'restart') AND r.state = 'pending' AND (NOT EXISTS (
        SELECT 1 FROM units u WHERE u.kind = 'slot' AND u.scope = r.pool AND u.lease_id IS NULL AND NOT u.retired)
    OR EXISTS (
        SELECT 1 FROM tasks b JOIN replicas br ON br.id = b.replica_id
        WHERE b.pool = t.pool AND b.state = 'queued' AND b.kind IN ('create', 'restart') AND br.state = 'pending'
          AND (b.priority, b.seq) <= (t.priority, t.seq) AND CAST(br.spec->'resources'->>'gpu' AS integer) > (
            SELECT count(*) FROM units WHERE kind = 'gpu' AND lease_id IS NULL AND NOT retired))))
UNION ALL
SELECT 'replica ' || id || ' ' || state FROM replicas WHERE released_at IS NULL
    AND state IN ('scheduling', 'preparing', 'starting', 'waiting_for_ready', 'unreachable', 'stopping', 'stopped',
                  'failed')
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
                rows = connection.execute("SELECT id, state FROM replicas WHERE released_at IS NULL").fetchall()
        except psycopg.Error as error:
            rows = [("?", str(error))]
        if not rows or time.monotonic() > deadline:
            return [f"replica {replica} {state}" for replica, state in rows]
        for replica, state in rows:
            if state not in ("stopping", "stopped", "failed", "?"):
                ask("POST", f"/api/v1/replicas/{replica}/stop", {"force": True})
        time.sleep(_LOOK_S)
