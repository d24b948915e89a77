"""``/api/v1/service-groups``: services under the name that callers of replica groups know."""

from __future__ import annotations

from typing import Any

from flask import Response

from app.api import answers, paging, service_answers
from app.api.auth import context
from app.api.blueprint import Blueprint
from app.api.schemas import services as schemas
from app.api.v1.services import ID
from app.usecases import services

blueprint = Blueprint("service-groups", "Services, seen as groups of replicas.")


@blueprint.operation("/service-groups", "GET", "read", conditional=True)
@blueprint.arguments(schemas.ServiceQuery(), location="query")
@blueprint.response(200, schemas.ServiceGroupPage)
def list_service_groups(query: dict[str, Any]) -> Response:
    """List groups with how their replicas stand, newest first; a service of one replica is a group too"""
    found, total, more = services.page(context(), *paging.split(query))
    return answers.read({"total": total, "service_groups": [_group(one) for one in found], "next_cursor": more})


@blueprint.operation(f"/service-groups/{ID}", "GET", "read", conditional=True)
@blueprint.response(200, schemas.ServiceGroup)
def get_service_group(service_id: str) -> Response:
    """Show a group: its replicas, their ports, and how they stand"""
    return answers.read(_group(services.get(context(), service_id)))


@blueprint.operation(f"/service-groups/{ID}", "DELETE", "operate", waits=True)
@blueprint.response(200, schemas.Cancelled, headers=service_answers.RETIRED_HEADERS)
def delete_service_group(service_id: str) -> Response:
    """Stop a group; `POST .../status` does the same and is here to stay"""
    answer = service_answers.cancel(service_id, "Service group")
    return service_answers.retired(answer, f"/api/v1/service-groups/{service_id}")


@blueprint.operation(f"/service-groups/{ID}/status", "GET", "read", conditional=True)
@blueprint.response(200, schemas.ServiceStatus)
def service_group_status(service_id: str) -> Response:
    """Show how a group's replicas stand, together and each"""
    return answers.read(services.status(context(), service_id))


@blueprint.operation(f"/service-groups/{ID}/status", "POST", "operate", waits=True)
@blueprint.arguments(schemas.StatusBody())
@blueprint.response(200, schemas.Cancelled)
def cancel_service_group(body: dict[str, Any], service_id: str) -> Response:
    """Stop a group: all its replicas; its record and their logs stay"""
    return service_answers.cancel(service_id, "Service group")


def _group(service: dict[str, Any]) -> dict[str, Any]:
    """The service with what groups are asked for: an id whatever its size, and counts."""
    return service | {
        "group_id": service["id"],
        "healthy_replicas": service["ready"],
        "total_replicas": service["count"],
    }
