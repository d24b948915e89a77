"""What every error looks like (RFC 9457, and ``error`` that two older contracts promise)."""

from __future__ import annotations

import marshmallow as ma


class ProblemSchema(ma.Schema):
    """An error. Some carry further members beside these, such as ``reason`` and ``replica_id``."""

    class Meta:
        unknown = ma.INCLUDE

    type = ma.fields.String(required=True, metadata={"description": "`urn:hostler:problem:<code>`"})
    title = ma.fields.String(required=True)
    status = ma.fields.Integer(required=True)
    detail = ma.fields.String(required=True, metadata={"description": "What went wrong and what to do next."})
    instance = ma.fields.String(required=True, metadata={"description": "Path of the request."})
    code = ma.fields.String(required=True, metadata={"description": "Stable word to branch on."})
    errors = ma.fields.Dict(
        keys=ma.fields.String(),
        values=ma.fields.List(ma.fields.String()),
        required=True,
        metadata={"description": "Messages by field."},
    )
    request_id = ma.fields.String(required=True)
    error = ma.fields.String(required=True, metadata={"description": "The same as `detail`."})
