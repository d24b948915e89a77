"""Events."""

from __future__ import annotations

import marshmallow as ma
from marshmallow import validate

from app.api.paging import PageQuery
from app.api.schemas.base import Answer
from app.api.schemas.fields import Text
from app.api.schemas.replicas import REASONS
from app.api.schemas.replicas import STATES as REPLICA_STATES

CURSOR = "[0-9]{1,19}-[0-9]{1,19}"


class EventQuery(PageQuery):
    """Filters of the history."""

    cursor = Text(1, 40, CURSOR, metadata={"description": "`next_cursor` of the page before, or an event's id."})
    kind = Text(1, 63)
    replica_id = Text(1, 64)
    task_id = Text(1, 64)
    service_id = Text(1, 64)
    pool = Text(1, 63)
    node = Text(1, 255)
    actor = Text(1, 255)
    to_state = ma.fields.String(validate=validate.OneOf(REPLICA_STATES))
    order = ma.fields.String(
        load_default="desc",
        validate=validate.OneOf(["asc", "desc"]),
        metadata={"description": "asc follows what is new: only settled events, none is ever skipped."},
    )


class ReplicaEventQuery(PageQuery):
    """A page of one replica's events."""

    cursor = Text(1, 40, CURSOR, metadata={"description": "`next_cursor` of the page before, or an event's id."})


class Event(Answer):
    """Something that happened, with its cause and actor. Never changed afterwards."""

    id = ma.fields.String(required=True, metadata={"pattern": f"^{CURSOR}$"})
    at = ma.fields.DateTime(required=True)
    kind = ma.fields.String(required=True)
    replica_id = ma.fields.String(required=True, allow_none=True)
    attempt = ma.fields.Integer(required=True, allow_none=True)
    task_id = ma.fields.String(required=True, allow_none=True)
    service_id = ma.fields.String(required=True, allow_none=True)
    pool = ma.fields.String(required=True, allow_none=True)
    node = ma.fields.String(required=True, allow_none=True)
    actor = ma.fields.String(required=True)
    cause = ma.fields.String(required=True)
    from_state = ma.fields.String(required=True, allow_none=True, metadata={"enum": [*REPLICA_STATES, None]})
    to_state = ma.fields.String(required=True, allow_none=True, metadata={"enum": [*REPLICA_STATES, None]})
    reason = ma.fields.String(required=True, allow_none=True, metadata={"enum": [*REASONS, None]})
    message = ma.fields.String(required=True)
    request_id = ma.fields.String(required=True)
    data = ma.fields.Raw(required=True, allow_none=True)


class EventPage(Answer):
    """A page of the history."""

    events = ma.fields.List(ma.fields.Nested(Event), required=True)
    next_cursor = ma.fields.String(required=True, allow_none=True)
