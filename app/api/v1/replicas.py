"""``/api/v1/replicas``: bring inference servers into service, look after them, put them away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

from flask import Response, g

from app.api import answers, idempotency, paging, sse, waiting
from app.api.auth import actor, context
from app.api.blueprint import LAST_EVENT_ID, Blueprint
from app.api.schemas import replicas as schemas
from app.api.schemas.events import EventPage, ReplicaEventQuery
from app.api.shown import lens, shown
from app.api.v1.events import STREAM, as_messages, last_event_id
from app.domain.tasks import TaskState
from app.errors import LaunchFailed
from app.log import request_id
from app.usecases import events, explain, logs, recipe_replicas, replicas
from app.usecases.context import Actor
from app.usecases.creates import CreateOutcome
from app.usecases.outcomes import TaskOutcome

blueprint = Blueprint("replicas", "Inference servers: bring them into service, look after them, put them away.")

DEFAULT_READINESS_S = 1800.0
ID = "<replica_id:replica_id>"
#: ``Last-Event-ID`` of a log: a place in the file, or in what is copied of it from elsewhere.
LOG_PLACE = LAST_EVENT_ID | {"schema": {"type": "string", "pattern": "^[A-Za-z0-9_.-]+$"}}


@blueprint.operation("/replicas", "POST", "operate", errors=(429, 502), waits=True)
@blueprint.arguments(schemas.ReplicaCreate())
@blueprint.response(201, schemas.ReplicaAccepted, description="Ready.")
@blueprint.alt_response(202, schema=schemas.ReplicaAccepted, description="Accepted; not ready yet.", success=True)
@blueprint.alt_response(200, schema=schemas.Plan, description="dry_run: what would be run.", success=True)
def create_replica(body: dict[str, Any]) -> Response:
    """Bring an inference server into service

    Answers when it is ready unless `wait_for_ready` is false or the wait of `Prefer` is over: then 202 with a task.
    502 carries the reason of a launch that failed.
    """
    who = _named(actor(), body.pop("request_id", None))
    made_by = recipe_replicas if body.get("recipe") is not None else replicas
    if body.pop("dry_run"):
        return answers.answer(made_by.plan_create(context(), who, body))
    outcome = made_by.request_create(context(), who, body, idempotency.from_request())
    wait_s = _wait_s(body)
    if wait_s <= 0:
        return _accepted(outcome, fresh=not outcome.replayed)
    task = waiting.wait_for_task(context(), outcome.task_id, wait_s)
    if task["finished_at"] is None:
        return _accepted(outcome, fresh=False)
    shown = replicas.get(context(), outcome.replica_id)
    _raise_unless_succeeded(task, shown)
    shown |= {
        "message": f"Replica {outcome.replica_id} created successfully",
        "task_id": outcome.task_id,
        "task_url": answers.task_path(outcome.task_id),
        "warnings": list(outcome.warnings),
    }
    return answers.created(shown, answers.replica_path(outcome.replica_id), replayed=outcome.replayed)


@blueprint.operation("/replicas", "GET", "read", conditional=True)
@blueprint.arguments(schemas.ReplicaQuery(), location="query")
@blueprint.response(200, schemas.ReplicaPage)
def list_replicas(query: dict[str, Any]) -> Response:
    """List replicas, newest first"""
    found, total, more = replicas.list_replicas(context(), *paging.split(query))
    return answers.read({"total": total, "replicas": found, "next_cursor": more})


@blueprint.operation(f"/replicas/{ID}", "GET", "read", conditional=True)
@blueprint.response(200, schemas.Replica)
def get_replica(replica_id: str) -> Response:
    """Show a replica; secret values are masked"""
    return answers.read(replicas.get(context(), replica_id))


@blueprint.operation(f"/replicas/{ID}", "DELETE", "operate")
@blueprint.response(204)
def delete_replica(replica_id: str) -> Response:
    """Forget a replica that has ended and is gone"""
    return answers.gone(replayed=bool(replicas.delete(context(), actor(), replica_id, idempotency.from_request())))


@blueprint.operation(f"/replicas/{ID}/stop", "POST", "operate", waits=True)
@blueprint.arguments(schemas.StopBody(), required=False)
@blueprint.response(202, schemas.TaskAccepted)
@blueprint.alt_response(200, schema=schemas.ReplicaState, description="It has stopped.", success=True)
def stop_replica(body: dict[str, Any], replica_id: str) -> Response:
    """Stop a replica, from every state; overtakes the queue"""
    if body["abandon"]:
        return _asked(replicas.request_abandon(context(), actor(), replica_id, idempotency.from_request()))
    outcome = replicas.request_stop(
        context(),
        actor(),
        replica_id,
        body["force"],
        body.get("grace_s"),
        idempotency.from_request(),
        drain_s=body.get("drain_s"),
    )
    return _asked(outcome, then_raise=False)


@blueprint.operation(f"/replicas/{ID}/restart", "POST", "operate", errors=(429, 502), waits=True)
@blueprint.arguments(schemas.EmptyBody(), required=False)
@blueprint.response(202, schemas.TaskAccepted)
@blueprint.alt_response(200, schema=schemas.ReplicaState, description="It is ready again.", success=True)
def restart_replica(body: dict[str, Any], replica_id: str) -> Response:
    """Launch a replica again: a new attempt, the same spec"""
    return _asked(replicas.request_restart(context(), actor(), replica_id, idempotency.from_request()))


@blueprint.operation(f"/replicas/{ID}/diagnose", "POST", "operate", errors=(502,), waits=True)
@blueprint.arguments(schemas.EmptyBody(), required=False)
@blueprint.response(202, schemas.TaskAccepted)
@blueprint.alt_response(200, schema=schemas.ReplicaState, description="The diagnostics have run.", success=True)
def diagnose_replica(body: dict[str, Any], replica_id: str) -> Response:
    """Run the diagnostics again"""
    outcome = replicas.request_diagnose(context(), actor(), replica_id, idempotency.from_request())
    return _asked(outcome, then_raise=False)


@blueprint.operation(f"/replicas/{ID}/health", "POST", "operate", waits=True)
@blueprint.arguments(schemas.HealthBody(), required=False)
@blueprint.response(202, schemas.TaskAccepted)
@blueprint.alt_response(200, schema=schemas.HealthAnswer, description="Prefer: wait; what it found.", success=True)
def check_replica(body: dict[str, Any], replica_id: str) -> Response:
    """Probe a replica for real, now"""
    outcome = replicas.request_health(
        context(), actor(), replica_id, body["timeout_s"], body["poll_interval_s"], idempotency.from_request()
    )
    task = waiting.wait_as_preferred(context(), outcome.task_id)
    if task is None or task["finished_at"] is None:
        return _task_accepted(outcome)
    found = task["result"] or {}
    body = {
        "replica_id": replica_id,
        "healthy": bool(found.get("healthy")),
        "base_url": found.get("base_url"),
        "message": found.get("message") or task["message"],
        "checks": found.get("checks") or [],
    }
    return answers.mark_replayed(answers.answer(body), outcome.replayed)


@blueprint.operation(f"/replicas/{ID}/logs", "GET", "read", parameters=(LOG_PLACE,))
@blueprint.arguments(schemas.LogQuery(), location="query")
@blueprint.response(200, {"type": "string"}, content_type="text/plain")
@blueprint.alt_response(
    200,
    schema={"type": "string", "description": "follow: one line per `data`."},
    content_type=sse.MIMETYPE,
    success=True,
)
def replica_logs(query: dict[str, Any], replica_id: str) -> Response:
    """Read the log of an attempt, also after its end"""
    attempt, tail = query.get("attempt"), query.get("tail")
    if query["follow"]:
        # asked for once more inside the stream, where an error can no longer be an answer
        logs.check(context(), replica_id, attempt)
        lines = logs.follow(context(), replica_id, attempt, tail, last_event_id())
        return sse.stream(_log_messages(lines))
    found = logs.read(context(), replica_id, attempt, tail)
    # the first line is asked for here, so that an error is an answer and not a broken stream
    first = next(found, "")
    return Response(chain((first,), found), mimetype="text/plain")


@blueprint.operation(f"/replicas/{ID}/events", "GET", "read", parameters=(LAST_EVENT_ID,))
@blueprint.arguments(ReplicaEventQuery(), location="query")
@blueprint.response(200, EventPage)
@blueprint.alt_response(200, schema=STREAM, content_type=sse.MIMETYPE, success=True)
def replica_events(query: dict[str, Any], replica_id: str) -> Response:
    """Show every transition with cause and actor, oldest first, or follow them (SSE)"""
    if sse.wanted():
        replicas.get(context(), replica_id)
        behind = last_event_id() or query.get("cursor") or "0-0"
        return sse.stream(as_messages(events.follow(context(), {"replica_id": replica_id}, behind), lens()))
    found, more = events.of_replica(context(), replica_id, query["limit"], query.get("cursor"))
    if not found:
        # nothing was kept of it, or there never was such a replica
        replicas.get(context(), replica_id)
    return answers.answer(shown({"events": found, "next_cursor": more}))


@blueprint.operation(f"/replicas/{ID}/explain", "GET", "read")
@blueprint.response(200, schemas.Explanation)
def explain_replica(replica_id: str) -> Response:
    """Say why it is where it is, and what to type"""
    return answers.answer(shown(explain.explain(context(), replica_id)))


def _log_messages(lines: Iterator[logs.Line | None]) -> Iterator[sse.Message | None]:
    for line in lines:
        yield None if line is None else sse.Message("log", line.text.rstrip("\n"), line.place)
    yield sse.Message("end", "")


def _named(who: Actor, wanted: str | None) -> Actor:
    """The body's ``request_id`` counts where the header gave none."""
    if wanted is None or g.request_id_given:
        return who
    g.request_id = wanted
    request_id.set(wanted)
    return replace(who, request_id=wanted)


