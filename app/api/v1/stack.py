"""The stack itself: that it runs, how it is, whether it takes traffic, its numbers."""

from __future__ import annotations

from flask import Response, current_app, request

from app.api import answers
from app.api.auth import OPEN
from app.api.blueprint import Blueprint
from app.api.schemas.stack import Health, Ready
from app.metrics import Metrics
from app.usecases.health import Health as HealthView
from hostler import __version__

blueprint = Blueprint("stack", "Hostler itself.", url_prefix="")

TEXT = {"type": "string"}
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Hostler</title></head>
<body><h1>Hostler {version} is running</h1>
<p><a href="/docs">API documentation</a> · <a href="/health">health</a> · <a href="/openapi.json">OpenAPI</a></p>
</body></html>
"""


@blueprint.operation("/", "GET", OPEN)
@blueprint.response(200, TEXT, content_type="text/plain")
@blueprint.alt_response(200, schema=TEXT, content_type="text/html", success=True)
def home() -> Response:
    """Say that Hostler runs"""
    if request.accept_mimetypes.best_match(("text/plain", "text/html")) == "text/html":
        return Response(PAGE.format(version=__version__), mimetype="text/html")
    return Response(f"Hostler {__version__} is running. The API is described at /docs.\n", mimetype="text/plain")


@blueprint.operation("/health", "GET", OPEN)
@blueprint.response(200, Health)
def health() -> Response:
    """How the stack is

    200 while this process can answer at all; what is wrong stands in `problems`.
    """
    view: HealthView = current_app.extensions["hostler-health"]
    return answers.answer(view.read(), headers={"Cache-Control": "no-store"})


@blueprint.operation("/ready", "GET", OPEN, errors=(503,))
@blueprint.response(200, Ready)
def ready() -> Response:
    """Whether this process should get traffic"""
    view: HealthView = current_app.extensions["hostler-health"]
    view.check_ready()
    return answers.answer({"status": "ready"}, headers={"Cache-Control": "no-store"})


@blueprint.operation("/metrics", "GET", "read")
@blueprint.response(200, TEXT, content_type="text/plain")
def metrics() -> Response:
    """Numbers for Prometheus"""
    view: Metrics = current_app.extensions["hostler-metrics"]
    return Response(view.render(), content_type="text/plain; version=0.0.4; charset=utf-8")
