"""Replicas: what a create takes and what a replica shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import marshmallow as ma
from marshmallow import validate

from app.api.paging import PageQuery
from app.api.schemas.base import Answer, Body, Page
from app.api.schemas.fields import Flag, JsonObject, Seconds, StringMap, Text, Whole
from app.domain.lifecycle import Reason, State
from app.domain.modes import ServerMode
from app.domain.tasks import DEFAULT_PRIORITY, PRIORITIES
from app.usecases.pools import MOST_LABELS

YEAR_S = 366 * 86400
MODEL_NAME = r"[^\s/][^\r\n\t]*"
POOL_NAME = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
LABEL_NAME = r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?"
ENV_NAME = r"[A-Za-z_][A-Za-z0-9_]{0,127}"
REPLICA_ID = r"[0-9a-f]{12}"
STATES = [str(state) for state in State]
REASONS = [str(reason) for reason in Reason]


def labels(**kwargs: Any) -> StringMap:
    """The labels field: at most so many short strings; ``removes``: null is taken too."""
    return StringMap(name_pattern=LABEL_NAME, longest_value=255, most=MOST_LABELS, **kwargs)


class Placement(Body):
    """Where to put it. `multibox` is the pool's older name; the others become labels."""

    multibox = Text(1, 63, POOL_NAME)
    usernode = Text(1, 255)
    namespace = Text(1, 255)
    app_tag = Text(1, 255)


class Job(Body):
    """How urgent it is and how long it may live."""

    job_priority = ma.fields.String(
        validate=validate.OneOf(list(PRIORITIES)),
        metadata={"description": "p0 is first.", "default": DEFAULT_PRIORITY},
    )
    job_timeout_s = Whole(1, 10 * YEAR_S, metadata={"description": "Lifetime; stopped when it ends."})
    job_labels = ma.fields.List(Text(0, 255), validate=validate.Length(max=64))


class Timeouts(Body):
    """Seconds that each part of a launch may take."""

    queue_timeout_s = Seconds(0.001, YEAR_S, metadata={"description": "In the pool's queue; default: no limit."})
    port_discovery_timeout_s = Seconds(0.001, YEAR_S, metadata={"default": 600})
    readiness_timeout_s = Seconds(0.001, YEAR_S, metadata={"default": 1800})
    poll_interval_s = Seconds(0.001, 3600, metadata={"default": 5})
    health_check_timeout_s = Seconds(0.001, 3600, metadata={"default": 120})


