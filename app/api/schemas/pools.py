"""Pools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import marshmallow as ma
from marshmallow import validate

from app.api.paging import PageQuery
from app.api.schemas.base import Answer, Body, Page
from app.api.schemas.fields import JsonObject, Text, Whole
from app.api.schemas.replicas import POOL_NAME, labels

POOL_STATES = ["active", "draining"]
MOST_SLOTS = 100_000


class PoolDefaults(Body):
    """What a create in this pool starts from; its own wishes win."""

    replica_config = JsonObject()


class PoolCreate(Body):
    """Where replicas may run. `slots` or `gpus` (or both) say how many at once."""

    name = Text(1, 63, POOL_NAME, required=True)
    backend = Text(1, 63, required=True)
    options = JsonObject(metadata={"description": "By the backend's own schema."})
    slots = Whole(0, MOST_SLOTS)
    gpus = Whole(0, MOST_SLOTS)
    labels = labels()
    defaults = ma.fields.Nested(PoolDefaults)

    def required_by(self, data: Mapping[str, Any]) -> tuple[str, ...]:
        return () if "gpus" in data else ("slots",)


class PoolDefaultsMerge(Body):
    """As the defaults."""

    replica_config = JsonObject(allow_none=True)


class PoolMerge(Body):
    """By the rules of JSON Merge Patch (RFC 7396): objects are merged member by member, null removes a member."""

    options = JsonObject()
    labels = labels(removes=True)
    defaults = ma.fields.Nested(PoolDefaultsMerge)


class PoolChange(Body):
    """Each named field is replaced whole, but for those in `merge`. `gpus: null` lifts that limit."""

    options = JsonObject()
    slots = Whole(0, MOST_SLOTS)
    gpus = Whole(0, MOST_SLOTS, allow_none=True)
    labels = labels()
    defaults = ma.fields.Nested(PoolDefaults)
    merge = ma.fields.Nested(
        PoolMerge,
        metadata={"description": 'Laid over what the pool has: `{"options": {"qos": "high", "account": null}}`.'},
    )

    def contradictions(self, data: Mapping[str, Any]) -> dict[str, list[str]]:
        part = data.get("merge")
        both = sorted(name for name in part if name in data) if isinstance(part, Mapping) else []
        return {name: ["Given in `merge` too."] for name in both}


class PoolQuery(PageQuery):
    """Filters of the list of pools."""

    backend = Text(1, 63)
    state = ma.fields.String(validate=validate.OneOf(POOL_STATES))


class PoolPlace(Answer):
    """Whether the place that a pool names answers a host that serves it."""

    node = ma.fields.String(required=True, metadata={"description": "The host that asked."})
    answers = ma.fields.Boolean(required=True)
    since = ma.fields.DateTime(required=True, metadata={"description": "Since when it was found so each time."})
    asked_at = ma.fields.DateTime(required=True, metadata={"description": "When it was asked last."})
    message = ma.fields.String(required=True, metadata={"description": "Why it does not; empty when it does."})


class Pool(Answer):
    """A pool and what of it is used."""

    name = ma.fields.String(required=True)
    backend = ma.fields.String(required=True)
    options = ma.fields.Dict(
        required=True,
        metadata={"description": "Those that only role admin may set are shown to keys of role operate and admin."},
    )
    slots = ma.fields.Integer(required=True)
    gpus = ma.fields.Integer(required=True, allow_none=True)
    labels = ma.fields.Dict(required=True)
    defaults = ma.fields.Dict(required=True)
    state = ma.fields.String(required=True, metadata={"enum": POOL_STATES})
    slots_used = ma.fields.Integer(required=True)
    queued = ma.fields.Integer(required=True, metadata={"description": "Creates and restarts that wait for room."})
    places = ma.fields.List(
        ma.fields.Nested(PoolPlace),
        required=True,
        metadata={
            "description": "Of each host that serves the pool and is heard of, what it found when it last asked, about"
            " every 30 s. None: nobody asked since the pool was made or changed, or no host serves it."
        },
    )
    created_at = ma.fields.DateTime(required=True)
    updated_at = ma.fields.DateTime(required=True)


class PoolPage(Page):
    """Pools by name."""

    pools = ma.fields.List(ma.fields.Nested(Pool), required=True)
