"""``/api/v1/models``: what can be served, by name."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from flask import Response

from app.api import answers, idempotency, paging
from app.api.auth import actor, context
from app.api.blueprint import Blueprint
from app.api.schemas.models import Model, ModelCreate, ModelPage, ModelQuery
from app.usecases import models

blueprint = Blueprint("models", "What can be served: the catalogue, and every GGUF file of the models folder.")


@blueprint.operation("/models", "GET", "read", conditional=True)
@blueprint.arguments(ModelQuery(), location="query")
@blueprint.response(200, ModelPage)
def list_models(query: dict[str, Any]) -> Response:
    """List models"""
    found, total, more = models.list_models(context(), *paging.split(query))
    return answers.read({"models": found, "total": total, "next_cursor": more})


@blueprint.operation("/models", "POST", "operate")
@blueprint.arguments(ModelCreate())
@blueprint.response(201, Model)
def create_model(body: dict[str, Any]) -> Response:
    """Add a model; a file outside the models folder needs role admin"""
    made, replayed = models.create(context(), actor(), body, idempotency.from_request())
    return answers.created(made, f"/api/v1/models/{quote(made['name'])}", replayed=replayed)


@blueprint.operation("/models/<path:name>", "GET", "read", conditional=True)
@blueprint.response(200, Model)
def get_model(name: str) -> Response:
    """Show a model by its name or an alias"""
    return answers.read(models.get(context(), name))


@blueprint.operation("/models/<path:name>", "DELETE", "operate")
@blueprint.response(204)
def delete_model(name: str) -> Response:
    """Take a model out of the catalogue; its file stays"""
    return answers.gone(replayed=models.delete(context(), actor(), name, idempotency.from_request()))
