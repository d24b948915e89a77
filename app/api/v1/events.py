"""``/api/v1/events``: the history of everything, as pages or as a stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from flask import Response, request

from app.api import answers, paging, sse
from app.api.auth import context
from app.api.blueprint import LAST_EVENT_ID, Blueprint
from app.api.schemas.events import EventPage, EventQuery
from app.api.shown import Lens, lens
from app.usecases import events
from app.usecases.told import Told

blueprint = Blueprint("events", "The append-only history of everything, with causes and actors.")

#: How a streamed answer looks in the documentation.
STREAM = {"type": "string", "description": "Server-sent events: `id` is the cursor, `data` an Event."}


@blueprint.operation("/events", "GET", "read", conditional=True, parameters=(LAST_EVENT_ID,))
@blueprint.arguments(EventQuery(), location="query")
@blueprint.response(200, EventPage)
@blueprint.alt_response(200, schema=STREAM, content_type=sse.MIMETYPE, success=True)
def list_events(query: dict[str, Any]) -> Response:
    """Page through the history, or follow it

    With `Accept: text/event-stream` every event from now on, or behind `Last-Event-ID`, is sent as it settles.
    """
    filters, limit, cursor = paging.split(query)
    oldest_first = filters.pop("order") == "asc"
    if sse.wanted():
        return sse.stream(as_messages(events.follow(context(), filters, last_event_id() or cursor), lens()))
    found, more = events.list_events(context(), filters, limit, cursor, oldest_first=oldest_first)
    return answers.read({"events": found, "next_cursor": more})


def last_event_id() -> str | None:
    """The cursor that a coming-back client sends; browsers send it, others may use the query."""
    return request.headers.get("Last-Event-ID") or None


def as_messages(found: Iterable[Told | None], through: Lens) -> Iterator[sse.Message | None]:
    """Events as stream messages, as who asked may see them; None stays a keep-alive."""
    for event in found:
        if event is None:
            yield None
        elif through is not None:
            yield sse.Message(event["kind"], answers.dumps(through(event)), event["id"])
        else:
            if event.rendered is None:
                event.rendered = sse.Message(event["kind"], answers.dumps(event), event["id"])
            yield event.rendered
