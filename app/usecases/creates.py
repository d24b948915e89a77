"""Asking for a replica: one statement writes replica, task and event; then the bell is rung."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, text

from app.db.engine import driver_sql, first_row
from app.db.repos import leases, pools
from app.db.repos.idempotency import begin_ctes
from app.domain.masking import mask, mask_environment
from app.domain.placeholders import HOST_LATER, PORT_LATER
from app.domain.tasks import DEFAULT_PRIORITY, PRIORITIES, TaskKind
from app.doorbell.queues import queue_for
from app.engines.base import Command
from app.errors import HostlerError, QueueFull
from app.usecases import idempotency as remembered
from app.usecases.context import Actor, Context, Idempotency
from app.usecases.plans import Plan, command_for, planned_environment, resolve, resolved
from app.usecases.reach import LOOPBACK
from app.usecases.scripts import script_of

#: What of a request is kept as the replica's spec. The environment is kept apart, encrypted.
SPEC_FIELDS = (
    "full_config",
    "placement",
    "replica_config",
    "job",
    "timeouts",
    "wait_for_ready",
    "run_diagnostics",
    "api_config",
    "platform_config",
    "gateway_config",
    "recipe",
    "resources",
    "capabilities",
)
#: The cause of the first event, unless a service asks.
CAUSE = "create requested"
#: Placement words that are labels too, so that they can be listed by.
_PLACEMENT_LABELS = ("usernode", "namespace", "app_tag")


@dataclass(frozen=True)
class CreateOutcome:
    """The new replica and its task; ``replayed`` when an Idempotency-Key asked for it before."""

    replica_id: str
    task_id: str
    replayed: bool = False
    warnings: tuple[str, ...] = ()


# One statement each for a queue that may be full and one that cannot be: with that asked by a parameter, Postgres would
# plan every create anew, which costs as much as carrying it out.
_POOL = "SELECT 1 FROM pools WHERE name = :pool AND updated_at = :pool_version"
_NOT_FULL = """ AND NOT EXISTS (
        SELECT 1 FROM tasks WHERE pool = :pool AND state = 'queued' AND kind IN ('create', 'restart')
        OFFSET :max_queued - 1 LIMIT 1)"""


def _room(near_limit: bool) -> str:
    return f"room AS MATERIALIZED ({_POOL}{_NOT_FULL if near_limit else ''})"


def _insert(source: str) -> str:
    return f"""
made AS (
    INSERT INTO replicas (id, owner, pool, backend, engine, server_mode, model_name, spec, environment, labels,
                          priority, timestamps, deadline_at)
    SELECT :id, :owner, :pool, :backend, :engine, :mode, :model_name, CAST(:spec AS jsonb), :environment,
           CAST(:labels AS jsonb), :priority, jsonb_build_object('pending', hostler_now()),
           hostler_now() + make_interval(secs => CAST(:queue_timeout_s AS float8))
    FROM {source} RETURNING id
),
task AS (
    INSERT INTO tasks (id, kind, priority, pool, replica_id, attempt, owner, request_id, arguments)
    SELECT :task_id, 'create', :priority, :pool, id, 1, :owner, :request_id, CAST(:arguments AS jsonb) FROM made
)
INSERT INTO events (kind, replica_id, attempt, task_id, pool, actor, cause, to_state, request_id)
SELECT 'transition', id, 1, :task_id, :pool, :actor, :cause, 'pending', :request_id FROM made
RETURNING id
"""


#: Everything or nothing in one statement, by ``near_limit``; the last only if the Idempotency-Key is new.
_INSERT = {near: text(f"WITH {_room(near)}, {_insert('room')}") for near in (False, True)}
_INSERT_AT_ONCE = {near: driver_sql(statement) for near, statement in _INSERT.items()}
_INSERT_ONCE = {
    near: driver_sql(text(f"WITH {_room(near)}, {begin_ctes('room')}, {_insert('first')}")) for near in (False, True)
}


def request_create(
    ctx: Context, actor: Actor, body: Mapping[str, Any], idempotency: Idempotency | None = None
) -> CreateOutcome:
    """Accept a create. Raises the 4xx that names the field; QueueFull when the pool's queue is at its limit."""
    outcome = new_ids()
    plan = _accept_at_once(ctx, actor, body, outcome, idempotency)
    if plan is None:
        with ctx.database.begin() as connection:
            if idempotency:
                before = remembered.begin(connection, actor, idempotency, _ids(outcome))
                if before is not None:
                    return CreateOutcome(before["replica_id"], before["task_id"], replayed=True)
            plan = _accept(ctx, connection, actor, body, outcome)
    ctx.doorbell.ring(TaskKind.CREATE, queue_for(TaskKind.CREATE, plan.pool, None), pool=plan.pool)
    ctx.notify("events", f"replica:{outcome.replica_id}")
    return replace(outcome, warnings=tuple(plan.warnings))


