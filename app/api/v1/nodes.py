"""``/api/v1/nodes``: the hosts whose workers serve pools."""

from __future__ import annotations

from typing import Any

from flask import Response

from app.api import answers
from app.api.auth import context
from app.api.blueprint import Blueprint
from app.api.paging import PageQuery
from app.api.schemas.nodes import Node, NodePage
from app.usecases import nodes

blueprint = Blueprint("nodes", "Hosts whose workers serve pools: heartbeat, GPUs, CPUs, memory, leases.")


@blueprint.operation("/nodes", "GET", "read", conditional=True)
@blueprint.arguments(PageQuery(), location="query")
@blueprint.response(200, NodePage)
def list_nodes(query: dict[str, Any]) -> Response:
    """List worker hosts"""
    found, total, more = nodes.list_nodes(context(), query["limit"], query.get("cursor"))
    return answers.read({"nodes": found, "total": total, "next_cursor": more})


@blueprint.operation("/nodes/<name>", "GET", "read", conditional=True)
@blueprint.response(200, Node)
def get_node(name: str) -> Response:
    """Show a worker host"""
    return answers.read(nodes.get(context(), name))
