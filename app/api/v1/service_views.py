"""What is read of a service beside its record: logs, metrics, history, revisions; and all targets for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from flask import Response, current_app

from app.api import answers, joined_metrics, services_schema, sse
from app.api.auth import context
from app.api.blueprint import LAST_EVENT_ID
from app.api.schemas import services as schemas
from app.api.schemas.events import EventPage, ReplicaEventQuery
from app.api.shown import lens, shown
from app.api.v1.events import STREAM, as_messages, last_event_id
from app.api.v1.services import ID
from app.api.v1.services import blueprint as blueprint
from app.domain.endpoints import Endpoint
from app.usecases import events, service_logs, services

#: Label of a target -> what it is taken from.
TARGET_LABELS = {
    "service": "service_id",
    "service_name": "service",
    "recipe": "recipe",
    "revision": "revision",
    "replica": "replica_id",
    "ordinal": "ordinal",
    "model": "model_name",
    "engine": "engine",
    "pool": "pool",
    "node": "node",
}
#: ``Last-Event-ID`` of a service's logs: where each replica's log goes on.
LOG_PLACE = LAST_EVENT_ID | {"schema": {"type": "string", "pattern": "^[A-Za-z0-9_.:,-]+$"}}


@blueprint.operation("/services/targets", "GET", "read", conditional=True)
@blueprint.response(200, schemas.TargetGroup(many=True))
def service_targets() -> Response:
    """Every ready replica, as Prometheus's `http_sd_configs` reads it

    A replica of a service carries the labels that `.../metrics` of the service has too.
    """
    return answers.read([_target(one) for one in services.targets(context())])


@blueprint.operation("/schemas/service.json", "GET", "read", conditional=True)
@blueprint.response(200, {"type": "object"}, content_type="application/schema+json")
def service_schema() -> Response:
    """The JSON Schema of a file of services, as `hostler apply` takes it, for editors"""
    answer = answers.read(current_app.extensions[services_schema.EXTENSION])
    answer.mimetype = "application/schema+json"
    return answer


@blueprint.operation(f"/services/{ID}/logs", "GET", "read", parameters=(LOG_PLACE,))
@blueprint.arguments(schemas.ServiceLogQuery(), location="query")
@blueprint.response(200, {"type": "string"}, content_type="text/plain")
@blueprint.alt_response(
    200,
    schema={"type": "string", "description": "follow: one line per `data`."},
    content_type=sse.MIMETYPE,
    success=True,
)
def service_logs_of(query: dict[str, Any], service_id: str) -> Response:
    """Read what all replicas wrote, those that ended too; each line begins with its replica's id

    With `follow` also what is written from then on, by replicas that are made later too, until the service has ended.
    """
    found, replica, tail = services.find(context(), service_id), query.get("replica"), query.get("tail")
    if query["follow"]:
        # asked for once more inside the stream, where an error can no longer be an answer
        service_logs.check(context(), found, replica)
        return sse.stream(_messages(service_logs.follow(context(), found, replica, tail, last_event_id())))
    lines = (line.named for line in service_logs.read(context(), found, replica, tail))
    # the first line is asked for here, so that an error is an answer and not a broken stream
    first = next(lines, "")
    return Response(chain((first,), lines), mimetype="text/plain")


@blueprint.operation(f"/services/{ID}/metrics", "GET", "read", errors=(409, 502))
@blueprint.response(200, {"type": "string"}, content_type="text/plain")
def service_metrics(service_id: str) -> Response:
    """Read the metrics of all ready replicas, for Prometheus; the labels `service` and `replica` say whose they are"""
    found = services.find(context(), service_id)
    return joined_metrics.answer(context(), found, services.ready_members(context(), found))


@blueprint.operation(f"/services/{ID}/revisions", "GET", "read", conditional=True)
@blueprint.response(200, schemas.RevisionList)
def service_revisions(service_id: str) -> Response:
    """Show what a service was asked to run, newest first"""
    return answers.read({"revisions": services.revisions(context(), service_id)})


@blueprint.operation(f"/services/{ID}/events", "GET", "read", parameters=(LAST_EVENT_ID,))
@blueprint.arguments(ReplicaEventQuery(), location="query")
@blueprint.response(200, EventPage)
@blueprint.alt_response(200, schema=STREAM, content_type=sse.MIMETYPE, success=True)
def service_events(query: dict[str, Any], service_id: str) -> Response:
    """Show what was decided about a service, oldest first, or follow it (SSE)"""
    filters = {"service_id": services.find(context(), service_id)}
    if sse.wanted():
        return sse.stream(
            as_messages(events.follow(context(), filters, last_event_id() or query.get("cursor") or "0-0"), lens())
        )
    found, more = events.list_events(context(), filters, query["limit"], query.get("cursor"), oldest_first=True)
    return answers.answer(shown({"events": found, "next_cursor": more}))


def _target(replica: Mapping[str, Any]) -> dict[str, Any]:
    """Prometheus takes only text as a label, and no empty one says more than none."""
    labels = {name: replica.get(key) for name, key in TARGET_LABELS.items()}
    told = {name: str(value) for name, value in labels.items() if value not in (None, "")}
    return {"targets": [str(Endpoint(replica["host"], replica["port"]))], "labels": told}


def _messages(lines: Iterator[service_logs.Line | None]) -> Iterator[sse.Message | None]:
    for line in lines:
        yield None if line is None else sse.Message("log", line.named.rstrip("\n"), line.place)
    yield sse.Message("end", "")