def _ids(outcome: CreateOutcome) -> dict[str, str]:
    return {"replica_id": outcome.replica_id, "task_id": outcome.task_id}


def _accept_at_once(
    ctx: Context, actor: Actor, body: Mapping[str, Any], outcome: CreateOutcome, idempotency: Idempotency | None
) -> Plan | None:
    """One statement that is its own transaction. None when anything is unusual: then it is gone through step by step,
    beginning with what the Idempotency-Key did before."""
    with ctx.database.read() as connection:
        try:
            plan = resolve(ctx, connection, actor, body)
        except HostlerError:
            return None
        near_limit = ctx.depths.may_be_full(connection, plan.pool, ctx.settings.max_queued_per_pool)
        values = _values(ctx, actor, body, plan, outcome)
        if idempotency:
            values |= remembered.begin_values(actor, idempotency, _ids(outcome))
        made = first_row(connection, (_INSERT_ONCE if idempotency else _INSERT_AT_ONCE)[near_limit], values)
    return plan if made is not None else None


def _accept(
    ctx: Context, connection: Connection, actor: Actor, body: Mapping[str, Any], outcome: CreateOutcome
) -> Plan:
    """Insert it by what is so now: a pool as remembered saves a question, but may have changed since."""
    for _ in range(2):
        # twice, for it may even change between the question and the insert
        ctx.pools.clear()
        plan = resolve(ctx, connection, actor, body)
        if insert(ctx, connection, actor, body, plan, outcome):
            return plan
    raise queue_full(ctx, plan.pool)


def insert(
    ctx: Context,
    connection: Connection,
    actor: Actor,
    body: Mapping[str, Any],
    plan: Plan,
    outcome: CreateOutcome,
    *,
    labels: Mapping[str, str] | None = None,
    cause: str = CAUSE,
) -> bool:
    """Write replica, task and event of a create that was resolved to ``plan``, with ``labels`` beside the body's.

    False when the pool changed since or its queue is full. Ring the pool's creates after the commit.
    """
    near_limit = ctx.depths.may_be_full(connection, plan.pool, ctx.settings.max_queued_per_pool)
    values = _values(ctx, actor, body, plan, outcome, labels or {}, cause)
    return connection.execute(_INSERT[near_limit], values).first() is not None


def queue_full(ctx: Context, pool: str) -> QueueFull:
    """What to tell of a pool whose queue takes no more."""
    return QueueFull(
        f"Pool {pool!r} has {ctx.settings.max_queued_per_pool} creates queued. Wait, or stop some.", retry_after_s=10
    )


def new_ids() -> CreateOutcome:
    """Ids for a replica and the task of its create, made before anything is written."""
    made = secrets.token_hex(14)
    return CreateOutcome(made[:12], made[12:])