def _wait_s(body: dict[str, Any]) -> float:
    if not body["wait_for_ready"]:
        return 0.0
    readiness_s = (body.get("timeouts") or {}).get("readiness_timeout_s", DEFAULT_READINESS_S)
    return waiting.preference().bounded(context().settings.max_wait_s, readiness_s)


def _accepted(outcome: CreateOutcome, *, fresh: bool) -> Response:
    """202. A fresh replica is known without asking the database again."""
    body: dict[str, Any] = {
        "replica_id": outcome.replica_id,
        "status": "pending",
        "message": "accepted; waits in its pool's queue",
        "base_url": None,
    }
    if not fresh:
        body |= replicas.get(context(), outcome.replica_id)
    body["warnings"] = list(outcome.warnings)
    location = answers.replica_path(outcome.replica_id)
    return answers.accepted(body, location, outcome.task_id, replayed=outcome.replayed)


def _asked(outcome: TaskOutcome, *, then_raise: bool = True) -> Response:
    """202 with the task, or 200 with the state when nothing is left to do or the wait saw the end."""
    task = None if outcome.already else waiting.wait_as_preferred(context(), outcome.task_id)
    if not outcome.already and (task is None or task["finished_at"] is None):
        return _task_accepted(outcome)
    shown = replicas.get(context(), outcome.replica_id)
    if task is not None and then_raise:
        _raise_unless_succeeded(task, shown)
    return answers.mark_replayed(answers.answer(shown), outcome.replayed)


def _task_accepted(outcome: TaskOutcome) -> Response:
    shown = replicas.get(context(), outcome.replica_id)
    body = {"replica_id": outcome.replica_id, "status": shown["status"], "message": shown["message"]}
    return answers.accepted(
        body, answers.replica_path(outcome.replica_id), outcome.task_id or "", replayed=outcome.replayed
    )


def _raise_unless_succeeded(task: dict[str, Any], shown: dict[str, Any]) -> None:
    if task["state"] == TaskState.SUCCEEDED:
        return
    reason = task["reason"] or shown["reason"] or "cancelled"
    replica_id = task["replica_id"]
    raise LaunchFailed(
        f"Replica {replica_id} is not ready: {reason}: {task['message'] or shown['message']}."
        f" See `hostler replica logs {replica_id}`.",
        extra={
            "reason": reason,
            "replica_id": replica_id,
            "replica_status": shown["status"],
            "task_id": task["id"],
            "log_tail": shown.get("log_tail") or "",
        },
    )
