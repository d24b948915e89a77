"""A member whose lifetime ends gets its successor ready before."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from app.domain.services.desired import Desired
from app.domain.services.members import Observed
from app.domain.services.places import Place
from app.domain.services.replacing import fate_of
from app.domain.services.sight import Sight

#: The default lead: so many times what the member itself needed to get ready, and no less than ``LEAST_LEAD_S``.
LEAD_FACTOR = 3.0
LEAST_LEAD_S = 60.0


def lead_s(desired: Desired, member: Observed) -> float:
    """How long before its end a ready member gets its successor."""
    if desired.successor_lead_s is not None:
        return desired.successor_lead_s
    asked_at = member.created_at if member.asked_at is None else member.asked_at
    needed = max(0.0, (member.ready_at or asked_at) - asked_at)
    return max(LEAST_LEAD_S, LEAD_FACTOR * needed)


def begin_successors(sight: Sight) -> None:
    """Create successors beside the members that end soon, the one that ends first first."""
    ending = [(place, member) for place in sight.arranged.kept if (member := _alone(sight, place)) is not None]
    ends = sorted(member.lifetime_ends_at or 0.0 for _, member in ending)
    for place, member in sorted(ending, key=lambda pair: (pair[1].lifetime_ends_at or 0.0, pair[0].ordinal)):
        begins = _begins(sight.desired, member, ends)
        if begins > sight.now:
            sight.moments.append(begins)
            continue
        ended = place.last if place.last is not None and place.last.revision == member.revision else None
        fate = fate_of(sight.desired, ended) if ended is not None and ended.failed else None
        if fate is not None and (fate.due is None or fate.due > sight.now):
            sight.moments += [fate.due] if fate.due is not None else []
        elif sight.spare >= 1:
            replaces = ended.replica_id if fate is not None and ended is not None else member.replica_id
            why = f"the lifetime of {member.replica_id} ends soon"
            sight.create(place, member.revision, fate.tries if fate else 0, replaces, why)


def _alone(sight: Sight, place: Place) -> Observed | None:
    """The ready member with an end in a place that has no other."""
    live = sight.live(place)
    if len(live) != 1 or place.ordinal in sight.begun:
        return None
    member = live[0]
    if not member.ready or member.suspect or member.lifetime_ends_at is None:
        return None
    return member if _kept(sight, member.revision) else None


def _kept(sight: Sight, revision: int) -> bool:
    """Whether members of a revision are still begun; where an update goes on its members are the successors."""
    desired = sight.desired
    if revision == desired.revision or desired.paused:
        return True
    return revision == desired.good_revision and not sight.proven


def _begins(desired: Desired, member: Observed, ends: list[float]) -> float:
    """When its successor is due. Members that end together follow each other as far as the surge is smaller than they
    are many, so the first begins earlier; but never before half of its own time is over."""
    end = member.lifetime_ends_at or 0.0
    lead = lead_s(desired, member)
    together = bisect_right(ends, end + lead) - bisect_left(ends, end - lead)
    rounds = -(-together // max(1, desired.surge))
    half = (end - (member.ready_at or member.created_at)) / 2
    return end - min(lead * rounds, max(0.0, half))


def ends_soon(desired: Desired, member: Observed, now: float) -> bool:
    """Whether it is in the time in which it may have a successor."""
    if member.lifetime_ends_at is None:
        return False
    half = (member.lifetime_ends_at - (member.ready_at or member.created_at)) / 2
    return now >= member.lifetime_ends_at - max(0.0, half) or now >= member.lifetime_ends_at - lead_s(desired, member)