def plan_create(ctx: Context, actor: Actor, body: Mapping[str, Any]) -> dict[str, Any]:
    """What the create would run, with values masked. Changes nothing."""
    ctx.pools.clear()
    with ctx.database.read() as connection:
        plan = resolve(ctx, connection, actor, body)
        free = leases.free_count(connection, "slot", plan.pool)
        waiting = connection.execute(
            text(
                "SELECT count(*) FROM tasks WHERE pool = :pool AND state = 'queued' AND kind IN ('create', 'restart')"
            ),
            {"pool": plan.pool},
        ).scalar_one()
        backend = pools.backend(connection, plan.backend)
    first, last = ctx.settings.ports
    # what chooses its host itself finds a port there
    later = backend is not None and not backend.host_bound and backend.serves_http
    environment = planned_environment(plan, body)
    command = command_for(
        ctx,
        plan.engine,
        plan.model_name,
        resolved(plan),
        host=HOST_LATER if later else LOOPBACK,
        port=PORT_LATER if later else first,
        gpus=plan.gpus,
        environment=environment,
    )
    nodes = (body.get("resources") or {}).get("nodes") or 1
    script = script_of(plan.backend, ctx.namespace, command.argv, plan.gpus, nodes, plan.backend_options)
    return {
        "dry_run": True,
        "engine": plan.engine.name,
        "argv": list(command.argv),
        "environment": _shown_environment(command, environment, plan),
        "files": sorted(command.files),
        "placement": {
            "pool": plan.pool,
            "backend": plan.backend,
            "gpus": plan.gpus,
            "port": "found where it runs" if later else f"one of {first}-{last}",
            "free_slots": free,
            "queued_before": waiting,
        },
        "config": mask(plan.config),
        "backend_options": mask(plan.backend_options),
        **({"script": script} if script is not None else {}),
        "warnings": plan.warnings,
    }


def _shown_environment(command: Command, environment: Mapping[str, str], plan: Plan) -> dict[str, str]:
    # the engine's own values may be shown, but for its secrets; the user's only where the engine says so
    hidden = {name for name in command.env if name in command.secret_env or name in environment}
    return mask_environment(command.env, {*plan.engine.public_env, *(set(command.env) - hidden)} - command.secret_env)


def priority_of(body: Mapping[str, Any]) -> int:
    """``job.job_priority`` as the number that claims order by."""
    return PRIORITIES[(body.get("job") or {}).get("job_priority") or DEFAULT_PRIORITY]


def _values(
    ctx: Context,
    actor: Actor,
    body: Mapping[str, Any],
    plan: Plan,
    outcome: CreateOutcome,
    more_labels: Mapping[str, str] = MappingProxyType({}),
    cause: str = CAUSE,
) -> dict[str, Any]:
    environment = {name: str(value) for name, value in (body.get("environment") or {}).items()}
    spec = {name: body[name] for name in SPEC_FIELDS if body.get(name) is not None}
    # who may run it is checked again where it is done
    spec["granted_role"] = plan.granted_role
    spec["resolved"] = resolved(plan)
    spec["environment_names"] = sorted(environment)
    placement = body.get("placement") or {}
    labels = {name: placement[name] for name in _PLACEMENT_LABELS if placement.get(name)}
    labels |= body.get("labels") or {}
    labels |= more_labels
    return {
        "id": outcome.replica_id,
        "task_id": outcome.task_id,
        "owner": actor.key_id,
        "actor": actor.name,
        "cause": cause,
        "request_id": actor.request_id,
        "pool": plan.pool,
        "backend": plan.backend,
        "engine": plan.engine.name,
        "mode": str(plan.mode),
        "model_name": plan.model_name,
        "spec": json.dumps(spec),
        "environment": ctx.seal(environment) if environment else None,
        "labels": json.dumps(labels),
        "priority": priority_of(body),
        "queue_timeout_s": (body.get("timeouts") or {}).get("queue_timeout_s"),
        "max_queued": ctx.settings.max_queued_per_pool,
        "pool_version": plan.pool_version,
        # set by the executor of services alone, the HTTP schema knows no such field: the id of the service whose
        # waiting members get their capacity together or not at all (``gangs``)
        "arguments": json.dumps({"gang": body["gang"]} if body.get("gang") else {}),
    }
