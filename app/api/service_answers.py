"""What requests that change a service are answered with, under whichever of its paths they came."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

from flask import Response

from app.api import answers, idempotency, waiting
from app.api.auth import actor, context
from app.domain.tasks import TaskState
from app.errors import NotFound, ServiceFailed
from app.usecases import replicas, services

#: Since when, and until when at least, DELETE stops a service.
DEPRECATED = datetime(2026, 11, 21, tzinfo=UTC)
SUNSET = datetime(2027, 12, 31, tzinfo=UTC)
RETIRED_HEADERS = {
    "Deprecation": {"description": "Since when another route is better (RFC 9745).", "schema": {"type": "string"}},
    "Sunset": {"description": "Until when it works at least (RFC 8594).", "schema": {"type": "string"}},
}


def path(service_id: str) -> str:
    return f"/api/v1/services/{service_id}"


def asked(outcome: services.ServiceOutcome, *, done: int = 200) -> Response:
    """202 with the task; ``done`` when nothing is left to do or the wait of Prefer saw the end.

    Raises ServiceFailed when it saw that it cannot get there.
    """
    task = None if outcome.already else waiting.wait_as_preferred(context(), outcome.task_id)
    shown = services.get(context(), outcome.service_id)
    if not outcome.replayed:
        # of this very request; a replay tells those of what it made
        shown["warnings"] = list(outcome.warnings)
    if not outcome.already and (task is None or task["finished_at"] is None):
        return answers.accepted(shown, path(outcome.service_id), outcome.task_id or "", replayed=outcome.replayed)
    if task is not None and task["state"] != TaskState.SUCCEEDED:
        raise _failed(task, shown)
    task_url = answers.task_path(outcome.task_id) if outcome.task_id else None
    content = shown | {"task_id": outcome.task_id, "task_url": task_url}
    made = answers.answer(content, done, {"Location": path(outcome.service_id)} if done == 201 else None)
    return answers.mark_replayed(made, outcome.replayed)


def shown(outcome: services.ServiceOutcome) -> Response:
    """The service as it is now."""
    return answers.mark_replayed(answers.answer(services.get(context(), outcome.service_id)), outcome.replayed)


def cancel(service_id: str, noun: str) -> Response:
    """Stop it. 200 at once, or after the wait of Prefer when the last replica is gone."""
    outcome = services.cancel(context(), actor(), service_id, idempotency.from_request())
    waiting.wait_as_preferred(context(), outcome.task_id)
    shown = services.get(context(), outcome.service_id)
    headers = {"Location": path(outcome.service_id)}
    if outcome.task_id:
        headers["Link"] = f'<{answers.task_path(outcome.task_id)}>; rel="monitor"'
    body = {
        "success": True,
        "message": f"{noun} {service_id} status updated to cancelled",
        "service_id": outcome.service_id,
        "group_id": outcome.service_id,
        # asked for again by its Idempotency-Key, it is told again: one for each place
        "replicas_updated": len(shown["replicas"]) if outcome.replayed else outcome.replicas,
        "task_id": outcome.task_id,
        "status": shown["status"],
        "ended_at": shown["ended_at"],
    }
    return answers.mark_replayed(answers.answer(body, headers=headers), outcome.replayed)


def retired(response: Response, instead: str) -> Response:
    """Say that another route does the same, and how long this one stays."""
    response.headers["Deprecation"] = f"@{int(DEPRECATED.timestamp())}"
    response.headers["Sunset"] = format_datetime(SUNSET, usegmt=True)
    response.headers.add("Link", f'<{instead}/status>; rel="successor-version"')
    return response


def _failed(task: Mapping[str, Any], service: Mapping[str, Any]) -> ServiceFailed:
    service_id = service["id"]
    reason = task["reason"] or service["reason"] or "cancelled"
    message = task["message"] or service["message"]
    return ServiceFailed(
        f"Service {service_id} is not what was asked for: {reason}: {message}."
        f" See `hostler service status {service_id}` and `hostler service logs {service_id}`.",
        extra={
            "reason": reason,
            "service_id": service_id,
            "service_status": service["status"],
            "task_id": task["id"],
            "replicas": service["replicas"],
            "log_tail": _last_words(service),
        },
    )


def _last_words(service: Mapping[str, Any]) -> str:
    """The end of the log of a replica that failed; empty when there is none to be had."""
    failed = [one["replica_id"] for one in service["replicas"] if one["reason"]]
    if not failed:
        return ""
    try:
        return str(replicas.get(context(), failed[-1])["log_tail"] or "")
    except NotFound:
        # its record was deleted meanwhile
        return ""