class GatewayConfig(JsonObject):
    """How the gateway treats it. What else stands there is kept and not looked at."""

    def __init__(self, **kwargs: Any) -> None:
        shown = {"description": "`drain_s`: for requests in flight when it stops. `max_concurrency`: requests at once."}
        super().__init__(metadata=shown, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> dict[str, Any]:
        found = super()._deserialize(value, attr, data, **kwargs)
        errors = {}
        for name, known in (("drain_s", Seconds(0, 86400)), ("max_concurrency", Whole(1, 100_000))):
            try:
                if name in found:
                    known.deserialize(found[name])
            except ma.ValidationError as error:
                errors[name] = error.messages
        if errors:
            raise ma.ValidationError(errors)
        return found


class ReplicaCreate(Body):
    """An inference server to bring into service."""

    server_mode = ma.fields.String(
        load_default="replica",
        validate=validate.OneOf([str(mode) for mode in ServerMode]),
        metadata={"description": "Picks the engine; the pool picks where it runs."},
    )
    model_name = Text(1, 200, MODEL_NAME, metadata={"description": "Required, unless the recipe says it."})
    full_config = JsonObject()
    placement = ma.fields.Nested(Placement)
    replica_config = JsonObject(metadata={"description": "The engine's own options."})
    job = ma.fields.Nested(Job)
    timeouts = ma.fields.Nested(Timeouts)
    api_config = JsonObject()
    platform_config = JsonObject(metadata={"description": "Required for platform_workload."})
    gateway_config = GatewayConfig()
    pool = Text(1, 63, POOL_NAME)
    recipe = Text(1, 200, metadata={"description": "Its name, or `category/name`; what stands here goes over it."})
    config = JsonObject(metadata={"description": "What is laid over the recipe: docs/recipes.md."})
    resources = JsonObject(metadata={"description": "`gpus`: how many."})
    environment = StringMap(name_pattern=ENV_NAME, longest_value=32768, most=200)
    labels = labels()
    capabilities = JsonObject()
    request_id = Text(1, 128, "[A-Za-z0-9._:@/+=-]+")
    wait_for_ready = Flag(load_default=True, metadata={"description": "Answer when it is ready (see Prefer)."})
    run_diagnostics = Flag(load_default=True)
    dry_run = Flag(load_default=False, metadata={"description": "Only show what would be run."})

    def required_by(self, data: Mapping[str, Any]) -> tuple[str, ...]:
        needed = ["recipe"] if "config" in data else ["model_name"] if data.get("recipe") is None else []
        if data.get("server_mode") == ServerMode.PLATFORM_WORKLOAD:
            needed.append("platform_config")
        return tuple(needed)

    def contradictions(self, data: Mapping[str, Any]) -> dict[str, list[str]]:
        placement = data.get("placement")
        placed = placement.get("multibox") if isinstance(placement, Mapping) else None
        pool = data.get("pool")
        if pool is None or placed is None or pool == placed:
            return {}
        return {"pool": ["Differs from placement.multibox."], "placement.multibox": ["Differs from pool."]}


class StopBody(Body):
    """How to end it."""

    force = Flag(load_default=False, metadata={"description": "Kill at once."})
    grace_s = Whole(0, 86400, metadata={"description": "Between asking and killing.", "default": 30})
    drain_s = Seconds(
        0,
        86400,
        metadata={
            "description": "For requests in flight, before it is asked to end; none of it with `force`. Default: the"
            " replica's `gateway_config.drain_s`, else HOSTLER_DRAIN_S."
        },
    )
    abandon = Flag(
        load_default=False,
        metadata={
            "description": "Role admin: ask nobody and free what it holds, though it was not seen gone."
            " For what cannot be asked to end; 409 for what can. What is left of it is ended when its place answers."
        },
    )


class HealthBody(Body):
    """How long to try."""

    timeout_s = Seconds(0.001, 3600, load_default=120.0)
    poll_interval_s = Seconds(0.001, 3600, load_default=5.0)


class EmptyBody(Body):
    """Nothing needs to be said."""


class ReplicaQuery(PageQuery):
    """Filters of the list of replicas."""

    server_mode = ma.fields.String(validate=validate.OneOf([str(mode) for mode in ServerMode]))
    status = ma.fields.String(validate=validate.OneOf(STATES))
    model_name = Text(1, 200)
    pool = Text(1, 63)
    service_id = Text(1, 64)
    label = ma.fields.List(Text(1, 320, "[^=]+=.*"), metadata={"description": "`name=value`; several must all match."})
    owner = Text(1, 64)


class LogQuery(ma.Schema):
    """Which log, and how much of it."""

    attempt = ma.fields.Integer(validate=validate.Range(1, 1_000_000), metadata={"description": "Default: the last."})
    tail = ma.fields.Integer(validate=validate.Range(0, 1_000_000), metadata={"description": "Only the last lines."})
    follow = ma.fields.Boolean(load_default=False, metadata={"description": "Stream what is written (SSE)."})


class Replica(Answer):
    """One inference server, from the wish to the last trace of it."""

    replica_id = ma.fields.String(required=True, metadata={"pattern": f"^{REPLICA_ID}$"})
    status = ma.fields.String(required=True, metadata={"enum": STATES})
    reason = ma.fields.String(required=True, allow_none=True, metadata={"enum": [*REASONS, None]})
    message = ma.fields.String(required=True)
    server_mode = ma.fields.String(required=True)
    model_name = ma.fields.String(required=True)
    pool = ma.fields.String(required=True)
    backend = ma.fields.String(required=True)
    engine = ma.fields.String(required=True)
    owner = ma.fields.String(required=True)
    labels = ma.fields.Dict(required=True)
    desired_state = ma.fields.String(required=True, metadata={"enum": ["running", "stopped"]})
    base_url = ma.fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "Where it answers; of one behind a tunnel, the local end on the API's host."},
    )
    host = ma.fields.String(required=True, allow_none=True)
    port = ma.fields.Integer(required=True, allow_none=True)
    node = ma.fields.String(required=True, allow_none=True)
    attempt = ma.fields.Integer(required=True)
    attempts = ma.fields.List(ma.fields.Dict(), metadata={"description": "Every launch with its end (not in lists)."})
    tunnels = ma.fields.List(
        ma.fields.Dict(), metadata={"description": "Local ends that lead to it: node, port, state (not in lists)."}
    )
    job_id = ma.fields.String(
        allow_none=True, metadata={"description": "What its cluster calls it, of the last attempt (not in lists)."}
    )
    cluster = ma.fields.Dict(
        allow_none=True,
        metadata={
            "description": "What its cluster tells of the last attempt: state, why it waits, when it is expected to"
            " start, on which nodes it runs, how often it was requeued, which seat of a job that several share it has"
            " (not in lists)."
        },
    )
    backend_ref = ma.fields.Raw(
        allow_none=True,
        metadata={"description": "The backend's own handle (not in lists); null for keys that may not operate."},
    )
    log_tail = ma.fields.String(metadata={"description": "Last output of an ended attempt (not in lists)."})
    spec = ma.fields.Dict(required=True, metadata={"description": "The request; secret values are masked."})
    diagnostics = ma.fields.Raw(required=True, allow_none=True)
    last_health = ma.fields.Raw(required=True, allow_none=True)
    timestamps = ma.fields.Dict(required=True, metadata={"description": "When each state was last entered."})
    state_since = ma.fields.DateTime(required=True)
    deadline_at = ma.fields.DateTime(required=True, allow_none=True)
    lifetime_ends_at = ma.fields.DateTime(required=True, allow_none=True)
    created_at = ma.fields.DateTime(required=True)
    updated_at = ma.fields.DateTime(required=True)
    released_at = ma.fields.DateTime(required=True, allow_none=True)
    cleanup = ma.fields.Dict(
        required=True, allow_none=True, metadata={"description": "`pending` while something of it is left."}
    )


