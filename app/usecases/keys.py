"""API keys: made, shown once, checked on every request, revoked."""

from __future__ import annotations

import secrets
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection

from app.db.engine import Database
from app.db.repos import events
from app.db.repos import keys as repo
from app.errors import Conflict, InvalidConfig, NameTaken, NotFound
from app.settings import Settings
from app.stack.urls import database_url
from app.usecases import backend_options, idempotency, paging
from app.usecases.context import Actor, Context, Idempotency
from app.usecases.known_keys import Holder, KnownKeys
from app.usecases.signals import notify

#: What a role may do. ``admin`` may everything.
GRANTS: dict[str, frozenset[str]] = {
    "read": frozenset({"read"}),
    "infer": frozenset({"infer"}),
    "register": frozenset({"register"}),
    "operate": frozenset({"read", "infer", "register", "operate"}),
    "admin": frozenset({"read", "infer", "register", "operate", "admin"}),
}
SHORTEST = 24
_databases: weakref.WeakKeyDictionary[Database, KnownKeys] = weakref.WeakKeyDictionary()


class KeyEnded(InvalidConfig):
    """The key was revoked, replaced or has expired; what has ended stays so. Use another."""


@dataclass(frozen=True)
class Made:
    """A new key. ``key`` is the only copy of it, None when the request was a replay."""

    record: dict[str, Any]
    key: str | None
    replayed: bool


def may(role: str, needed: str) -> bool:
    """Whether a key of ``role`` may use what asks for ``needed``."""
    return needed in GRANTS.get(role, frozenset())


def hash_key(raw: str) -> str:
    """Upper-case hex, as HAProxy's ``sha2(256),hex`` makes it. Keys are random, so no slow hash is needed."""
    return sha256(raw.encode("utf-8", "surrogatepass")).hexdigest().upper()


def authenticate(context: Context, raw: str, *, request_id: str = "") -> Actor | None:
    """Who holds the key ``raw``, or None when it is unknown, revoked or expired."""
    key_hash = hash_key(raw)
    holder = _known(context.database).holder(key_hash, partial(_look_up, context.database, key_hash))
    if holder is None:
        return None
    return Actor(holder.id, holder.name, holder.role, holder.models, request_id=request_id)


def create(context: Context, actor: Actor, body: Mapping[str, Any], request: Idempotency | None) -> Made:
    """Make a key, or take the one in ``body["key"]``. Raises InvalidConfig, NameTaken."""
    raw = body.get("key") or make_key()
    if len(raw) < SHORTEST:
        raise InvalidConfig(
            f"key: shorter than {SHORTEST} characters. Leave it out and a random one is made.",
            errors={"key": [f"Shorter than {SHORTEST} characters."]},
        )
    _check_expiry(body.get("expires_at"))
    with context.database.begin() as connection:
        before = idempotency.claim(connection, actor, request)
        if before is not None:
            return Made(_record(_found(repo.read(connection, before["id"]), before["id"])), None, True)
        if body.get("backend_options"):
            backend_options.check_of_key(connection, body["backend_options"])
        values = _values(raw, body) | {"created_by": actor.key_id}
        if not repo.insert(connection, values):
            raise NameTaken(
                f"A live key is named {body['name']!r} or is the same key. Choose another name.",
                errors={"name": ["Taken, or the key is."]},
            )
        idempotency.remember(connection, actor, request, {"id": values["id"]})
        events.insert(
            connection,
            kind="key_created",
            actor=actor.name,
            cause="request",
            message=f"key {body['name']} with role {body['role']}",
            request_id=actor.request_id,
            data={"key_id": values["id"]},
        )
        record = _record(_found(repo.read(connection, values["id"]), values["id"]))
    notify(context.database, ["events"])
    return Made(record, raw, False)


def ensure_admin_key(settings: Settings, key: str, *, alone: bool = False) -> None:
    """Make ``key`` a live admin key named ``admin`` unless it is one already.

    ``alone``: it takes the place of what the stack's own admin key was before, which ends. Raises InvalidConfig when it
    is too short or not to be had, KeyEnded when it was revoked or has expired.
    """
    if len(key) < SHORTEST:
        raise InvalidConfig(f"HOSTLER_API_KEY is shorter than {SHORTEST} characters. Use a longer one.")
    database = Database(database_url(settings), pool_size=1, application_name="hostler-keys")
    try:
        with database.begin() as connection:
            found = repo.find_live(connection, hash_key(key))
            if found is not None and found.role != "admin":
                raise InvalidConfig(f"HOSTLER_API_KEY is the key {found.name!r} of role {found.role}. Use another.")
            if alone:
                for row in repo.revoke_own(connection, hash_key(key)):
                    _record_own(connection, "key_revoked", f"key {row.name}: HOSTLER_API_KEY took its place", row.id)
            if found is None:
                values = _own_values(connection, key, "admin", "admin")
                if not repo.insert(connection, values):
                    raise KeyEnded()
                _record_own(connection, "key_created", f"key {values['name']} with role admin", values["id"])
    finally:
        database.close()


