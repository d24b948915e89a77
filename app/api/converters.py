"""Path parameters whose form is known: what cannot be an id is a 404 without asking the database."""

from __future__ import annotations

import re
from typing import Any

from flask import Flask, request
from flask_smorest import Api
from werkzeug.routing import BaseConverter

from app.errors import NotFound

REPLICA_ID = "[0-9a-f]{12}"


class ReplicaIdConverter(BaseConverter):
    """Twelve hex digits. Matches any word, so that a mistyped id is told as such and not as an unknown route."""

    regex = "[^/]+"


def install(app: Flask) -> None:
    """Check ids after the key: strangers learn nothing."""
    app.url_map.converters["replica_id"] = ReplicaIdConverter
    app.before_request(_check_ids)


def document(api: Api) -> None:
    api.register_converter(ReplicaIdConverter, lambda _converter: _schema())


def _check_ids() -> None:
    replica_id = (request.view_args or {}).get("replica_id")
    if replica_id is not None and not re.fullmatch(REPLICA_ID, replica_id):
        raise NotFound(
            f"There is no replica {replica_id!r}: an id is twelve hex digits, such as 3f9a01c2d4e5."
            " `hostler replica list` shows them."
        )


def _schema() -> dict[str, Any]:
    return {"type": "string", "pattern": f"^{REPLICA_ID}$"}
