"""``/api/v1/registrations``: who registered what, how it is, and taking it out."""

from __future__ import annotations

from typing import Any

from flask import Response

from app.api import answers, paging
from app.api.auth import actor, context
from app.api.blueprint import Blueprint
from app.api.schemas.registry import Registration, RegistrationPage, RegistrationQuery
from app.usecases import registrations

blueprint = Blueprint("registrations", "Registered servers as the operator sees them.")


@blueprint.operation("/registrations", "GET", "read", conditional=True)
@blueprint.arguments(RegistrationQuery(), location="query")
@blueprint.response(200, RegistrationPage)
def list_registrations(query: dict[str, Any]) -> Response:
    """List registrations"""
    found, total, more = registrations.list_registrations(context(), *paging.split(query))
    return answers.read({"registrations": found, "total": total, "next_cursor": more})


@blueprint.operation("/registrations/<path:registered_id>", "GET", "read", conditional=True)
@blueprint.response(200, Registration)
def get_registration(registered_id: str) -> Response:
    """Show a registration, ended or not"""
    return answers.read(registrations.get(context(), registered_id))


@blueprint.operation("/registrations/<path:registered_id>", "DELETE", "operate", replays=False)
@blueprint.response(204)
def delete_registration(registered_id: str) -> Response:
    """End a registration whoever holds it; its stream is cut"""
    registrations.remove(context(), actor(), registered_id)
    return answers.gone()
