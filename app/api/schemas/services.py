"""Services: what a create takes, what may be changed, and what a service shows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import marshmallow as ma
from marshmallow import validate

from app.api.paging import PageQuery
from app.api.schemas.base import Answer, Body, Page
from app.api.schemas.fields import Flag, JsonObject, Seconds, Text, Whole
from app.api.schemas.replicas import POOL_NAME, REASONS, REPLICA_ID, labels
from app.domain.routing import SERVICE_LABEL
from app.errors import InvalidConfig

SERVICE_NAME = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
RECIPE_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9][A-Za-z0-9._-]{0,99})?"
#: Words that stand where a service's name would in an address.
TAKEN_WORDS = ("targets",)
MOST_REPLICAS = 10_000
#: How a service stands, and how its replicas do together.
STATUSES = ["pending", "configuring", "running", "completed", "failed", "cancelled"]
OVERALL = ["healthy", "partial", "degraded", "starting", "failed", "stopped"]
DAY_S = 86_400
_DIGITS = re.compile(r"[0-9]{1,9}")


class Count(Whole):
    """A whole number, or one in quotes."""

    def _validated(self, value: Any) -> int:
        return super()._validated(int(value) if isinstance(value, str) and _DIGITS.fullmatch(value) else value)


class UpdateLimits(Body):
    """How an update goes from one revision to the next."""

    max_surge = Count(0, MOST_REPLICAS, metadata={"default": 1, "description": "Replicas beyond the count meanwhile."})
    max_unavailable = Count(0, MOST_REPLICAS, metadata={"default": 0, "description": "Of the count, not ready."})
    progress_deadline_s = Seconds(
        1, DAY_S, metadata={"default": 600, "description": "Without progress: it has failed."}
    )
    auto_rollback = Flag(metadata={"default": True, "description": "Go back by itself when it has failed."})


class RestartLimits(Body):
    """How often, and after what pause, a replica that failed is replaced."""

    tries = Count(0, 100, metadata={"default": 5, "description": "In a row, then it is given up."})
    backoff_s = Seconds(0, DAY_S, metadata={"default": 10, "description": "First pause; it doubles."})
    backoff_max_s = Seconds(0, DAY_S, metadata={"default": 300})
    stable_s = Seconds(0, DAY_S, metadata={"default": 60, "description": "Ready so long: the tries begin anew."})
    unhealthy_s = Seconds(
        0, DAY_S, metadata={"default": 120, "description": "Unhealthy for so long, it is replaced; 0: never."}
    )


class _Described(Body):
    """What create and change have in common."""

    config = JsonObject(
        metadata={
            "description": "By the recipe: `environment`, `resources{nodes, cpu, memory, gpu, time_limit}`,"
            " `gpu_per_replica`, parameters."
        }
    )
    model_name = Text(1, 200, r"[^\s/][^\r\n\t]*", metadata={"description": "Route name; else the recipe's model."})
    update = ma.fields.Nested(UpdateLimits)
    restart = ma.fields.Nested(RestartLimits)
    all_or_nothing = Flag(metadata={"description": "Until all were ready once, one failure ends all."})
    successor_lead_s = Seconds(
        0, 366 * DAY_S, allow_none=True, metadata={"description": "A successor is made so long before a lifetime ends."}
    )
    dry_run = Flag(load_default=False, metadata={"description": "Only show what would be made."})

    @ma.validates_schema
    def has_no_reserved_label(self, data: Mapping[str, Any], **_: Any) -> None:
        if SERVICE_LABEL in data.get("labels", {}):
            raise ma.ValidationError({"labels": {SERVICE_LABEL: ["Set by Hostler on the replicas of each service."]}})


class ServiceCreate(_Described):
    """A recipe, as often as it is wanted."""

    recipe_name = Text(1, 201, RECIPE_NAME, required=True, metadata={"description": "`category/name`, or the name."})
    replicas = Count(0, MOST_REPLICAS, metadata={"description": "Default: the recipe's, or by `gpu_per_replica`."})
    name = Text(1, 63, SERVICE_NAME, metadata={"description": "Default: one is made."})
    pool = Text(1, 63, POOL_NAME)
    labels = labels()

    @ma.validates("name")
    def is_no_route(self, value: str, **_: Any) -> None:
        if value in TAKEN_WORDS:
            raise ma.ValidationError(f"{value} is a route of its own. Choose another name.")


class ServiceChange(_Described):
    """What is named is merged into what there is; what comes of it is a new revision."""

    recipe_name = Text(1, 201, RECIPE_NAME)
    pool = Text(1, 63, POOL_NAME)
    labels = labels(metadata={"description": "In place of the present ones."})

    replace_config = Flag(
        load_default=False,
        metadata={
            "description": "`config`, `update` and `restart` stand in place of the old ones, and are not merged."
        },
    )

    def refuse(self, data: Mapping[str, Any]) -> None:
        if "replicas" in data:
            told = "Not a matter of revisions. Send it to POST .../scale."
            raise InvalidConfig(f"replicas: {told}", errors={"replicas": [told]})


class ScaleBody(Body):
    """How many there should be."""

    replicas = Count(0, MOST_REPLICAS, required=True)


class RollbackBody(Body):
    """Where to go back to."""

    revision = Count(1, 1_000_000_000, metadata={"description": "Default: the last good one before the present."})


class StatusBody(Body):
    """The one status that can be asked for."""

    status = ma.fields.String(
        required=True,
        validate=validate.OneOf(["cancelled"], error="Must be cancelled: nothing else can be asked for."),
    )


class ServiceQuery(PageQuery):
    """Filters of the list of services."""

    status = ma.fields.String(validate=validate.OneOf(STATUSES))
    name = Text(1, 63)
    recipe = Text(1, 201, metadata={"description": "`category/name`, or the name."})
    pool = Text(1, 63)
    label = ma.fields.List(Text(1, 320, "[^=]+=.*"), metadata={"description": "`name=value`; several must all match."})
    owner = Text(1, 64)


class ServiceLogQuery(ma.Schema):
    """Which logs, and how much of them."""

    replica = Text(1, 12, f"{REPLICA_ID}|[0-9]{{1,5}}", metadata={"description": "A replica's id, or its ordinal."})
    tail = ma.fields.Integer(
        validate=validate.Range(0, 1_000_000), metadata={"description": "Only the last lines of each."}
    )
    follow = ma.fields.Boolean(load_default=False, metadata={"description": "Stream what is written (SSE)."})


class Member(Answer):
    """One replica of a service."""

    replica_id = ma.fields.String(required=True, metadata={"pattern": f"^{REPLICA_ID}$"})
    status = ma.fields.String(required=True)
    ordinal = ma.fields.Integer(required=True)
    revision = ma.fields.Integer(required=True)
    reason = ma.fields.String(allow_none=True)
    message = ma.fields.String()
    host = ma.fields.String(allow_none=True)
    port = ma.fields.Integer(allow_none=True)
    node = ma.fields.String(allow_none=True)
    gpus = ma.fields.Raw(allow_none=True)
    job_id = ma.fields.String(allow_none=True, metadata={"description": "What its cluster calls it."})
    base_url = ma.fields.String(allow_none=True)


class Service(Answer):
    """What should run, and what does."""

    id = ma.fields.String(required=True, metadata={"pattern": f"^{REPLICA_ID}$"})
    service_id = ma.fields.String(required=True, metadata={"description": "The same as `id`."})
    group_id = ma.fields.String(
        required=True, allow_none=True, metadata={"description": "The same as `id`; null with one replica."}
    )
    name = ma.fields.String(required=True)
    recipe_name = ma.fields.String(required=True)
    status = ma.fields.String(required=True, metadata={"enum": STATUSES})
    overall_status = ma.fields.String(required=True, metadata={"enum": OVERALL})
    reason = ma.fields.String(required=True, allow_none=True, metadata={"enum": [*REASONS, None]})
    message = ma.fields.String(required=True)
    desired_state = ma.fields.String(required=True, metadata={"enum": ["running", "cancelled"]})
    count = ma.fields.Integer(required=True, metadata={"description": "How many replicas there should be."})
    ready = ma.fields.Integer(required=True)
    revision = ma.fields.Integer(required=True)
    good_revision = ma.fields.Integer(
        required=True, allow_none=True, metadata={"description": "The last of which all were ready."}
    )
    paused = ma.fields.Boolean(required=True)
    pool = ma.fields.String(required=True)
    owner = ma.fields.String(required=True)
    labels = ma.fields.Dict(required=True)
    config = ma.fields.Dict(required=True, metadata={"description": "As asked for; secret values are masked."})
    warnings = ma.fields.List(ma.fields.String(), required=True, metadata={"description": "Wishes not granted."})
    replicas = ma.fields.List(ma.fields.Nested(Member), required=True)
    created_at = ma.fields.DateTime(required=True)
    updated_at = ma.fields.DateTime(required=True)
    ended_at = ma.fields.DateTime(required=True, allow_none=True)


class ServicePage(Page):
    """Services, newest first."""

    services = ma.fields.List(ma.fields.Nested(Service), required=True)


class ServiceGroup(Service):
    """A service with what groups of replicas are asked for."""

    group_id = ma.fields.String(required=True, metadata={"pattern": f"^{REPLICA_ID}$"})
    healthy_replicas = ma.fields.Integer(required=True)
    total_replicas = ma.fields.Integer(required=True)


class ServiceGroupPage(Page):
    """Groups, newest first."""

    service_groups = ma.fields.List(ma.fields.Nested(ServiceGroup), required=True)


class ServiceAccepted(Service):
    """It is being brought to what was asked for."""

    task_id = ma.fields.String(required=True, allow_none=True)
    task_url = ma.fields.String(required=True, allow_none=True)


class ServicePlan(Answer):
    """What a create or change would make. Secret values are masked."""

    dry_run = ma.fields.Boolean(required=True)


class ServiceStatus(Answer):
    """How the replicas of a service stand, together and each."""

    status = ma.fields.String(required=True, metadata={"enum": STATUSES})
    overall_status = ma.fields.String(required=True, metadata={"enum": OVERALL})
    healthy_replicas = ma.fields.Integer(required=True)
    total_replicas = ma.fields.Integer(required=True)
    replica_statuses = ma.fields.List(ma.fields.Nested(Member), required=True)


class Cancelled(Answer):
    """Its replicas are being put away; the record stays."""

    success = ma.fields.Boolean(required=True)
    message = ma.fields.String(required=True)
    service_id = ma.fields.String(required=True)
    group_id = ma.fields.String(required=True)
    replicas_updated = ma.fields.Integer(required=True, metadata={"description": "That were asked to end."})
    task_id = ma.fields.String(required=True, allow_none=True)
    status = ma.fields.String(required=True, metadata={"enum": STATUSES})
    ended_at = ma.fields.DateTime(
        required=True, allow_none=True, metadata={"description": "When the last of it was seen gone."}
    )


class Revision(Answer):
    """What a service was asked to run."""

    number = ma.fields.Integer(required=True)
    actor = ma.fields.String(required=True)
    cause = ma.fields.String(required=True)
    created_at = ma.fields.DateTime(required=True)


class RevisionList(Answer):
    """Revisions, newest first."""

    revisions = ma.fields.List(ma.fields.Nested(Revision), required=True)


class TargetGroup(ma.Schema):
    """One replica as Prometheus's http_sd has it."""

    targets = ma.fields.List(ma.fields.String(), required=True)
    labels = ma.fields.Dict(keys=ma.fields.String(), values=ma.fields.String(), required=True)
