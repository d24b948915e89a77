"""``/api/v1/routes`` and ``/api/v1/gateways``: what is routed where, and by whom."""

from __future__ import annotations

from typing import Any

from flask import Response

from app.api import answers, idempotency, paging
from app.api.auth import actor, context
from app.api.blueprint import Blueprint
from app.api.paging import PageQuery
from app.api.schemas.gateways import GatewayPage, RoutePage, RouteQuery
from app.usecases import gateways, routes

blueprint = Blueprint("gateways", "What the gateways route where.")


@blueprint.operation("/routes", "GET", "read", errors=(503,))
@blueprint.arguments(RouteQuery(), location="query")
@blueprint.response(200, RoutePage)
def list_routes(query: dict[str, Any]) -> Response:
    """List what this host's gateway routes where: replicas, in flight, queued, up or out and since when"""
    settings = context().settings
    found, total, more = routes.list_routes(settings, *paging.split(query))
    body = {"gateway": routes.this_gateway(settings), "routes": found, "total": total, "next_cursor": more}
    return answers.answer(body)


@blueprint.operation("/gateways", "GET", "read")
@blueprint.arguments(PageQuery(), location="query")
@blueprint.response(200, GatewayPage)
def list_gateways(query: dict[str, Any]) -> Response:
    """List gateways"""
    found, total, more = gateways.list_gateways(context(), query["limit"], query.get("cursor"))
    return answers.answer({"gateways": found, "total": total, "next_cursor": more})


@blueprint.operation("/gateways/<gateway_id>", "DELETE", "admin")
@blueprint.response(204)
def forget_gateway(gateway_id: str) -> Response:
    """Declare a gateway gone that will not come back: ports that it may route to are free. Not while it is alive"""
    return answers.gone(replayed=gateways.forget(context(), actor(), gateway_id, idempotency.from_request()))
