"""``/api/v1/vllm/available-models`` and the like: models that could be served, found on the hub."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from flask import Response

from app.api import answers
from app.api.auth import context
from app.api.blueprint import Blueprint
from app.api.schemas.hub import AvailableModels, HubModelInfo, HubModels, HubQuery

blueprint = Blueprint("hub", "Models that could be served, and whether vLLM can serve them.")

ALSO = ("infer",)
#: What may come of asking the hub; 503 is among every route's.
ERRORS = (502,)


def _hub() -> ModuleType:
    """The library that asks it takes a tenth of a process's start, and few stacks ever ask."""
    return importlib.import_module("app.usecases.hub")


@blueprint.operation("/vllm/available-models", "GET", "read", also=ALSO, conditional=True)
@blueprint.response(200, AvailableModels)
def list_available_models() -> Response:
    """List the architectures that vLLM serves, and models to begin with"""
    return answers.read(_hub().available(context()))


@blueprint.operation("/vllm/search-models", "GET", "read", also=ALSO, conditional=True, errors=ERRORS)
@blueprint.arguments(HubQuery(), location="query")
@blueprint.response(200, HubModels)
def search_models(query: dict[str, Any]) -> Response:
    """Search the hub for models

    What it says is kept for an hour. 503 within ten seconds when it cannot be asked.
    """
    found = _hub().search(context(), query["query"], query["limit"])
    return answers.read({"models": found, "total": len(found), "query": query["query"]})


@blueprint.operation("/vllm/model-info/<owner>/<name>", "GET", "read", also=ALSO, conditional=True, errors=ERRORS)
@blueprint.response(200, HubModelInfo)
def get_model_info(owner: str, name: str) -> Response:
    """Show a model of the hub, and whether vLLM can serve it

    403 for a gated model that the hub does not show to us. What it says is kept for an hour.
    """
    return answers.read(_hub().info(context(), f"{owner}/{name}"))


@blueprint.operation("/vllm/model-info/<name>", "GET", "read", also=ALSO, conditional=True, errors=ERRORS)
@blueprint.response(200, HubModelInfo)
def get_plain_model_info(name: str) -> Response:
    """Show a model of the hub whose name has no owner, such as gpt2"""
    return answers.read(_hub().info(context(), name))
