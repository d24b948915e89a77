"""Pools: where replicas run, how many at once, and whether new ones may start there."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from app.db.repos import events, leases
from app.db.repos import pools as repo
from app.domain.masking import mask
from app.domain.recipes import merged
from app.domain.tasks import TaskKind
from app.doorbell.queues import queue_for
from app.errors import Conflict, InvalidConfig, MissingFields, NameTaken, NotFound
from app.usecases import backend_options, idempotency, paging
from app.usecases.context import Actor, Context, Idempotency
from app.usecases.service_revisions import with_kept_secrets


def create(
    context: Context, actor: Actor, body: Mapping[str, Any], request: Idempotency | None = None
) -> tuple[dict[str, Any], bool]:
    """(the pool, whether this was a replay). Workers serve it within seconds. Raises InvalidConfig, NameTaken."""
    if body.get("slots") is None and body.get("gpus") is None:
        raise MissingFields(
            "Missing: slots or gpus. Say how many replicas may run at once.", errors={"slots": [MISSING]}
        )
    values = {
        "name": body["name"],
        "backend": body["backend"],
        "options": body.get("options") or {},
        # a pool measured in GPUs alone: never more replicas than GPUs
        "slots": body["gpus"] if body.get("slots") is None else body["slots"],
        "gpus": body.get("gpus"),
        "labels": body.get("labels") or {},
        "defaults": body.get("defaults") or {},
    }
    with context.database.begin() as connection:
        if idempotency.claim(connection, actor, request) is not None:
            return _body(_found(connection, body["name"])), True
        backend_options.check(connection, values["backend"], values["options"], "options")
        if not repo.insert(connection, values):
            raise NameTaken(
                f"A pool is named {body['name']!r}. Choose another name, or see `hostler pool list`.",
                errors={"name": ["Taken."]},
            )
        _set_capacity(connection, values["name"], values)
        _tell(connection, actor, body["name"], "pool_created", f"backend {values['backend']}, {values['slots']} slots")
        idempotency.remember(connection, actor, request, {"name": body["name"]})
        made = _body(_found(connection, body["name"]))
    context.notify("pools", "events")
    return made, False


def get(context: Context, name: str) -> dict[str, Any]:
    """The pool with what of it is used and queued. Raises NotFound."""
    with context.database.read() as connection:
        return _body(_found(connection, name))


def list_pools(
    context: Context, filters: Mapping[str, Any], limit: int, cursor: str | None
) -> tuple[list[dict[str, Any]], int, str | None]:
    """(pools, total, next cursor); filters ``backend`` and ``state``."""
    after = paging.decode(cursor, (str,))
    wanted = {"backend": filters.get("backend"), "state": filters.get("state")}
    with context.database.read() as connection:
        rows = repo.page(connection, **wanted, after=after[0] if after else None, limit=limit + 1)
        total = repo.count(connection, **wanted)
    more = paging.encode((rows[limit - 1].name,)) if len(rows) > limit else None
    return [_body(row) for row in rows[:limit]], total, more


def update(
    context: Context, actor: Actor, name: str, changes: Mapping[str, Any], request: Idempotency | None = None
) -> tuple[dict[str, Any], bool]:
    """(the pool, replay?). Each named field is replaced whole, those in ``merge`` by RFC 7396 (null removes); ``***``
    stands for the secret that is there. Fewer slots never stop what runs. Raises NotFound, InvalidConfig."""
    with context.database.begin() as connection:
        if idempotency.claim(connection, actor, request) is not None:
            return _body(_found(connection, name)), True
        row = _lock(connection, name)
        merge = changes.get("merge") or {}
        changes = _settled(row, changes, merge)
        if "options" in changes:
            backend_options.check(connection, row.backend, changes["options"], _field("options", merge))
        if changes:
            repo.update(connection, name, changes)
            _set_capacity(connection, name, changes)
            _tell(connection, actor, name, "pool_changed", ", ".join(sorted(changes)))
        idempotency.remember(connection, actor, request, {"name": name})
        changed = _body(_found(connection, name))
    _ring(context, name)
    return changed, False


def set_state(
    context: Context, actor: Actor, name: str, state: str, request: Idempotency | None = None
) -> tuple[dict[str, Any], bool]:
    """(the pool, replay?). ``draining`` starts nothing new and stops nothing; ``active`` goes on."""
    with context.database.begin() as connection:
        if idempotency.claim(connection, actor, request) is not None:
            return _body(_found(connection, name)), True
        row = _lock(connection, name)
        if row.state != state:
            repo.set_state(connection, name, state)
            _tell(connection, actor, name, "pool_draining" if state == "draining" else "pool_resumed", "")
        idempotency.remember(connection, actor, request, {"name": name})
        changed = _body(_found(connection, name))
    _ring(context, name)
    return changed, False


def delete(context: Context, actor: Actor, name: str, request: Idempotency | None = None) -> bool:
    """Remove a pool that no replica record names. True for a replay. Raises NotFound, Conflict."""
    with context.database.begin() as connection:
        if idempotency.claim(connection, actor, request) is not None:
            return True
        _lock(connection, name)
        if name == context.settings.default_pool:
            raise Conflict(f"{name!r} is the default pool. Set HOSTLER_DEFAULT_POOL to another one first.")
        live, all_records = repo.replica_counts(connection, name)
        if live:
            raise Conflict(f"{live} replicas of this pool are not gone yet. `hostler replica stop` them first.")
        if all_records:
            raise Conflict(
                f"{all_records} ended replicas name this pool. `hostler replica delete` them, or drain the pool."
            )
        # the units stay, retired: the history of leases refers to them
        for kind in ("slot", "pool_gpu"):
            leases.set_capacity(connection, kind, name, [])
        repo.delete(connection, name)
        _tell(connection, actor, name, "pool_deleted", "")
        idempotency.remember(connection, actor, request, {"name": name})
    context.notify("pools", "events")
    return False


MISSING = "Missing data for required field."
MOST_LABELS = 64


def _settled(row: Any, changes: Mapping[str, Any], merge: Mapping[str, Any]) -> dict[str, Any]:
    """What the named columns of the pool's row become. Raises InvalidConfig."""
    found = {column: value for column, value in changes.items() if column != "merge"}
    found |= {column: merged(getattr(row, column), change) for column, change in merge.items()}
    for column in {"options", "defaults"} & found.keys():
        found[column] = with_kept_secrets(found[column], getattr(row, column), _field(column, merge))
    if len(found.get("labels", ())) > MOST_LABELS:
        field, told = _field("labels", merge), f"The pool would have more than {MOST_LABELS}."
        raise InvalidConfig(f"{field}: {told}", errors={field: [told]})
    return found


