"""The members by place, and which places are kept when there are more of them than wanted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from app.domain.services.desired import Desired
from app.domain.services.members import Observed


@dataclass
class Place:
    """One ordinal: who lives in it, and who was the last to end there without being replaced."""

    ordinal: int
    live: list[Observed] = field(default_factory=list)
    last: Observed | None = None

    @property
    def ready(self) -> list[Observed]:
        return [member for member in self.live if member.ready]

    @property
    def suspect(self) -> bool:
        """Nothing is begun in it: what is believed of its members may be wrong."""
        return any(member.suspect for member in self.live) or (
            not self.live and self.last is not None and self.last.doubtful
        )

    def of(self, revision: int) -> list[Observed]:
        return [member for member in self.live if member.revision == revision]

    def others(self, revision: int) -> list[Observed]:
        return [member for member in self.live if member.revision != revision]


@dataclass(frozen=True)
class Arranged:
    """``kept``: as many places as wanted, by ordinal; ``dropped``: the others that still have live members."""

    kept: Sequence[Place]
    dropped: Sequence[Place]


def arrange(desired: Desired, members: Iterable[Observed]) -> Arranged:
    """Fill places from the members and choose those that are kept.

    A place keeps its number when others are dropped: after a scale down the numbers may have gaps, which the next scale
    up fills.
    """
    places = _places(members)
    lived_in = [place for place in places.values() if place.live]
    if len(lived_in) > desired.count:
        # of equals the youngest goes first
        lived_in.sort(key=lambda place: place.live[0].age)
        lived_in.sort(key=_worth, reverse=True)
        kept, dropped = lived_in[: desired.count], lived_in[desired.count :]
    else:
        kept, dropped = lived_in + _empty(desired, places, desired.count - len(lived_in)), []
    kept.sort(key=lambda place: place.ordinal)
    # the first to go is told first
    dropped.reverse()
    return Arranged(kept, dropped)


def _places(members: Iterable[Observed]) -> dict[int, Place]:
    # in an order of our own, whatever that of the rows was
    ordered = sorted(members, key=lambda member: member.age)
    replaced = {member.replaces for member in ordered}
    places: dict[int, Place] = {}
    for member in ordered:
        place = places.setdefault(member.ordinal, Place(member.ordinal))
        if member.live:
            place.live.append(member)
        elif not member.replaced and member.replica_id not in replaced:
            place.last = member
    return places


def _worth(place: Place) -> tuple[int, int]:
    """Sorts from the first to go: the unhealthy, those not ready yet, the least loaded."""
    return max(_health(member) for member in place.live), sum(member.load for member in place.live)


def _health(member: Observed) -> int:
    if member.suspect:
        # nobody acts on it, so the choice must fall on others
        return 3
    if member.ready:
        return 2
    return 1 if member.launching else 0


def _empty(desired: Desired, places: dict[int, Place], wanted: int) -> list[Place]:
    """``wanted`` places without a live member: first those whose member failed, then the lowest numbers."""
    if wanted <= 0:
        return []
    unfinished = [place for place in places.values() if not place.live and _unfinished(desired, place.last)]
    unfinished.sort(key=lambda place: place.ordinal)
    chosen = unfinished[:wanted]
    taken = {place.ordinal for place in chosen} | {number for number, place in places.items() if place.live}
    ordinal = 0
    while len(chosen) < wanted:
        if ordinal not in taken:
            chosen.append(places.get(ordinal) or Place(ordinal))
        ordinal += 1
    return chosen


def _unfinished(desired: Desired, last: Observed | None) -> bool:
    return last is not None and last.failed and not desired.forgives(last.state_since)
