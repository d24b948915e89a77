"""The words of the services' pages for what the lifecycle calls by its states."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from app.domain.lifecycle import Reason, State
from app.domain.services.desired import Desired
from app.domain.services.members import OVER, Observed
from app.domain.services.places import Place, arrange
from app.domain.services.replacing import fate_of


class Status(StrEnum):
    """How far a service, or one of its replicas, has come."""

    PENDING = "pending"
    CONFIGURING = "configuring"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Overall(StrEnum):
    """How a service does, over all its replicas."""

    HEALTHY = "healthy"
    PARTIAL = "partial"
    DEGRADED = "degraded"
    STARTING = "starting"
    FAILED = "failed"
    STOPPED = "stopped"


_WORDS: dict[State, Status] = {
    State.PENDING: Status.PENDING,
    State.SCHEDULING: Status.CONFIGURING,
    State.PREPARING: Status.CONFIGURING,
    State.STARTING: Status.CONFIGURING,
    State.WAITING_FOR_READY: Status.CONFIGURING,
    State.READY: Status.RUNNING,
    State.UNHEALTHY: Status.RUNNING,
    State.UNREACHABLE: Status.RUNNING,
    State.STOPPING: Status.RUNNING,
    State.STOPPED: Status.CANCELLED,
    State.FAILED: Status.FAILED,
}


def replica_word(state: State, reason: Reason | None = None) -> Status:
    """The word for one replica."""
    if state in (State.STOPPED, State.FAILED) and reason in OVER:
        return Status.COMPLETED
    return _WORDS[state]


def service_status(desired: Desired, members: Sequence[Observed]) -> Status:
    """The word for the service: that of the replica that has come furthest, as long as it shall run."""
    if not desired.running:
        return Status.FAILED if desired.reason is not None else Status.CANCELLED
    live = [member for member in members if member.live]
    for word in (Status.RUNNING, Status.CONFIGURING):
        if any(_word(member) is word for member in live):
            return word
    return Status.FAILED if not live and overall_status(desired, members) is Overall.FAILED else Status.PENDING


def _word(member: Observed) -> Status:
    # a restart on its way serves no request
    return Status.CONFIGURING if member.state is State.STOPPING else replica_word(member.state, member.reason)


def overall_status(desired: Desired, members: Sequence[Observed]) -> Overall:
    """How its places do.

    ``partial``: some are ready, the others on their way; ``degraded``: some are ready, and one is unhealthy, cannot be
    asked or failed; ``starting``: none is ready yet; ``failed``: none is ready, and none is on its way. What its
    cluster queued again is on its way.
    """
    if not desired.running or desired.count == 0:
        return Overall.STOPPED
    places = arrange(desired, members).kept
    ready = sum(bool(place.ready) for place in places)
    if ready == desired.count:
        return Overall.HEALTHY
    behind = [place for place in places if not place.ready]
    if not ready:
        on_its_way = any(_on_its_way(place) or (not place.live and not _gave_up(desired, place)) for place in behind)
        return Overall.STARTING if on_its_way else Overall.FAILED
    fine = all(_on_its_way(place) or (not place.live and not _failed(place)) for place in behind)
    return Overall.PARTIAL if fine else Overall.DEGRADED


def _on_its_way(place: Place) -> bool:
    return any(member.launching or member.requeued for member in place.live)


def _gave_up(desired: Desired, place: Place) -> bool:
    return place.last is not None and fate_of(desired, place.last).due is None


def _failed(place: Place) -> bool:
    return place.last is not None and place.last.failed
