"""Path parameters that are checked by the router: what cannot be an id is a 404 without asking the database."""

from __future__ import annotations

from typing import Any

from flask import Flask
from flask_smorest import Api
from werkzeug.routing import BaseConverter


class ReplicaIdConverter(BaseConverter):
    """Twelve hex digits."""

    regex = "[0-9a-f]{12}"


def install(app: Flask) -> None:
    app.url_map.converters["replica_id"] = ReplicaIdConverter


def document(api: Api) -> None:
    api.register_converter(ReplicaIdConverter, _schema)


def _schema(converter: BaseConverter) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^{converter.regex}$"}