def _field(column: str, merge: Mapping[str, Any]) -> str:
    """What the request calls it."""
    return f"merge.{column}" if column in merge else column


def _set_capacity(connection: Connection, name: str, values: Mapping[str, Any]) -> None:
    if values.get("slots") is not None:
        leases.set_capacity(connection, "slot", name, range(values["slots"]))
    if "gpus" in values:
        leases.set_capacity(connection, "pool_gpu", name, range(values["gpus"] or 0))


def _tell(connection: Connection, actor: Actor, name: str, kind: str, message: str) -> None:
    events.insert(
        connection,
        kind=kind,
        actor=actor.name,
        cause="request",
        pool=name,
        message=message,
        request_id=actor.request_id,
    )


def _ring(context: Context, name: str) -> None:
    # room may have come: what is queued should not wait for the sweep
    context.doorbell.ring(TaskKind.CREATE, queue_for(TaskKind.CREATE, name, None), pool=name)
    context.notify("pools", "events")


def _lock(connection: Connection, name: str) -> Any:
    row = repo.lock(connection, name)
    if row is None:
        raise _unknown(connection, name)
    return row


def _found(connection: Connection, name: str) -> Any:
    row = repo.read(connection, name)
    if row is None:
        raise _unknown(connection, name)
    return row


def _unknown(connection: Connection, name: str) -> NotFound:
    near = difflib.get_close_matches(name, repo.names(connection), n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return NotFound(f"There is no pool {name!r}.{hint} `hostler pool list` shows them.")


def _body(row: Any) -> dict[str, Any]:
    found = dict(row._mapping)
    return found | {"options": mask(found["options"]), "defaults": mask(found["defaults"])}
