"""Services: never more replicas than may be, none replaced that lives, none stopped without a cause, and what is said
of them is so.

Whoever changes a service holds its row, so the ids of its events and of the creations of its replicas are in the order
in which things happened to it. The end of a replica is written by others; what a service has seen of it has a smaller
id than what it did about it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.faults.harness.checker.evidence import Evidence
from tests.faults.harness.facts import Finding

ENDS = frozenset({"stopping", "stopped", "failed"})
OVER = frozenset({"stopped", "failed"})
#: Events that say how many there should be, and of which revision.
COUNTED = frozenset({"service_created", "service_scaled"})
REVISED = frozenset({"service_created", "service_updated", "service_rolled_back"})


@dataclass(frozen=True)
class Member:
    """A replica of a service, and what happened to it, by the ids of events."""

    row: Any
    steps: list[Any]

    @property
    def replica(self) -> str:
        return str(self.row.replica_id)

    @property
    def born(self) -> int:
        return int(self.steps[0].id) if self.steps else 0

    def lived_at(self, event: int) -> bool:
        """Made before that event, and not seen to end before it."""
        before = [step for step in self.steps if step.id < event]
        return bool(before) and before[-1].to_state not in ENDS

    def ready_before(self, event: int) -> bool:
        return any(step.to_state == "ready" and step.id < event for step in self.steps)

    def over_before(self, event: int) -> bool:
        before = [step for step in self.steps if step.id < event]
        return bool(before) and before[-1].to_state in OVER


@dataclass(frozen=True)
class Service:
    """One service with its history."""

    row: Any
    events: list[Any]
    members: dict[str, Member]
    found: Evidence

    def count_at(self, event: int) -> int:
        said = [one.data["count"] for one in self.events if one.kind in COUNTED and one.id < event]
        return int(said[-1]) if said else 0

    def revision_at(self, event: int) -> int:
        said = [one.data["revision"] for one in self.events if one.kind in REVISED and one.id < event]
        return int(said[-1]) if said else 1

    @property
    def surge(self) -> int:
        """The most that any of its revisions allows beyond the count."""
        limits = [
            row.spec["update"] for (service, _), row in self.found.rows.revisions.items() if service == self.row.id
        ]
        return max(max(one["max_surge"], 0 if one["max_unavailable"] > 0 else 1) for one in limits)

    @property
    def waits(self) -> bool:
        return any(one in self.found.rows.waiting for one in self.members)

    def cancelled_before(self, event: int) -> bool:
        return any(one.kind == "service_cancelled" and one.id < event for one in self.events)

    def places_ready(self, event: int, revision: int | None = None) -> set[int]:
        """Ordinals in which somebody (of that revision) had become ready."""
        ready = [one for one in self.members.values() if one.ready_before(event)]
        return {one.row.ordinal for one in ready if revision is None or one.row.revision == revision}

    def told(self, **more: Any) -> dict[str, Any]:
        return {"service": self.row.id, **more}


def check_services(found: Evidence) -> Iterator[Finding]:
    yield from _judge_labels(found)
    for service in _services(found):
        yield from _judge_limits(service)
        yield from _judge_replaced(service)
        yield from _judge_stops(service)
        yield from _judge_good(service)
        yield from _judge_tasks(service)
        yield from _judge_gang(service)
        if found.run.converged:
            yield from _judge_rest(service)


def _services(found: Evidence) -> Iterator[Service]:
    told: dict[str, list[Any]] = defaultdict(list)
    for event in found.rows.events:
        if event.kind.startswith("service_") and event.data:
            told[event.data["service_id"]].append(event)
    steps: dict[str, list[Any]] = defaultdict(list)
    for event in found.rows.events:
        if event.kind == "transition":
            steps[event.replica_id].append(event)
    for row in found.rows.services.values():
        members = {
            replica: Member(member, steps[replica])
            for replica, member in found.rows.members.items()
            if member.service_id == row.id
        }
        yield Service(row, told[row.id], members, found)


def _judge_labels(found: Evidence) -> Iterator[Finding]:
    for replica in found.rows.replicas.values():
        service = (replica.labels or {}).get("service_id")
        member = found.rows.members.get(replica.id)
        if service in found.rows.services and (member is None or member.service_id != service):
            yield Finding("services", "a replica of a service has no place in it", {"replica": replica.id})
    for replica_id, member in found.rows.members.items():
        row = found.rows.replicas.get(replica_id)
        if row is not None and row.labels.get("service_id") != member.service_id:
            yield Finding(
                "services", "a place of a service is held by a replica that is not its", {"replica": replica_id}
            )


def _judge_limits(service: Service) -> Iterator[Finding]:
    for member in service.members.values():
        alive = sum(one.lived_at(member.born) for one in service.members.values())
        limit = service.count_at(member.born) + service.surge
        if alive + 1 > limit:
            told = service.told(replica=member.replica, alive=alive + 1, limit=limit)
            yield Finding("services", "a service had more replicas than its count and surge allow", told)


def _judge_replaced(service: Service) -> Iterator[Finding]:
    for member in service.members.values():
        old = service.members.get(member.row.replaces or "")
        if old is None or old.row.revision != member.row.revision:
            continue
        if old.lived_at(member.born):
            told = service.told(replica=member.replica, replaces=old.replica, state=_state_at(old, member.born))
            yield Finding("services", "a replica was replaced that had not ended", told)
    for replica, times in _replacements(service).items():
        if len(times) > 1:
            yield Finding("services", "a replica was replaced twice", service.told(replica=replica, by=times))


def _replacements(service: Service) -> dict[str, list[str]]:
    """Who took the place of whom in the same revision."""
    by: dict[str, list[str]] = defaultdict(list)
    for member in service.members.values():
        old = service.members.get(member.row.replaces or "")
        if old is not None and old.row.revision == member.row.revision:
            by[old.replica].append(member.replica)
    return by


def _judge_stops(service: Service) -> Iterator[Finding]:
    for member in service.members.values():
        for step in member.steps:
            if step.to_state == "stopping" and step.from_state == "ready" and not _had_cause(service, member, step):
                told = service.told(replica=member.replica, event=step.id, cause=step.cause, actor=step.actor)
                yield Finding("services", "a ready replica was stopped without a cause", told)


def _had_cause(service: Service, member: Member, step: Any) -> bool:
    asked = any(member.replica in request.path and not request.refused for request in service.found.all_requests)
    if asked or service.cancelled_before(step.id) or service.revision_at(step.id) != member.row.revision:
        return True
    counts = [one.data["count"] for one in service.events if one.kind in COUNTED and one.id < step.id]
    if any(later < before for before, later in zip(counts, counts[1:], strict=False)):
        return True
    beside = [one for one in service.members.values() if one.row.ordinal == member.row.ordinal and one is not member]
    return any(one.ready_before(step.id) and one.lived_at(step.id) for one in beside)


def _judge_good(service: Service) -> Iterator[Finding]:
    said = [event for event in service.events if event.kind == "service_good"]
    for event in said:
        revision, count = event.data["revision"], service.count_at(event.id)
        ready = service.places_ready(event.id, revision)
        if len(ready) < count:
            told = service.told(revision=revision, ready=sorted(ready), count=count, event=event.id)
            yield Finding("services", "a revision was called good before all of it were ready", told)
    good = said[-1].data["revision"] if said else None
    if service.row.good_revision != good:
        told = service.told(row=service.row.good_revision, told=good)
        yield Finding("services", "a service's good revision is not the last that was told", told)


def _judge_tasks(service: Service) -> Iterator[Finding]:
    """Who is told that it is done finds it so."""
    ends = {event.task_id: event for event in service.found.rows.events if event.kind == "task_succeeded"}
    for task in service.found.rows.tasks.values():
        if task.replica_id is not None or task.arguments.get("service_id") != service.row.id:
            continue
        told = service.told(task=task.id, kind=task.kind, state=task.state)
        if task.state == "failed" and not task.reason:
            yield Finding("services", "a task of a service failed without a reason", told)
        end = ends.get(task.id)
        if end is None:
            continue
        if task.kind == "service_stop":
            left = [
                one.replica for one in service.members.values() if one.born < end.id and not one.over_before(end.id)
            ]
            if left:
                yield Finding(
                    "services", "a stop of a service succeeded and something was left", {**told, "left": left}
                )
            continue
        count = service.count_at(end.id)
        ready = service.places_ready(end.id, service.revision_at(end.id))
        if len(ready) < count:
            told |= {"ready": sorted(ready), "count": count}
            yield Finding("services", "a task of a service succeeded before all were ready", told)


def _judge_gang(service: Service) -> Iterator[Finding]:
    """Who waits together gets the capacity together: in one transaction, or none of them."""
    creates = {task.replica_id: task for task in service.found.rows.tasks.values() if task.kind == "create"}
    good = min((event.id for event in service.events if event.kind == "service_good"), default=2**63)
    gang = [one for one in service.members.values() if (creates[one.replica].arguments or {}).get("gang")]
    claims = {one.replica: _first(one, "scheduling") for one in gang}
    for one in gang:
        mine = claims[one.replica]
        if mine is None or mine.id > good:
            continue
        for other in gang:
            if other.row.revision != one.row.revision or not _waited_at(other, mine):
                continue
            told = service.told(replica=one.replica, left=other.replica, event=mine.id)
            yield Finding("services", "a part of a gang got its capacity", told)


def _waited_at(member: Member, claim: Any) -> bool:
    """It was there and waiting when that claim was made, and not taken with it."""
    before = [step for step in member.steps if step.id < claim.id]
    if not before or before[-1].to_state != "pending" or before[-1].attempt != 1:
        return False
    after = next((step for step in member.steps if step.id > claim.id), None)
    # an end that was written in between may have been committed before
    return after is None or (after.xid != claim.xid and after.to_state == "scheduling")


def _judge_rest(service: Service) -> Iterator[Finding]:
    row, members = service.row, service.members.values()
    rows = service.found.rows.replicas
    if row.desired_state == "cancelled":
        left = [one.replica for one in members if (it := rows.get(one.replica)) is not None and it.released_at is None]
        if left or row.ended_at is None:
            told = service.told(left=left, ended_at=str(row.ended_at))
            yield Finding("services", "a cancelled service has not ended", told)
        ended = sum(event.kind == "service_ended" for event in service.events)
        if ended != 1:
            yield Finding("services", "the end of a service was not told once", service.told(times=ended))
        return
    if row.id in service.found.rows.hints:
        yield Finding("services", "nobody looked at a service that was hinted at", service.told())
    alive = [one for one in members if (it := rows.get(one.replica)) and it.state not in ENDS]
    alive = [one for one in alive if rows[one.replica].desired_state == "running"]
    waits = service.waits or row.paused or "refused" in row.rollout
    missing = row.count - len({one.row.ordinal for one in alive})
    if missing > len(row.rollout.get("given_up") or ()) and not waits:
        yield Finding("services", "a service has fewer replicas than it should", service.told(missing=missing))
    if waits or row.rollout.get("given_up"):
        return
    if len(alive) > row.count:
        told = service.told(count=row.count, alive=[one.replica for one in alive])
        yield Finding("services", "a service has more replicas than it should when all is at rest", told)
    others = [one.replica for one in alive if one.row.revision != row.revision]
    if others:
        told = service.told(revision=row.revision, others=others)
        yield Finding("services", "a replica is of another revision than is wanted when all is at rest", told)


def _first(member: Member, state: str) -> Any | None:
    return next((step for step in member.steps if step.to_state == state), None)


def _state_at(member: Member, event: int) -> str:
    before = [step.to_state for step in member.steps if step.id < event]
    return before[-1] if before else "unborn"
