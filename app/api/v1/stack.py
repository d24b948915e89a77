"""The stack itself: that it runs, how it is, whether it takes traffic, its numbers."""

from __future__ import annotations

from flask import Response, current_app, request

from app.api import answers
from app.api.auth import OPEN
from app.api.blueprint import Blueprint
from app.api.schemas.stack import Health, Ready
from app.api.text import prefers_text
from app.errors import Starting, Unavailable
from app.metrics import Metrics
from app.usecases.chat import Chat
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


@blueprint.operation("/health", "GET", OPEN, errors=(503,))
@blueprint.response(200, Health)
@blueprint.alt_response(200, schema=TEXT, content_type="text/plain", success=True)
def health() -> Response:
    """How the stack is

    200 while this process can answer at all; what is wrong stands in `problems`. Asked for text, it says how many
    workers of the chat are idle, and is 503 until the first of them was ready.
    """
    if prefers_text():
        return _idle_workers()
    view: HealthView = current_app.extensions["hostler-health"]
    return answers.answer(view.read(), headers={"Cache-Control": "no-store"})


def _idle_workers() -> Response:
    pool: Chat = current_app.extensions["hostler-chat"]
    try:
        words, status = f"ok \u2013 workers idle: {pool.count_idle()}", 200
    except (Starting, Unavailable) as error:
        words, status = error.detail, error.status
    text = Response(words, status, mimetype="text/plain")
    text.headers["Cache-Control"] = "no-store"
    if status != 200:
        text.headers["Retry-After"] = "1"
    return text


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
