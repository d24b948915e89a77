"""``/api/v1/tasks``: work that was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flask import Response, request

from app.api import answers, idempotency, paging, sse, waiting
from app.api.auth import actor, context
from app.api.blueprint import LAST_EVENT_ID, Blueprint
from app.api.schemas.events import EventPage
from app.api.schemas.replicas import EmptyBody
from app.api.schemas.tasks import Task, TaskPage, TaskQuery, TaskWaitQuery
from app.api.shown import Lens, lens, shown
from app.api.v1.events import STREAM, as_messages, last_event_id
from app.domain.tasks import ENDED
from app.usecases import events, tasks
from app.usecases.context import Context

blueprint = Blueprint("tasks", "Work that was asked for: what a worker carries out, once.")

#: A stream of an ended task stays open so long for events that settle late.
LINGER_S = 1.0
#: Kinds of the event that ends a task.
ENDS = frozenset(f"task_{state}" for state in ENDED)


@blueprint.operation("/tasks", "GET", "read", conditional=True)
@blueprint.arguments(TaskQuery(), location="query")
@blueprint.response(200, TaskPage)
def list_tasks(query: dict[str, Any]) -> Response:
    """List tasks, newest first"""
    found, total, more = tasks.list_tasks(context(), *paging.split(query))
    return answers.read({"tasks": found, "total": total, "next_cursor": more})


@blueprint.operation("/tasks/<task_id>", "GET", "read", conditional=True, waits=True)
@blueprint.arguments(TaskWaitQuery(), location="query")
@blueprint.response(200, Task)
def get_task(query: dict[str, Any], task_id: str) -> Response:
    """Show a task, or wait for its end"""
    wish_s = waiting.preference().bounded(context().settings.max_wait_s, query.get("wait") or 0.0)
    if wish_s > 0:
        tasks.get(context(), task_id)
        return answers.read(waiting.wait_for_task(context(), task_id, wish_s))
    return answers.read(tasks.get(context(), task_id))


@blueprint.operation("/tasks/<task_id>/cancel", "POST", "operate")
@blueprint.arguments(EmptyBody(), required=False)
@blueprint.response(200, Task)
def cancel_task(body: dict[str, Any], task_id: str) -> Response:
    """Give a task up; what it began is taken back"""
    tasks.request_cancel(context(), actor(), task_id, idempotency.from_request())
    return answers.answer(tasks.get(context(), task_id))


@blueprint.operation("/tasks/<task_id>/events", "GET", "read", parameters=(LAST_EVENT_ID,))
@blueprint.response(200, EventPage)
@blueprint.alt_response(200, schema=STREAM, content_type=sse.MIMETYPE, success=True)
def task_events(task_id: str) -> Response:
    """Follow a task to its end

    A stream unless `Accept: application/json` is sent; it begins with what happened so far.
    """
    tasks.get(context(), task_id)
    if request.accept_mimetypes.best_match((sse.MIMETYPE, "application/json")) == "application/json":
        found, more = events.list_events(
            context(), {"task_id": task_id}, paging.LARGEST_LIMIT, last_event_id(), oldest_first=True
        )
        return answers.answer(shown({"events": found, "next_cursor": more}))
    return sse.stream(_to_the_end(context(), task_id, last_event_id() or "0-0", lens()))


def _to_the_end(ctx: Context, task_id: str, behind: str, through: Lens) -> Iterator[sse.Message | None]:
    following = events.follow(ctx, {"task_id": task_id}, behind, quiet_s=LINGER_S)
    # at the first pause, because its end may be told no more; later ones say nothing new, and streams are many
    may_have_ended = True
    for message in as_messages(following, through):
        yield message
        if message is not None:
            may_have_ended = may_have_ended or message.event in ENDS
        elif may_have_ended:
            may_have_ended = False
            task = tasks.get(ctx, task_id)
            if task["finished_at"] is not None:
                yield sse.Message("end", answers.dumps(task if through is None else through(task)))
                return
