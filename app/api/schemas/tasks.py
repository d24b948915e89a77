"""Tasks: what a worker carries out."""

from __future__ import annotations

import marshmallow as ma
from marshmallow import validate

from app.api.paging import PageQuery
from app.api.schemas.base import Answer, Page
from app.api.schemas.fields import Text
from app.api.schemas.replicas import REASONS
from app.domain.tasks import Phase, TaskKind, TaskState

STATES = [str(state) for state in TaskState]
KINDS = [str(kind) for kind in TaskKind]


class TaskQuery(PageQuery):
    """Filters of the list of tasks."""

    kind = ma.fields.String(validate=validate.OneOf(KINDS))
    state = ma.fields.String(validate=validate.OneOf(STATES))
    replica_id = Text(1, 64)
    service_id = Text(1, 64)
    pool = Text(1, 63)


class TaskWaitQuery(ma.Schema):
    """Whether to wait for its end."""

    wait = ma.fields.Float(
        validate=validate.Range(0, 86400, error="Must be between 0 and 86400 seconds."),
        metadata={"description": "Wait up to so many seconds for the task to end."},
    )


class Task(Answer):
    """One verb, asked for once and carried out once."""

    id = ma.fields.String(required=True)
    kind = ma.fields.String(required=True, metadata={"enum": KINDS})
    state = ma.fields.String(required=True, metadata={"enum": STATES})
    phase = ma.fields.String(required=True, metadata={"enum": [str(phase) for phase in Phase]})
    progress = ma.fields.Integer(required=True, metadata={"minimum": 0, "maximum": 100})
    attempt = ma.fields.Integer(required=True)
    claims = ma.fields.Integer(required=True, metadata={"description": "How often a worker took it."})
    claimed_by = ma.fields.String(required=True, allow_none=True)
    pool = ma.fields.String(required=True)
    node = ma.fields.String(required=True, allow_none=True)
    owner = ma.fields.String(required=True)
    request_id = ma.fields.String(required=True)
    reason = ma.fields.String(required=True, allow_none=True, metadata={"enum": [*REASONS, None]})
    message = ma.fields.String(required=True)
    result = ma.fields.Raw(required=True, allow_none=True)
    created_at = ma.fields.DateTime(required=True)
    started_at = ma.fields.DateTime(required=True, allow_none=True)
    finished_at = ma.fields.DateTime(required=True, allow_none=True)
    replica_id = ma.fields.String(
        required=True, allow_none=True, metadata={"description": "Null for what is asked of a service."}
    )
    service_id = ma.fields.String(required=True, allow_none=True)


class TaskPage(Page):
    """Tasks, newest first."""

    tasks = ma.fields.List(ma.fields.Nested(Task), required=True)
