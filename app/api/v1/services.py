"""``/api/v1/services``: a recipe as often as it is wanted, changed step by step and put away together."""

from __future__ import annotations

from typing import Any

from flask import Response

from app.api import answers, idempotency, paging, service_answers
from app.api.auth import actor, context
from app.api.blueprint import Blueprint
from app.api.schemas import services as schemas
from app.api.schemas.replicas import EmptyBody
from app.usecases import service_changes, services

blueprint = Blueprint("services", "Recipes as often as they are wanted: kept so, changed and put away together.")

ID = "<service_ref:service_id>"
#: What bringing a service to another state may come to.
ERRORS = (429, 502)


@blueprint.operation("/services", "POST", "operate", errors=ERRORS, waits=True)
@blueprint.arguments(schemas.ServiceCreate())
@blueprint.response(202, schemas.ServiceAccepted, description="Its replicas are being made.")
@blueprint.alt_response(201, schema=schemas.ServiceAccepted, description="All are ready.", success=True)
@blueprint.alt_response(200, schema=schemas.ServicePlan, description="dry_run: what would be made.", success=True)
def create_service(body: dict[str, Any]) -> Response:
    """Run a recipe

    `Prefer: wait=N` waits until all its replicas are ready (201); 502 says why they cannot be.
    """
    if body.pop("dry_run"):
        return answers.answer(services.plan_create(context(), actor(), body))
    outcome = services.create(context(), actor(), body, idempotency.from_request())
    return service_answers.asked(outcome, done=201)


@blueprint.operation("/services", "GET", "read", conditional=True)
@blueprint.arguments(schemas.ServiceQuery(), location="query")
@blueprint.response(200, schemas.ServicePage)
def list_services(query: dict[str, Any]) -> Response:
    """List services, newest first"""
    found, total, more = services.page(context(), *paging.split(query))
    return answers.read({"total": total, "services": found, "next_cursor": more})


@blueprint.operation(f"/services/{ID}", "GET", "read", conditional=True)
@blueprint.response(200, schemas.Service)
def get_service(service_id: str) -> Response:
    """Show a service and its replicas; secret values are masked"""
    return answers.read(services.get(context(), service_id))


@blueprint.operation(f"/services/{ID}", "PATCH", "operate", errors=ERRORS, waits=True)
@blueprint.arguments(schemas.ServiceChange())
@blueprint.response(202, schemas.ServiceAccepted, description="A new revision; its replicas take over step by step.")
@blueprint.alt_response(200, schema=schemas.ServiceAccepted, description="It is so.", success=True)
def change_service(body: dict[str, Any], service_id: str) -> Response:
    """Change what a service runs

    `config` is merged into the present one, and what comes of it is a new revision. Replicas of it are made, tried out
    and let in within the limits of `update`; if they fail the service goes back to the last good revision by itself.
    With `dry_run` the answer says what would change.
    """
    if body.pop("dry_run"):
        return answers.answer(service_changes.plan_update(context(), actor(), service_id, body))
    return service_answers.asked(services.update(context(), actor(), service_id, body, idempotency.from_request()))


@blueprint.operation(f"/services/{ID}", "DELETE", "operate", waits=True)
@blueprint.response(200, schemas.Cancelled, headers=service_answers.RETIRED_HEADERS)
def delete_service(service_id: str) -> Response:
    """Stop a service; `POST .../status` does the same and is here to stay"""
    return service_answers.retired(service_answers.cancel(service_id, "Service"), f"/api/v1/services/{service_id}")


@blueprint.operation(f"/services/{ID}/status", "GET", "read", conditional=True)
@blueprint.response(200, schemas.ServiceStatus)
def service_status(service_id: str) -> Response:
    """Show how a service's replicas stand, together and each"""
    return answers.read(services.status(context(), service_id))


@blueprint.operation(f"/services/{ID}/status", "POST", "operate", waits=True)
@blueprint.arguments(schemas.StatusBody())
@blueprint.response(200, schemas.Cancelled)
def cancel_service(body: dict[str, Any], service_id: str) -> Response:
    """Stop a service: all its replicas; its record and their logs stay"""
    return service_answers.cancel(service_id, "Service")


@blueprint.operation(f"/services/{ID}/scale", "POST", "operate", errors=ERRORS, waits=True)
@blueprint.arguments(schemas.ScaleBody())
@blueprint.response(202, schemas.ServiceAccepted)
@blueprint.alt_response(200, schema=schemas.ServiceAccepted, description="There are as many.", success=True)
def scale_service(body: dict[str, Any], service_id: str) -> Response:
    """Have more replicas, or fewer: those that are unhealthy or least busy go first, drained"""
    outcome = services.scale(context(), actor(), service_id, body["replicas"], idempotency.from_request())
    return service_answers.asked(outcome)


@blueprint.operation(f"/services/{ID}/rollback", "POST", "operate", errors=ERRORS, waits=True)
@blueprint.arguments(schemas.RollbackBody(), required=False)
@blueprint.response(202, schemas.ServiceAccepted)
@blueprint.alt_response(200, schema=schemas.ServiceAccepted, description="It runs.", success=True)
def rollback_service(body: dict[str, Any], service_id: str) -> Response:
    """Go back to an earlier revision"""
    outcome = services.rollback(context(), actor(), service_id, body.get("revision"), idempotency.from_request())
    return service_answers.asked(outcome)


@blueprint.operation(f"/services/{ID}/pause", "POST", "operate")
@blueprint.arguments(EmptyBody(), required=False)
@blueprint.response(200, schemas.Service)
def pause_service(body: dict[str, Any], service_id: str) -> Response:
    """Take no further step of an update; what fails is still replaced"""
    outcome = services.pause(context(), actor(), service_id, idempotency.from_request())
    return service_answers.shown(outcome)


@blueprint.operation(f"/services/{ID}/resume", "POST", "operate")
@blueprint.arguments(EmptyBody(), required=False)
@blueprint.response(200, schemas.Service)
def resume_service(body: dict[str, Any], service_id: str) -> Response:
    """Go on with an update that was paused"""
    outcome = services.resume(context(), actor(), service_id, idempotency.from_request())
    return service_answers.shown(outcome)
