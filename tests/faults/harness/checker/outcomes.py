"""Every accepted request has exactly one outcome; a refused one has none; a lost one has at most one."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from tests.faults.harness.checker.evidence import Evidence
from tests.faults.harness.checker.requests import Request
from tests.faults.harness.facts import Finding

#: What is said of a launch that nobody could carry out.
_GIVEN_UP = ("every try ended unexpectedly", "workers died over it")
_ENDS = {"task_succeeded": "succeeded", "task_failed": "failed", "task_cancelled": "cancelled"}


def check_outcomes(found: Evidence) -> Iterator[Finding]:
    ends: dict[str, list[str]] = defaultdict(list)
    for event in found.rows.events:
        if event.kind in _ENDS and event.task_id:
            ends[event.task_id].append(_ENDS[event.kind])
    asked: dict[str, list[Any]] = defaultdict(list)
    for task in found.rows.tasks.values():
        asked[task.request_id].append(task)
    for request in found.requests:
        if request.is_change:
            yield from _judge_request(found, request, asked[request.request_id], ends)
    yield from _judge_tasks(found, ends)
    yield from _judge_launches(found)
    yield from _judge_deletes(found)
    yield from _judge_told_ends(found)


def _judge_request(found: Evidence, request: Request, made: list[Any], ends: dict[str, list[str]]) -> Iterator[Finding]:
    told = {"request": f"{request.method} {request.path}", "id": request.request_id, "status": request.status}
    if found.is_of_service(request):
        # what its replicas do is the service's, and judged as that
        made = [task for task in made if task.replica_id is None]
    tasks = sorted(task.id for task in made)
    if len(made) > 1:
        yield Finding("outcomes", "one request made more than one task", {**told, "tasks": tasks})
    if request.refused and made:
        yield Finding("outcomes", "a refused request was carried out", {**told, "tasks": tasks})
    if not request.accepted or request.task_id is None:
        return
    task = found.rows.tasks.get(request.task_id)
    if task is None:
        # the record may have been deleted since; its events are kept
        if request.replica_id not in found.deleted and len(ends[request.task_id]) != 1:
            yield Finding("outcomes", "an accepted request has no task", {**told, "task": request.task_id})
        return
    if request.replica_id is not None and task.replica_id != request.replica_id:
        text = "the task that was answered is about another replica"
        yield Finding("outcomes", text, {**told, "task": task.id, "said": request.replica_id, "is": task.replica_id})
    if request.is_create and request.status == 201 and task.state != "succeeded":
        yield Finding("outcomes", "201 was answered for a create that did not succeed", {**told, "task": task.id})
    if request.status == 502 and task.state == "succeeded":
        yield Finding("outcomes", "502 was answered for a task that succeeded", {**told, "task": task.id})


def _judge_tasks(found: Evidence, ends: dict[str, list[str]]) -> Iterator[Finding]:
    for task in found.rows.tasks.values():
        told = {"task": task.id, "kind": task.kind, "state": task.state, "replica": task.replica_id}
        if task.finished_at is not None and ends[task.id] != [task.state]:
            yield Finding("outcomes", "a task did not end exactly once", {**told, "ends": ends[task.id]})
        if task.finished_at is None and ends[task.id]:
            yield Finding("outcomes", "an open task has ended before", {**told, "ends": ends[task.id]})
        if task.request_id.startswith("f-") and task.request_id not in found.known:
            yield Finding("outcomes", "a task that nobody asked for", {**told, "request_id": task.request_id})
    creates = Counter(task.replica_id for task in found.rows.tasks.values() if task.kind == "create")
    for replica in found.rows.replicas:
        if creates[replica] != 1:
            text = "a replica does not have exactly one create"
            yield Finding("outcomes", text, {"replica": replica, "creates": creates[replica]})


def _judge_launches(found: Evidence) -> Iterator[Finding]:
    """A script holds too few faults for a launch to be given up because every worker died over it."""
    for event in found.rows.events:
        gave_up = event.reason == "backend_error" and any(words in event.message for words in _GIVEN_UP)
        if gave_up and event.kind == "transition" and event.id > found.run.after_event:
            told = {"replica": event.replica_id, "event": event.id, "message": event.message}
            yield Finding("outcomes", "a launch was given up for no reason of its own", told)


def _judge_deletes(found: Evidence) -> Iterator[Finding]:
    """What was answered 204 is gone, and its history says so once."""
    told = Counter(event.replica_id for event in found.rows.events if event.kind == "replica_deleted")
    for replica in {request.deletes() for request in found.requests if request.status == 204} - {None}:
        if replica in found.rows.replicas or told[replica] != 1:
            text = "a replica was answered as deleted and is not, or not once"
            yield Finding("outcomes", text, {"replica": replica, "deletions": told[replica]})


def _judge_told_ends(found: Evidence) -> Iterator[Finding]:
    """A task that was shown as ended has ended so: an end is never taken back."""
    for request in found.requests:
        shown = request.answer if isinstance(request.answer, dict) else {}
        task = found.rows.tasks.get(str(shown.get("id")))
        if task is not None and shown.get("state") in _ENDS.values() and task.state != shown["state"]:
            told = {"task": task.id, "id": request.request_id, "shown": shown["state"], "is": task.state}
            yield Finding("outcomes", "a task ended otherwise than it was shown", told)
