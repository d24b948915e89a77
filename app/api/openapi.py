"""The OpenAPI 3.1 document, made from the routes, and Swagger UI over it with assets of an installed package."""

from __future__ import annotations

import json
from http import HTTPStatus
from importlib import resources
from typing import Any

from apispec.ext.marshmallow import MarshmallowPlugin
from flask import Flask, Response, current_app, request
from flask_smorest import Api as SmorestApi
from werkzeug.exceptions import NotFound

from app.api import gateway_routes, problem, services_schema
from app.api.auth import OPEN, allow
from app.api.blueprint import response_name
from app.api.schemas.problem import ProblemSchema
from app.domain.lifecycle import STATE_MEANING
from hostler import __version__

DESCRIPTION = """Hostler brings inference servers into service, keeps them healthy and puts them away again.

Work for a worker answers 202 with a task; records answer at once. Every error is `application/problem+json`.
Send the API key as `X-API-Key`, as a Bearer token or as a Basic password."""

SECURITY = {
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
    "basic": {"type": "http", "scheme": "basic", "description": "The key is the password; any user name."},
}
RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait before trying again.", "schema": {"type": "integer"}}}
#: Swagger UI's own files; nothing else of the package is served.
ASSETS = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui-standalone-preset.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'"
)
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Hostler API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="icon" type="image/png" href="/docs/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/swagger-ui-standalone-preset.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
START = """window.ui = SwaggerUIBundle({
  url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true, persistAuthorization: true,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset], layout: "BaseLayout",
});
"""


class Api(SmorestApi):
    """flask-smorest's documentation with problems as what they are: ``application/problem+json``."""

    ERROR_SCHEMA = ProblemSchema
    # a "default" response would make every answer a documented one
    DEFAULT_ERROR_RESPONSE_NAME = None

    def _register_responses(self) -> None:
        for status in HTTPStatus:
            component: dict[str, Any] = {"description": status.phrase}
            if status >= HTTPStatus.BAD_REQUEST:
                component["content"] = {problem.MIMETYPE: {"schema": ProblemSchema}}
            if status in (429, 503):
                component["headers"] = RETRY_AFTER
            if status == HTTPStatus.UNAUTHORIZED:
                component["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
            self.spec.components.response(response_name(status), component, lazy=True)
            # the names that flask-smorest's own decorators refer to
            self.spec.components.response(status.name, component, lazy=True)

    def _register_error_handlers(self) -> None:
        """app.api.problem answers errors."""


def make_api(app: Flask) -> Api:
    """The documentation of ``app``; register blueprints on it."""
    app.config.update(API_TITLE="Hostler", API_VERSION=__version__, OPENAPI_VERSION="3.1.0")
    api = Api(
        app,
        spec_kwargs={
            "marshmallow_plugin": MarshmallowPlugin(schema_name_resolver=schema_name),
            "info": {"description": DESCRIPTION},
            "security": [{name: []} for name in SECURITY],
        },
    )
    for name, scheme in SECURITY.items():
        api.spec.components.security_scheme(name, scheme)
    api.spec.options["x-lifecycle"] = {str(state): meaning for state, meaning in STATE_MEANING.items()}
    return api


def schema_name(schema: Any) -> str:
    """``ProblemSchema`` is ``Problem`` in the document."""
    kind = schema if isinstance(schema, type) else type(schema)
    return kind.__name__.removesuffix("Schema")


def install(app: Flask, api: Api) -> None:
    """Serve ``/openapi.json`` and ``/docs``; call it when every blueprint is registered."""

    @allow(OPEN)
    def openapi_json() -> Response:
        response = Response(document, mimetype="application/json")
        response.add_etag()
        return response.make_conditional(request)  # type: ignore[return-value]

    app.add_url_rule("/openapi.json", "openapi_json", openapi_json, methods=["GET"])
    app.add_url_rule("/docs", "docs", _docs, methods=["GET"])
    app.add_url_rule("/docs/<name>", "docs_asset", _docs_asset, methods=["GET"])
    _document(app, api, "openapi_json", "This document", {"application/json": {"schema": {"type": "object"}}})
    _document(app, api, "docs", "This document, for people", {"text/html": {"schema": {"type": "string"}}})
    for status in gateway_routes.ERRORS:
        # a component that no route of ours refers to is left out otherwise
        api.spec.components.get_ref("response", response_name(status))
    described = api.spec.to_dict()
    described["paths"] |= gateway_routes.paths()
    app.extensions[services_schema.EXTENSION] = services_schema.of_document(described)
    document = json.dumps(described, separators=(",", ":"))


def _document(app: Flask, api: Api, endpoint: str, summary: str, content: dict[str, Any]) -> None:
    operation = {
        "summary": summary,
        "operationId": endpoint,
        "tags": ["stack"],
        "security": [],
        "responses": {200: {"description": "OK", "content": content}},
    }
    api.spec.path(rule=next(app.url_map.iter_rules(endpoint)), operations={"get": operation})


@allow(OPEN)
def _docs() -> Response:
    response = Response(PAGE, mimetype="text/html")
    response.headers["Content-Security-Policy"] = CONTENT_POLICY
    return response


@allow(OPEN)
def _docs_asset(name: str) -> Response:
    if name == "start.js":
        return Response(START, mimetype="text/javascript")
    if name not in ASSETS:
        raise NotFound()
    content = _assets(current_app)[name]
    response = Response(content, mimetype=ASSETS[name])
    response.headers["Cache-Control"] = "public, max-age=86400"
    return response


def _assets(app: Flask) -> dict[str, bytes]:
    found: dict[str, bytes] | None = app.extensions.get("hostler-docs")
    if found is None:
        folder = resources.files("flask_swagger_ui") / "dist"
        found = app.extensions["hostler-docs"] = {name: (folder / name).read_bytes() for name in ASSETS}
    return found
