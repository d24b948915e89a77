"""API keys."""

from __future__ import annotations

from datetime import datetime

import marshmallow as ma
from marshmallow import validate

from app.api.paging import PageQuery
from app.api.schemas.base import Answer, Body, Page
from app.api.schemas.fields import JsonObject, QueryFlag, Text, Whole

ROLES = ["read", "infer", "register", "operate", "admin"]


def _sensible_year(moment: datetime) -> None:
    # beyond, neither Python's nor Postgres's arithmetic with zones is safe
    if not 2000 <= moment.year <= 9000:
        raise ma.ValidationError("Must lie between the years 2000 and 9000.")


class Limits(Body):
    """What the key may use. Each gateway holds it, for all routes; beyond it 429 with `Retry-After`."""

    requests_per_second = Whole(1, 1_000_000, metadata={"description": "Requests let in within any second."})
    concurrent_requests = Whole(
        1, 1_000_000, metadata={"description": "Requests in flight at once; streams and waits count while they last."}
    )


class KeyCreate(Body):
    """A key to make. It is shown once, in the answer."""

    name = Text(1, 100, required=True)
    role = ma.fields.String(required=True, validate=validate.OneOf(ROLES))
    models = ma.fields.List(
        Text(1, 200),
        allow_none=True,
        validate=validate.Length(max=1000),
        metadata={"description": "Models it may ask; left out or null: all."},
    )
    expires_at = ma.fields.AwareDateTime(
        format="iso",
        allow_none=True,
        validate=_sensible_year,
        metadata={"description": "RFC 3339 with a time zone."},
    )
    limits = ma.fields.Nested(Limits)
    backend_options = ma.fields.Dict(
        keys=Text(1, 63),
        values=JsonObject(),
        validate=validate.Length(max=16),
        metadata={
            "description": "Options per backend that its launches carry, such as"
            ' `{"slurm": {"account": "team-a"}}`; a request cannot leave them.'
        },
    )
    key = Text(0, 512, metadata={"description": "Your own key (24 characters or more) instead of a made one."})


class KeyQuery(PageQuery):
    """Filters of the list of keys."""

    role = ma.fields.String(validate=validate.OneOf(ROLES))
    revoked = QueryFlag(load_default=False, metadata={"description": "Show revoked keys too."})


class Key(Answer):
    """A key without the key: only its hash is stored."""

    id = ma.fields.String(required=True)
    name = ma.fields.String(required=True)
    prefix = ma.fields.String(required=True, metadata={"description": "How it begins, to tell keys apart."})
    role = ma.fields.String(required=True, metadata={"enum": ROLES})
    models = ma.fields.List(ma.fields.String(), required=True, allow_none=True)
    limits = ma.fields.Dict(required=True)
    backend_options = ma.fields.Dict(required=True)
    created_at = ma.fields.DateTime(required=True)
    expires_at = ma.fields.DateTime(required=True, allow_none=True)
    revoked_at = ma.fields.DateTime(required=True, allow_none=True)
    last_used_at = ma.fields.DateTime(required=True, allow_none=True)
    created_by = ma.fields.String(required=True, allow_none=True)


class KeyMade(Key):
    """A new key. `key` is its only copy; null when the request was a replay."""

    key = ma.fields.String(required=True, allow_none=True)


class KeyPage(Page):
    """Keys, oldest first."""

    keys = ma.fields.List(ma.fields.Nested(Key), required=True)
