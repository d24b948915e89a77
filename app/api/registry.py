"""``/register``, ``/route`` and ``/registry``: servers that others run, found by what they can do."""

from __future__ import annotations

from functools import partial
from typing import Any

from flask import Response, request

from app.api import answers, paging
from app.api.auth import actor, context
from app.api.blueprint import Blueprint
from app.api.held import Hold, line
from app.api.schemas.registry import Found, RegisterBody, RegistryPage, RegistryQuery
from app.api.sse import MIMETYPE
from app.settings import registered_silence_s
from app.usecases import registrations
from app.usecases.registrars import registrar_of
from app.usecases.registry import registry_of

blueprint = Blueprint(
    "registry", "Servers that others run and keep registered, and Hostler's own, by what they can do.", url_prefix=""
)

STREAM = {
    "type": "string",
    "description": 'Server-sent events: `data: {"status": "registered", "replica_id": "r1"}`, then'
    ' `data: {"status": "alive"}` every five seconds. What is registered ends with the connection.',
}
QUERY = {
    "in": "query",
    "name": "capabilities",
    "description": "Any names and values: all of them must stand in one capability of the server. Numbers and booleans"
    " match as they are written in JSON.",
    "schema": {"type": "object", "additionalProperties": {"type": "string"}},
    "style": "form",
    "explode": True,
    "example": {"model": "qwen2", "type": "chat"},
}


@blueprint.operation("/register", "POST", "register", errors=(409, 429), replays=False)
@blueprint.arguments(RegisterBody())
@blueprint.response(200, STREAM, content_type=MIMETYPE)
def register(body: dict[str, Any]) -> Response:
    """Register a server for as long as this connection lives

    The same id sent again with the same key takes over from the stream before.
    """
    ctx = context()
    registrar = registrar_of(ctx)
    held = registrations.register(ctx, actor(), body)
    return Hold(
        line(status="registered", replica_id=held.replica_id),
        silence_s=registered_silence_s(ctx.settings),
        on_begin=partial(registrar.deliver, held),
        on_end=partial(registrar.end, held),
    )


@blueprint.operation("/route", "GET", "infer", also=("read",), errors=(404,), parameters=(QUERY,))
@blueprint.response(200, Found)
def route() -> Response:
    """Find a server that has these capabilities

    Healthy ones come first; among them the one that was handed out least of late.
    """
    entry = registry_of(context()).route(list(request.args.items(multi=True)), actor().models)
    return answers.answer(
        {"endpoint": entry.endpoint, "replica_id": entry.replica_id}, headers={"Cache-Control": "no-store"}
    )


@blueprint.operation("/registry", "GET", "infer", also=("read",), conditional=True)
@blueprint.arguments(RegistryQuery(), location="query")
@blueprint.response(200, RegistryPage)
def list_registry(query: dict[str, Any]) -> Response:
    """List everything that can be found: registered servers, and Hostler's own ready replicas"""
    _, limit, cursor = paging.split(query)
    found, total, more = registry_of(context()).page(limit, cursor, actor().models)
    return answers.read({"replicas": found, "total": total, "next_cursor": more})
