"""Services as users see them: how they stand, which replicas stand for them, and what they wait for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from app.db.repos import service_members, service_revisions
from app.db.repos import services as repo
from app.domain import services as planner
from app.domain.lifecycle import TERMINAL, Reason, State
from app.usecases import paging, reach, service_refs
from app.usecases.context import Context
from app.usecases.reach import Address
from app.usecases.refusals import refusals
from app.usecases.service_failures import Failure, last_failure, replaced_by_launches
from app.usecases.service_rows import by_service, desired_of, observed_of

#: Rows that are looked at together for a list that is filtered by status.
BATCH = 500
_IN_SHORT: tuple[str, ...] = ("id", "service_id", "group_id", "name", "recipe_name", "status", "overall_status")
_IN_SHORT += ("reason", "message", "desired_state", "count", "revision", "good_revision", "paused", "rollout", "plan")
#: Of the rollout, what users see.
_ROLLOUT = ("state", "from", "to", "why", "reason")


def find(ctx: Context, ref: str) -> str:
    """The id behind an id or a name: the running service's, else the last one's. Raises NotFound."""
    with ctx.database.read() as connection:
        return service_refs.to_id(connection, ref)


def get(ctx: Context, ref: str) -> dict[str, Any]:
    """One service: what is wanted, how it stands, its replicas, and what it waits for. Raises NotFound."""
    with ctx.database.read() as connection:
        row = service_refs.read(connection, ref)
        return _bodies(ctx, connection, [row])[0]


def page(
    ctx: Context, filters: Mapping[str, Any], limit: int, cursor: str | None
) -> tuple[list[dict[str, Any]], int, str | None]:
    """Services, newest first: (as ``get`` shows them, total, next cursor).

    ``filters``: name, recipe (full or short), pool, owner, label (list of ``name=value``),
    desired_state, engines, status.
    """
    behind = paging.decode(cursor, (datetime, str))
    wanted = filters.get("status")
    with ctx.database.read() as connection:
        if not repo.is_there(connection):
            return [], 0, None
        if wanted:
            return _page_by_status(ctx, connection, filters, str(wanted), limit, behind)
        rows = repo.page(connection, filters, limit + 1, behind)
        found = _bodies(ctx, connection, rows[:limit])
        total = repo.total(connection, filters)
    more = paging.encode((rows[limit - 1].created_at, rows[limit - 1].id)) if len(rows) > limit else None
    return found, total, more


def status(ctx: Context, ref: str) -> dict[str, Any]:
    """How it stands, in short: ``status, overall_status, healthy_replicas, total_replicas, replica_statuses[]`` and
    what names it. Raises NotFound."""
    return status_of(get(ctx, ref))


def status_of(service: Mapping[str, Any]) -> dict[str, Any]:
    """The short form of what ``get`` shows."""
    return {name: service[name] for name in _IN_SHORT} | {
        "healthy_replicas": service["ready"],
        "total_replicas": service["count"],
        "replica_statuses": service["replicas"],
    }


def revisions(ctx: Context, ref: str) -> list[dict[str, Any]]:
    """Its revisions, newest first: what each asks for, by whom and why. Raises NotFound."""
    with ctx.database.read() as connection:
        row = service_refs.read(connection, ref)
        found = service_revisions.read_all(connection, row.id)
    return [
        {
            "number": one.number,
            "wanted": one.number == row.revision,
            "good": one.number == row.good_revision,
            "recipe_name": one.spec["recipe"]["name"],
            "recipe_version": one.spec["recipe"]["version"],
            "config": one.spec["config"],
            "update": one.spec["update"],
            "restart": one.spec["restart"],
            "warnings": one.spec["warnings"],
            "actor": one.actor,
            "cause": one.cause,
            "created_at": _iso(one.created_at),
        }
        for one in found
    ]


def ready_members(ctx: Context, ref: str) -> list[dict[str, Any]]:
    """Its replicas that answer, by ordinal: ``replica_id, ordinal, revision, attempt, engine, model_name, node, host,
    port, base_url, pool, config`` (the engine's) with ``service_id, service, recipe``. ``port`` is None where nothing
    listens (backend mock). Raises NotFound, and Conflict for one that was cancelled."""
    with ctx.database.read() as connection:
        row = service_refs.read(connection, ref)
        if row.desired_state != "running":
            raise service_refs.cancelled(row)
        return [dict(one._mapping) for one in service_members.ready(connection, row.id)]


def targets(ctx: Context) -> list[dict[str, Any]]:
    """Every ready replica that listens somewhere, of a service or not: ``replica_id, host, port, base_url, node, pool,
    engine, model_name`` and, of a service, ``service_id, service, recipe, ordinal, revision``. What is behind a tunnel
    listens at its local end; where this host has none, nobody here can ask it, and it is left out."""
    with ctx.database.read() as connection:
        if not repo.is_there(connection):
            return []
        found = service_members.targets(connection)
        ends = reach.local_ends(connection, ctx.settings.node_name, found)
    return [
        dict(row._mapping) | _listening(ends.get(row.replica_id))
        for row in found
        if row.replica_id in ends or not row.behind_tunnel
    ]


def _listening(end: Address | None) -> dict[str, Any]:
    return {"host": end.host, "port": end.port, "base_url": end.url} if end is not None else {}


def _page_by_status(
    ctx: Context,
    connection: Connection,
    filters: Mapping[str, Any],
    wanted: str,
    limit: int,
    behind: Sequence[Any] | None,
) -> tuple[list[dict[str, Any]], int, str | None]:
    """How a service stands is made from its replicas: all that may match are looked at."""
    total, found, last, more = 0, list[dict[str, Any]](), None, None
    while True:
        rows = repo.page(connection, filters, BATCH, last)
        for row, body in zip(rows, _bodies(ctx, connection, rows), strict=True):
            if body["status"] != wanted:
                continue
            total += 1
            if behind is not None and (row.created_at, row.id) >= tuple(behind):
                continue
            if len(found) < limit:
                found.append(body)
                end = (row.created_at, row.id)
            elif more is None:
                more = paging.encode(end)
        if len(rows) < BATCH:
            return found, total, more
        last = (rows[-1].created_at, rows[-1].id)


def _bodies(ctx: Context, connection: Connection, rows: Sequence[Any]) -> list[dict[str, Any]]:
    ids = [row.id for row in rows]
    members = by_service(service_members.shown(connection, ids))
    specs = service_revisions.specs(connection, [(row.id, row.revision) for row in rows])
    observed = {
        row.id: [observed_of(member, {}, row.now.timestamp()) for member in members.get(row.id, [])] for row in rows
    }
    # one that was replaced and is gone is no longer among the members
    before = replaced_by_launches([one for own in observed.values() for one in own])
    ended = {one.replica_id: one for own in members.values() for one in own}
    ended |= service_members.ends_of(connection, [one for one in before if one not in ended])
    all_members = [one for own in members.values() for one in own]
    urls = reach.local_urls(connection, ctx.settings.node_name, all_members)
    return [
        _body(row, specs[row.id, row.revision], members.get(row.id, []), observed[row.id], ended, urls) for row in rows
    ]


def _body(
    row: Any,
    spec: Mapping[str, Any],
    members: Sequence[Any],
    observed: Sequence[planner.Observed],
    ended: Mapping[str, Any],
    urls: Mapping[str, str],
) -> dict[str, Any]:
    desired = desired_of(row, spec)
    failure = last_failure(desired, observed, ended, row.now.timestamp())
    overall = planner.overall_status(desired, observed)
    shown = [_member(member, urls) for member in _worth_showing(row, members)]
    endpoints = [one["base_url"] for one in shown if one["base_url"] and one["state"] == State.READY]
    return {
        "id": row.id,
        "service_id": row.id,
        "group_id": row.id if row.count > 1 else None,
        "name": row.name,
        "recipe_name": row.recipe,
        "status": str(planner.service_status(desired, observed)),
        "overall_status": str(overall),
        "reason": failure.reason if failure and not row.message else row.reason,
        "message": failure.told if failure and not row.message else row.message,
        "desired_state": row.desired_state,
        "count": row.count,
        "ready": _ready(observed),
        "revision": row.revision,
        "good_revision": row.good_revision,
        "paused": row.paused,
        "rollout": _rollout(row.rollout),
        "pool": row.pool,
        "model_name": spec["replica"].get("model_name"),
        "owner": row.owner,
        "labels": row.labels,
        "config": spec["config"],
        # what was said beside the config, for whoever wants to say the same again
        "asked": spec.get("asked") or {},
        "update": spec["update"],
        "restart": spec["restart"],
        "all_or_nothing": spec["all_or_nothing"],
        "warnings": spec["warnings"],
        "endpoint": endpoints[0] if endpoints else None,
        "endpoints": endpoints,
        # one for all of them, or none
        "job_id": shown[0]["job_id"] if len({one["job_id"] for one in shown}) == 1 else None,
        "replicas": shown,
        "cleanup": _cleanup(row, members),
        "plan": _plan(row, desired, observed, failure),
        "created_at": _iso(row.created_at),
        "updated_at": _iso(row.updated_at),
        "ended_at": _iso(row.ended_at),
    }


def _worth_showing(row: Any, members: Sequence[Any]) -> list[Any]:
    """Who lives, and where nobody does the last who did. Of an ended service that is who stood in each place last."""
    living = {member.ordinal for member in members if member.released_at is None}
    last: dict[int, Any] = {}
    for member in members:
        if member.released_at is not None and member.ordinal not in living:
            last[member.ordinal] = member
    if row.desired_state == "running":
        # what was scaled away and is gone is history
        last = {ordinal: one for ordinal, one in last.items() if one.desired_state == "running"}
    found = [member for member in members if member.released_at is None] + list(last.values())
    return sorted(found, key=lambda one: (one.ordinal, one.created_at, one.replica_id))


def _member(member: Any, urls: Mapping[str, str]) -> dict[str, Any]:
    reason = Reason(member.reason) if member.reason else None
    return {
        "replica_id": member.replica_id,
        "ordinal": member.ordinal,
        "revision": member.revision,
        "status": str(planner.replica_word(State(member.state), reason)),
        "state": member.state,
        "desired_state": member.desired_state,
        "reason": member.reason,
        "message": member.message,
        "host": member.host,
        "port": member.port,
        "node": member.node,
        "pool": member.pool,
        "model_name": member.model_name,
        "gpus": member.gpus or [],
        "job_id": member.job_id,
        "base_url": member.base_url and urls.get(member.replica_id, member.base_url),
        "tries": member.tries,
        "replaces": member.replaces,
        "created_at": _iso(member.created_at),
        "lifetime_ends_at": _iso(member.lifetime_ends_at),
    }


def _ready(observed: Sequence[planner.Observed]) -> int:
    """Places with a ready replica: one that is being replaced counts once."""
    return len({member.ordinal for member in observed if member.ready})


def _rollout(rollout: Mapping[str, Any]) -> dict[str, Any] | None:
    """How the last update went: ``state`` (under_way, complete, failed), ``from``, ``to``, ``since`` and why it
    failed; None before the first."""
    if "state" not in rollout:
        return None
    since = rollout.get("since")
    return {name: rollout.get(name) for name in _ROLLOUT} | {
        "since": _iso(datetime.fromtimestamp(since, UTC)) if since else None
    }


def _plan(
    row: Any, desired: planner.Desired, observed: Sequence[planner.Observed], failure: Failure | None
) -> dict[str, Any]:
    """What it waits for, in words, when it goes on by the clock, and which replicas were given up."""
    found = planner.plan(desired, observed, row.now.timestamp())
    moments = [found.look_in_s] if found.look_in_s is not None else []
    refused = refusals(row.rollout).values()
    waits_for = found.waits_for
    if refused:
        moments += [one.wait_s(row.now.timestamp()) for one in refused]
        waits_for = f"another try to make replicas; {waits_for}" if waits_for else "another try to make replicas"
    if failure:
        waits_for = f"{waits_for}; {failure.told}" if waits_for else failure.told
    settled = found.settled and not refused
    until = row.now + timedelta(seconds=min(moments)) if moments and not settled else None
    given_up = sorted(found.given_up)
    return {"settled": settled, "waits_for": waits_for, "until": _iso(until), "given_up": given_up}


def _cleanup(row: Any, members: Sequence[Any]) -> dict[str, Any] | None:
    """``{"state": "pending", "since", "replicas"}`` while something of a cancelled service is left."""
    left = [member.replica_id for member in members if member.released_at is None]
    if row.desired_state == "running" or not left:
        ended = [one for one in members if one.state in TERMINAL and one.released_at is None]
        if not ended:
            return None
        since = min(one.state_since for one in ended)
        return {"state": "pending", "since": _iso(since), "replicas": [one.replica_id for one in ended]}
    return {"state": "pending", "since": _iso(row.updated_at), "replicas": left}


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
