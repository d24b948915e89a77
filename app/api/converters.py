"""Path parameters whose form is known: what cannot be an id is a 404 without asking the database."""

from __future__ import annotations

import re
from typing import Any

from flask import Flask, request
from flask_smorest import Api
from werkzeug.routing import BaseConverter

from app.api.auth import context
from app.errors import NotFound
from app.usecases import replicas

REPLICA_ID = "[0-9a-f]{12}"
#: What a cluster calls its job goes for the replica's id; no cluster has counted that far.
JOB_ID = "[0-9]{1,11}"
#: Twelve hex digits are such a name too: an id, a name, and what a cluster calls its job.
SERVICE_REF = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"


class ReplicaIdConverter(BaseConverter):
    """Twelve hex digits, or a cluster's job. Matches any word, so that a mistyped id is told as such and not as an
    unknown route."""

    regex = "[^/]+"


class ServiceRefConverter(ReplicaIdConverter):
    """A service's id or name."""


def install(app: Flask) -> None:
    """Check ids after the key: strangers learn nothing."""
    app.url_map.converters["replica_id"] = ReplicaIdConverter
    app.url_map.converters["service_ref"] = ServiceRefConverter
    app.before_request(_check_ids)


def document(api: Api) -> None:
    api.register_converter(ReplicaIdConverter, lambda _converter: _schema(REPLICA_ID))
    api.register_converter(ServiceRefConverter, lambda _converter: _schema(SERVICE_REF))


def _check_ids() -> None:
    named = request.view_args or {}
    replica_id, service_id = named.get("replica_id"), named.get("service_id")
    if replica_id is not None and re.fullmatch(JOB_ID, replica_id):
        named["replica_id"] = replica_id = replicas.id_of_job(context(), replica_id) or replica_id
    if replica_id is not None and not re.fullmatch(REPLICA_ID, replica_id):
        raise NotFound(
            f"There is no replica {replica_id!r}: an id is twelve hex digits, such as 3f9a01c2d4e5."
            " `hostler replica list` shows them."
        )
    if service_id is not None and not re.fullmatch(SERVICE_REF, service_id):
        raise NotFound(
            f"There is no service {service_id!r}: an id is twelve hex digits, a name small letters, digits and dashes."
            " `hostler service list` shows them."
        )


def _schema(pattern: str) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^{pattern}$"}
