"""The same Idempotency-Key never acts twice, also when its answers were lost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from tests.faults.harness.checker.evidence import Evidence
from tests.faults.harness.checker.requests import Request
from tests.faults.harness.facts import Finding


def check_keys(found: Evidence) -> Iterator[Finding]:
    groups: dict[tuple[str, str, str], list[Request]] = defaultdict(list)
    for request in found.requests:
        if request.key is not None and request.is_change:
            groups[request.key, request.method, request.path].append(request)
    tasks: dict[str, set[str]] = defaultdict(set)
    made: dict[str, set[str]] = defaultdict(set)
    for task in found.rows.tasks.values():
        # a service's request makes one task of the service, and those of its replicas follow from it
        if task.replica_id is None or not _of_service(found, task.request_id):
            tasks[task.request_id].add(task.id)
    for event in found.rows.events:
        if event.kind == "transition" and event.from_state is None and not _of_service(found, event.request_id):
            made[event.request_id].add(event.replica_id)
        elif event.kind == "service_created":
            made[event.request_id].add(event.data["service_id"])
    for (key, method, path), group in groups.items():
        names = [request.request_id for request in group]
        acted = set().union(*(tasks[name] for name in names))
        born = set().union(*(made[name] for name in names))
        told = {"key": key, "request": f"{method} {path}", "ids": names}
        if len(acted) > 1 or len(born) > 1:
            text = "a key acted more than once"
            yield Finding("keys", text, {**told, "tasks": sorted(acted), "made": sorted(born)})
        yield from _judge_answers(found, group, acted, told)


def _of_service(found: Evidence, request_id: str) -> bool:
    request = found.known.get(request_id)
    return request is not None and found.is_of_service(request)


def _judge_answers(
    found: Evidence, group: list[Request], acted: set[str], told: dict[str, object]
) -> Iterator[Finding]:
    answered = [request for request in group if request.accepted and request.task_id is not None]
    said = {request.task_id for request in answered}
    if len(said) > 1:
        yield Finding("keys", "a key was answered with different tasks", {**told, "said": sorted(map(str, said))})
    elif said and acted and acted != said:
        text = "a key was answered with another task than it made"
        yield Finding("keys", text, {**told, "said": sorted(map(str, said)), "tasks": sorted(acted)})
    first = answered[0] if answered else None
    if first is None or not first.is_create or first.replica_id in found.deleted:
        return
    if not acted:
        yield Finding("keys", "a key's create was accepted and made no task", {**told, "said": first.task_id})
    kept = [row for row in found.rows.keys if (row.key, row.method, row.path) == (first.key, "POST", first.path)]
    if [row.outcome.get("task_id") for row in kept] != [first.task_id]:
        text = "what a key did is not remembered as it was answered"
        yield Finding("keys", text, {**told, "said": first.task_id, "kept": [row.outcome for row in kept]})
