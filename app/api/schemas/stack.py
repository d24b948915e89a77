"""The stack itself."""

from __future__ import annotations

import marshmallow as ma

from app.api.schemas.base import Answer


class Health(Answer):
    """How the stack is. Numbers are null while the database does not answer."""

    status = ma.fields.String(required=True, metadata={"enum": ["healthy", "degraded"]})
    version = ma.fields.String(required=True)
    replicas_total = ma.fields.Integer(required=True, allow_none=True)
    replicas_ready = ma.fields.Integer(required=True, allow_none=True)
    workers_idle = ma.fields.Integer(required=True)
    last_sweep_s = ma.fields.Float(
        required=True, allow_none=True, metadata={"description": "Seconds since the last repair sweep began."}
    )
    oldest_unclaimed_s = ma.fields.Float(
        required=True, allow_none=True, metadata={"description": "How long the oldest due task has been waiting."}
    )
    silent_pools = ma.fields.List(
        ma.fields.String(), required=True, metadata={"description": "Pools with work of which no worker is heard."}
    )
    problems = ma.fields.List(ma.fields.String(), required=True)


class Ready(Answer):
    """This process may get traffic."""

    status = ma.fields.String(required=True, metadata={"enum": ["ready"]})