def ensure_chat_key(settings: Settings, key: str) -> None:
    """Make ``key`` a live key of role infer unless it is one already; the one that an earlier start made ends.

    Raises InvalidConfig when it is a key of another role, KeyEnded when it was revoked or has expired.
    """
    database = Database(database_url(settings), pool_size=1, application_name="hostler-keys")
    try:
        with database.begin() as connection:
            found = repo.find_live(connection, hash_key(key))
            if found is not None and found.role != "infer":
                raise InvalidConfig(f"API_KEY is the key {found.name!r} of role {found.role}, not infer. Use another.")
            for row in repo.revoke_own(connection, hash_key(key), role="infer"):
                _record_own(connection, "key_revoked", f"key {row.name}: API_KEY took its place", row.id)
            if found is None:
                values = _own_values(connection, key, "chat", "infer")
                if not repo.insert(connection, values):
                    raise KeyEnded()
                _record_own(connection, "key_created", f"key {values['name']} with role infer", values["id"])
    finally:
        database.close()


def get(context: Context, key_id: str) -> dict[str, Any]:
    """One key; the key itself is known to nobody any more. Raises NotFound."""
    with context.database.read() as connection:
        return _record(_found(repo.read(connection, key_id), key_id))


def list_keys(
    context: Context, filters: Mapping[str, Any], limit: int, cursor: str | None
) -> tuple[list[dict[str, Any]], int, str | None]:
    """(keys, total, next cursor); filters ``role`` and ``revoked`` (show ended ones too)."""
    after = paging.decode(cursor, (datetime, str))
    role, revoked = filters.get("role"), bool(filters.get("revoked"))
    with context.database.read() as connection:
        rows = repo.page(connection, role=role, revoked=revoked, after=after, limit=limit + 1)
        total = repo.count(connection, role=role, revoked=revoked)
    more = paging.encode((rows[limit - 1].created_at, rows[limit - 1].id)) if len(rows) > limit else None
    return [_record(row) for row in rows[:limit]], total, more


def revoke(context: Context, actor: Actor, key_id: str, request: Idempotency | None) -> bool:
    """End a key at once (other processes within a second). True when it was a replay.

    Raises NotFound, and Conflict for the last admin key that does not expire.
    """
    with context.database.begin() as connection:
        if idempotency.claim(connection, actor, request) is not None:
            return True
        admins = repo.lock_admins(connection)
        row = _found(repo.read(connection, key_id), key_id)
        if row.revoked_at is not None:
            raise NotFound(f"Key {key_id} was revoked before. `hostler key list` shows the live ones.")
        if admins == {key_id}:
            raise Conflict("This is the last admin key. Make another with `hostler key create --role admin` first.")
        repo.revoke(connection, key_id)
        idempotency.remember(connection, actor, request, {"id": key_id})
        events.insert(
            connection,
            kind="key_revoked",
            actor=actor.name,
            cause="request",
            message=f"key {row.name}",
            request_id=actor.request_id,
            data={"key_id": key_id},
        )
    _known(context.database).forget()
    notify(context.database, ["events", "keys"])
    return False


def make_key() -> str:
    """A new random key, recognisable as ours in logs and secret scanners."""
    return f"hostler_{secrets.token_urlsafe(32)}"


def _check_expiry(expires_at: datetime | None) -> None:
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise InvalidConfig("expires_at: it is in the past.", errors={"expires_at": ["In the past."]})


def _values(raw: str, body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": secrets.token_hex(6),
        "name": body["name"],
        "hash": hash_key(raw),
        "prefix": raw[:12] if raw.startswith("hostler_") else raw[:4],
        "role": body["role"],
        "models": list(body["models"]) if body.get("models") is not None else None,
        "limits": body.get("limits") or {},
        "backend_options": body.get("backend_options") or {},
        "expires_at": body.get("expires_at"),
    }


def _record_own(connection: Connection, kind: str, message: str, key_id: str) -> None:
    events.insert(connection, kind=kind, actor="hostler", cause="start", message=message, data={"key_id": key_id})


def _own_values(connection: Connection, key: str, name: str, role: str) -> dict[str, Any]:
    if repo.is_live_name(connection, name):
        name = f"{name}-{secrets.token_hex(3)}"
    return _values(key, {"name": name, "role": role}) | {"created_by": None}


def _found(row: Any | None, key_id: str) -> Any:
    if row is None:
        raise NotFound(f"There is no key {key_id}. `hostler key list` shows them.")
    return row


def _record(row: Any) -> dict[str, Any]:
    return dict(row._mapping)


def _look_up(database: Database, key_hash: str) -> Holder | None:
    with database.read() as connection:
        row = repo.find_live(connection, key_hash)
        if row is None:
            return None
        if row.stale:
            repo.stamp_used(connection, row.id)
    models = tuple(row.models) if row.models is not None else None
    return Holder(row.id, row.name, row.role, models, row.ends_in_s)


def _known(database: Database) -> KnownKeys:
    return _databases.setdefault(database, KnownKeys())