class ReplicaPage(Page):
    """Replicas, newest first."""

    replicas = ma.fields.List(ma.fields.Nested(Replica), required=True)


class ReplicaAccepted(Answer):
    """The launch goes on behind the task, or has come to its end when the request waited."""

    replica_id = ma.fields.String(required=True, metadata={"pattern": f"^{REPLICA_ID}$"})
    status = ma.fields.String(required=True, metadata={"enum": STATES})
    message = ma.fields.String(required=True)
    base_url = ma.fields.String(required=True, allow_none=True)
    task_id = ma.fields.String(required=True)
    task_url = ma.fields.String(required=True)
    warnings = ma.fields.List(ma.fields.String(), required=True, metadata={"description": "Wishes not granted."})


class TaskAccepted(Answer):
    """A worker will carry it out."""

    replica_id = ma.fields.String(required=True, metadata={"pattern": f"^{REPLICA_ID}$"})
    status = ma.fields.String(required=True, metadata={"enum": STATES})
    task_id = ma.fields.String(required=True)
    task_url = ma.fields.String(required=True)


class ReplicaState(Answer):
    """What the wish has come to."""

    replica_id = ma.fields.String(required=True, metadata={"pattern": f"^{REPLICA_ID}$"})
    status = ma.fields.String(required=True, metadata={"enum": STATES})
    message = ma.fields.String(required=True)


class HealthAnswer(Answer):
    """What a real probe just found."""

    replica_id = ma.fields.String(required=True, metadata={"pattern": f"^{REPLICA_ID}$"})
    healthy = ma.fields.Boolean(required=True)
    base_url = ma.fields.String(required=True, allow_none=True)
    message = ma.fields.String(required=True)
    checks = ma.fields.List(ma.fields.Dict(), required=True)


class Plan(Answer):
    """What a create would run. Secret values are masked."""

    dry_run = ma.fields.Boolean(required=True)
    argv = ma.fields.List(ma.fields.String(), required=True)
    environment = ma.fields.Dict(required=True)
    files = ma.fields.Raw(required=True)
    placement = ma.fields.Dict(required=True)
    script = ma.fields.String(metadata={"description": "What is submitted, where the backend submits a script."})


class Explanation(Answer):
    """Why it is where it is, and what to type."""

    replica_id = ma.fields.String(required=True)
    status = ma.fields.String(required=True, metadata={"enum": STATES})
    reason = ma.fields.String(required=True, allow_none=True, metadata={"enum": [*REASONS, None]})
    rule = ma.fields.String(required=True)
    message = ma.fields.String(required=True)
    evidence = ma.fields.List(ma.fields.Dict(), required=True)
    since = ma.fields.DateTime(required=True)
    position = ma.fields.Integer(required=True, allow_none=True, metadata={"description": "In the pool's queue."})
    deadline = ma.fields.DateTime(required=True, allow_none=True)
    command = ma.fields.String(required=True, allow_none=True)
