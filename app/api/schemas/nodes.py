"""Nodes."""

from __future__ import annotations

import marshmallow as ma

from app.api.schemas.base import Answer, Page


class Node(Answer):
    """A host whose workers serve pools."""

    name = ma.fields.String(required=True)
    address = ma.fields.String(
        required=True, metadata={"description": "Where its engines listen and are reached; loopback: only from it."}
    )
    pools = ma.fields.List(
        ma.fields.String(),
        required=True,
        allow_none=True,
        metadata={"description": "Pools that its workers serve; null: all of them."},
    )
    state = ma.fields.String(required=True, metadata={"enum": ["up", "lost"]})
    cpus = ma.fields.Integer(required=True, allow_none=True)
    memory_bytes = ma.fields.Integer(required=True, allow_none=True)
    gpus = ma.fields.List(ma.fields.Dict(), required=True)
    version = ma.fields.String(required=True)
    attributes = ma.fields.Dict(required=True)
    first_seen_at = ma.fields.DateTime(required=True)
    heartbeat_at = ma.fields.DateTime(required=True)
    workers = ma.fields.List(ma.fields.Dict(), required=True, metadata={"description": "Processes that are alive."})
    leases = ma.fields.List(ma.fields.Dict(), required=True, metadata={"description": "Ports and GPUs in use."})


class NodePage(Page):
    """Nodes by name."""

    nodes = ma.fields.List(ma.fields.Nested(Node), required=True)
