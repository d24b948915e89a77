"""``/api/v1/pools``: where replicas run and how many at once."""

from __future__ import annotations

from typing import Any

from flask import Response

from app.api import answers, idempotency, paging
from app.api.auth import actor, context
from app.api.blueprint import Blueprint
from app.api.schemas.pools import Pool, PoolChange, PoolCreate, PoolPage, PoolQuery
from app.api.schemas.replicas import EmptyBody
from app.usecases import pools

blueprint = Blueprint("pools", "Where replicas run and how many at once.")


@blueprint.operation("/pools", "GET", "read", conditional=True)
@blueprint.arguments(PoolQuery(), location="query")
@blueprint.response(200, PoolPage)
def list_pools(query: dict[str, Any]) -> Response:
    """List pools with what of them is used and queued"""
    found, total, more = pools.list_pools(context(), *paging.split(query))
    return answers.read({"pools": found, "total": total, "next_cursor": more})


@blueprint.operation("/pools", "POST", "admin")
@blueprint.arguments(PoolCreate())
@blueprint.response(201, Pool)
def create_pool(body: dict[str, Any]) -> Response:
    """Make a pool; workers serve it within seconds"""
    made, replayed = pools.create(context(), actor(), body, idempotency.from_request())
    return answers.created(made, f"/api/v1/pools/{made['name']}", replayed=replayed)


@blueprint.operation("/pools/<name>", "GET", "read", conditional=True)
@blueprint.response(200, Pool)
def get_pool(name: str) -> Response:
    """Show a pool"""
    return answers.read(pools.get(context(), name))


@blueprint.operation("/pools/<name>", "PATCH", "admin")
@blueprint.arguments(PoolChange())
@blueprint.response(200, Pool)
def change_pool(body: dict[str, Any], name: str) -> Response:
    """Change a pool; fewer slots never stop what runs"""
    changed, replayed = pools.update(context(), actor(), name, body, idempotency.from_request())
    return answers.mark_replayed(answers.answer(changed), replayed)


@blueprint.operation("/pools/<name>", "DELETE", "admin")
@blueprint.response(204)
def delete_pool(name: str) -> Response:
    """Delete a pool that no replica names"""
    return answers.gone(replayed=pools.delete(context(), actor(), name, idempotency.from_request()))


@blueprint.operation("/pools/<name>/drain", "POST", "admin")
@blueprint.arguments(EmptyBody(), required=False)
@blueprint.response(200, Pool)
def drain_pool(body: dict[str, Any], name: str) -> Response:
    """Start nothing new in a pool; what runs goes on"""
    changed, replayed = pools.set_state(context(), actor(), name, "draining", idempotency.from_request())
    return answers.mark_replayed(answers.answer(changed), replayed)


@blueprint.operation("/pools/<name>/resume", "POST", "admin")
@blueprint.arguments(EmptyBody(), required=False)
@blueprint.response(200, Pool)
def resume_pool(body: dict[str, Any], name: str) -> Response:
    """Let a drained pool start replicas again"""
    changed, replayed = pools.set_state(context(), actor(), name, "active", idempotency.from_request())
    return answers.mark_replayed(answers.answer(changed), replayed)
