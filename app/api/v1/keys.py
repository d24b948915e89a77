"""``/api/v1/keys``: who may do what."""

from __future__ import annotations

from typing import Any

from flask import Response

from app.api import answers, idempotency, paging
from app.api.auth import actor, context
from app.api.blueprint import Blueprint
from app.api.schemas.keys import Key, KeyCreate, KeyMade, KeyPage, KeyQuery
from app.usecases import keys

blueprint = Blueprint("keys", "API keys: shown once, stored hashed.")


@blueprint.operation("/keys", "GET", "admin", conditional=True)
@blueprint.arguments(KeyQuery(), location="query")
@blueprint.response(200, KeyPage)
def list_keys(query: dict[str, Any]) -> Response:
    """List keys, without the keys themselves"""
    found, total, more = keys.list_keys(context(), *paging.split(query))
    return answers.read({"keys": found, "total": total, "next_cursor": more})


@blueprint.operation("/keys", "POST", "admin")
@blueprint.arguments(KeyCreate())
@blueprint.response(201, KeyMade)
def create_key(body: dict[str, Any]) -> Response:
    """Make a key; this answer holds its only copy"""
    made = keys.create(context(), actor(), body, idempotency.from_request())
    response = answers.created(
        {**made.record, "key": made.key}, f"/api/v1/keys/{made.record['id']}", replayed=made.replayed
    )
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.operation("/keys/<key_id>", "GET", "admin", conditional=True)
@blueprint.response(200, Key)
def get_key(key_id: str) -> Response:
    """Show a key, without the key itself"""
    return answers.read(keys.get(context(), key_id))


@blueprint.operation("/keys/<key_id>", "DELETE", "admin")
@blueprint.response(204)
def delete_key(key_id: str) -> Response:
    """Revoke a key; the last admin key stays"""
    return answers.gone(replayed=keys.revoke(context(), actor(), key_id, idempotency.from_request()))
