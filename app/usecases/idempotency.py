"""The same request sent twice does its work once: claim at the start of the change, remember at its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from app.db.repos import idempotency as repo
from app.errors import InFlight, KeyReused
from app.usecases.context import Actor, Idempotency


def claim(connection: Connection, actor: Actor, idempotency: Idempotency | None) -> dict[str, Any] | None:
    """What the same request did before, or None when it is new (or carries no key).

    Raises InFlight while the first one is not committed, KeyReused when the body differs.
    """
    if idempotency is None:
        return None
    return _before(repo.claim(connection, _scope(actor, idempotency)), idempotency)


def remember(connection: Connection, actor: Actor, idempotency: Idempotency | None, outcome: Mapping[str, Any]) -> None:
    """Store ``outcome`` (ids only: no answer, nothing secret) in the change's own transaction.

    Raises InFlight when the same request was committed a moment ago, which undoes this one.
    """
    if idempotency is None:
        return
    if not repo.remember(connection, _scope(actor, idempotency), idempotency.body_hash, outcome):
        raise InFlight(retry_after_s=1)


def begin(
    connection: Connection, actor: Actor, idempotency: Idempotency, outcome: Mapping[str, Any]
) -> dict[str, Any] | None:
    """``claim`` and ``remember`` in one round trip, for a change whose ids are made beforehand. Raises as they do."""
    found = repo.begin(connection, _scope(actor, idempotency), idempotency.body_hash, outcome)
    return _before(found, idempotency)


def begin_values(actor: Actor, idempotency: Idempotency, outcome: Mapping[str, Any]) -> dict[str, Any]:
    """What a statement binds that claims and remembers by itself (``begin_ctes`` of the repository)."""
    return repo.begin_values(_scope(actor, idempotency), idempotency.body_hash, outcome)


def _before(found: repo.Found, idempotency: Idempotency) -> dict[str, Any] | None:
    if found.outcome is not None:
        if found.body_hash != idempotency.body_hash:
            raise KeyReused()
        return found.outcome
    if not found.locked:
        raise InFlight(retry_after_s=1)
    return None


def _scope(actor: Actor, idempotency: Idempotency) -> repo.Scope:
    return repo.Scope(actor.key_id, idempotency.method, idempotency.path, idempotency.key)
