"""Gateways, and what they route where."""

from __future__ import annotations

import marshmallow as ma
from marshmallow import validate

from app.api.paging import PageQuery
from app.api.schemas.base import Answer, Page
from app.api.schemas.fields import Text
from app.domain.routing import RouteKind

KINDS = [str(kind) for kind in RouteKind]


class RouteQuery(PageQuery):
    """Filters of the list of routes."""

    kind = ma.fields.String(validate=validate.OneOf(KINDS))
    name = Text(1, 320)
    model = Text(1, 200)


class RoutedReplica(Answer):
    """A server behind a route, as HAProxy sees it."""

    replica_id = ma.fields.String(required=True, metadata={"description": "Or the id of a registration."})
    attempt = ma.fields.Integer(required=True)
    kind = ma.fields.String(required=True, metadata={"enum": ["own", "registered"]})
    server = ma.fields.String(required=True, metadata={"description": "Its name in HAProxy; never used again."})
    address = ma.fields.String(required=True)
    pool = ma.fields.String(required=True, allow_none=True)
    node = ma.fields.String(required=True, allow_none=True)
    state = ma.fields.String(
        required=True,
        metadata={
            "enum": ["up", "down", "draining", "leaving", "absent"],
            "description": "`down`: checks took it out. `draining`: nothing new. `leaving`: to be deleted.",
        },
    )
    since = ma.fields.DateTime(required=True, allow_none=True)
    in_flight = ma.fields.Integer(required=True)
    queued = ma.fields.Integer(required=True)
    max_concurrency = ma.fields.Integer(required=True, allow_none=True)
    requests = ma.fields.Integer(required=True, metadata={"description": "Since HAProxy has it."})
    check = ma.fields.String(required=True, metadata={"description": "The last check, in HAProxy's words."})


class RouteShown(Answer):
    """A name that may be asked for, and what is behind it."""

    name = ma.fields.String(required=True)
    kind = ma.fields.String(required=True, metadata={"enum": KINDS})
    model = ma.fields.String(required=True, allow_none=True, metadata={"description": "Null for several models."})
    state = ma.fields.String(required=True, metadata={"enum": ["ready", "out", "no_slot"]})
    slot = ma.fields.String(required=True, allow_none=True, metadata={"description": "The HAProxy backend."})
    replicas_up = ma.fields.Integer(required=True)
    in_flight = ma.fields.Integer(required=True)
    queued = ma.fields.Integer(required=True)
    replicas = ma.fields.List(ma.fields.Nested(RoutedReplica), required=True)


class RoutePage(Page):
    """Routes by kind and name."""

    gateway = ma.fields.String(required=True, metadata={"description": "Whose routes: the gateway of this host."})
    routes = ma.fields.List(ma.fields.Nested(RouteShown), required=True)


class Gateway(Answer):
    """A host's HAProxy that an agent of ours programs."""

    id = ma.fields.String(required=True)
    node = ma.fields.String(required=True)
    state = ma.fields.String(required=True, metadata={"enum": ["up", "lost"], "description": "Of its agent."})
    haproxy_up = ma.fields.Boolean(required=True)
    pid = ma.fields.Integer(required=True)
    version = ma.fields.String(required=True)
    servers = ma.fields.Integer(required=True, metadata={"description": "Replicas that it may be routing to."})
    first_seen_at = ma.fields.DateTime(required=True)
    heartbeat_at = ma.fields.DateTime(required=True)


class GatewayPage(Page):
    """Gateways by id."""

    gateways = ma.fields.List(ma.fields.Nested(Gateway), required=True)
