"""The last failure in a place of a service that is empty or launches anew: what a user waits through, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.domain.lifecycle import Reason, State
from app.domain.services import Desired, Observed
from app.domain.services.places import Place, arrange
from app.domain.services.replacing import fate_of


@dataclass(frozen=True)
class Failure:
    """``at`` is in seconds since the epoch."""

    at: float
    reason: Reason
    told: str


def replaced_by_launches(observed: Sequence[Observed]) -> list[str]:
    """The ids of those whose places others launch in: why they ended is to be read."""
    return [one.replaces for one in observed if one.launching and one.replaces]


def last_failure(
    desired: Desired, observed: Sequence[Observed], ended: Mapping[str, Any], now: float
) -> Failure | None:
    """The newest one of a place without a ready replica; None when all are ready, or none of them failed.

    ``ended`` has the replica rows, by id, of ``observed`` and of those that their launches replaced.
    """
    if not desired.running:
        return None
    found = [
        failure for place in arrange(desired, observed).kept if not place.ready
        for failure in _of(desired, place, ended, now)
    ]  # fmt: skip
    return max(found, key=lambda one: one.at, default=None)


def _of(desired: Desired, place: Place, ended: Mapping[str, Any], now: float) -> Iterator[Failure]:
    most = desired.restart.tries
    if not place.live and place.last is not None and place.last.failed:
        fate = fate_of(desired, place.last)
        if fate.due is not None:
            moment = datetime.fromtimestamp(fate.due, UTC).isoformat(timespec="seconds")
            when = f"at {moment}" if fate.due > now else "is next"
            yield from _told(desired, ended.get(place.last.replica_id), _try(fate.tries, most, when))
    for one in place.live:
        if one.launching and one.replaces:
            yield from _told(desired, ended.get(one.replaces), _try(one.tries, most, f"is {one.replica_id}"))


def _try(number: int, most: int, what: str) -> str:
    return f"try {number} of {most} {what}" if number else f"its replacement {what}"


def _told(desired: Desired, row: Any, then: str) -> Iterator[Failure]:
    if row is None or row.state != State.FAILED or not row.reason or desired.forgives(row.state_since.timestamp()):
        return
    why = f": {row.message}" if row.message else ""
    told = f"{row.replica_id} failed ({row.reason}){why}; {then}"
    yield Failure(row.state_since.timestamp(), Reason(row.reason), told)
