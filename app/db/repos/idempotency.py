"""Idempotency keys: one row per key, method, path and owner, written in the transaction of the change itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from sqlalchemy import Connection, text

#: How long a key is remembered.
REMEMBERED = "interval '24 hours'"

# one round trip: the lock and what is stored under the key. The row is looked up by a snapshot taken before the lock,
# so a commit in between stays unseen here; `remember` then finds the row and the transaction is given up.
# The row is found by its primary key alone: with the age among the conditions the planner may walk the index of ages.
_CLAIM = text(
    f"""
SELECT pg_try_advisory_xact_lock(:lock) AS locked, body_hash,
       CASE WHEN created_at > hostler_now() - {REMEMBERED} THEN outcome END AS outcome
FROM (SELECT) AS one LEFT JOIN idempotency ON owner = :owner AND method = :method AND path = :path AND key = :key
"""
)

_STORE = f"""
ON CONFLICT (owner, method, path, key) DO UPDATE
SET body_hash = excluded.body_hash, outcome = excluded.outcome, created_at = hostler_now()
WHERE old.created_at <= hostler_now() - {REMEMBERED}
RETURNING 1
"""

_REMEMBER = text(
    f"""
INSERT INTO idempotency AS old (owner, method, path, key, body_hash, outcome)
VALUES (:owner, :method, :path, :key, :body_hash, CAST(:outcome AS jsonb)) {_STORE}
"""
)


def begin_ctes(condition: str) -> str:
    """``held`` and ``first``, to stand in a WITH: ``first`` has a row when ``condition`` (a FROM item) has one and the
    key is new. For a change that is one statement and knows its ids beforehand; bind ``begin_values``."""
    return f"""
held AS MATERIALIZED (SELECT pg_try_advisory_xact_lock(:lock) AS locked FROM {condition}),
first AS (
    INSERT INTO idempotency AS old (owner, method, path, key, body_hash, outcome)
    SELECT :owner, :method, :path, :key, :body_hash, CAST(:outcome AS jsonb) FROM held WHERE locked {_STORE}
)"""


_BEGIN = text(f"WITH {begin_ctes('(SELECT) AS always')} SELECT locked, EXISTS (SELECT 1 FROM first) AS made FROM held")


@dataclass(frozen=True)
class Scope:
    """Whose key it is and for which route."""

    owner: str
    method: str
    path: str
    key: str

    def lock_number(self) -> int:
        """The advisory lock of this scope: 64 bits, signed as Postgres has them."""
        joined = "\0".join((self.owner, self.method, self.path, self.key))
        return int.from_bytes(blake2b(joined.encode(), digest_size=8).digest(), signed=True)

    def values(self) -> dict[str, str]:
        return {"owner": self.owner, "method": self.method, "path": self.path, "key": self.key}


@dataclass(frozen=True)
class Found:
    """``locked`` is False while another transaction holds the key; ``outcome`` is None for a new one."""

    locked: bool
    body_hash: str | None = None
    outcome: dict[str, Any] | None = None


def claim(connection: Connection, scope: Scope) -> Found:
    """Lock the scope until the transaction ends and read what it did before."""
    row = connection.execute(_CLAIM, {**scope.values(), "lock": scope.lock_number()}).one()
    return Found(row.locked, row.body_hash, row.outcome)


def remember(connection: Connection, scope: Scope, body_hash: str, outcome: Mapping[str, Any]) -> bool:
    """Store what the key did. False when another transaction stored it first: give this one up."""
    values = {**scope.values(), "body_hash": body_hash, "outcome": json.dumps(outcome)}
    return connection.execute(_REMEMBER, values).first() is not None


def begin_values(scope: Scope, body_hash: str, outcome: Mapping[str, Any]) -> dict[str, Any]:
    """What ``begin_ctes`` binds."""
    return {**scope.values(), "lock": scope.lock_number(), "body_hash": body_hash, "outcome": json.dumps(outcome)}


def begin(connection: Connection, scope: Scope, body_hash: str, outcome: Mapping[str, Any]) -> Found:
    """Lock the scope and store ``outcome`` in one statement; ``Found.outcome`` is None when it was stored now."""
    row = connection.execute(_BEGIN, begin_values(scope, body_hash, outcome)).one()
    if row.made:
        return Found(True)
    # a statement of its own sees what was committed while the other one ran
    found = claim(connection, scope)
    return Found(row.locked and found.outcome is not None, found.body_hash, found.outcome)


def forget_old(connection: Connection, limit: int = 10_000) -> int:
    """Delete keys that nobody may replay any more; returns how many."""
    query = text(
        f"DELETE FROM idempotency WHERE ctid IN (SELECT ctid FROM idempotency"
        f" WHERE created_at <= hostler_now() - {REMEMBERED} LIMIT :limit)"
    )
    return connection.execute(query, {"limit": limit}).rowcount
