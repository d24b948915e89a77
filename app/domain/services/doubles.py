"""Places with more members than they need: one stays."""

from __future__ import annotations

from collections.abc import Sequence

from app.domain.lifecycle import State
from app.domain.services.members import Observed
from app.domain.services.sight import Sight
from app.domain.services.successors import ends_soon

#: Who ends within this time is stopped whatever else is ready: it would end without having finished its requests.
DRAIN_S = 30.0


def drop_unready(sight: Sight) -> None:
    """Stop what is of no use: unready members of other revisions, when none of them is the good one."""
    desired = sight.desired
    if desired.good_revision not in (None, desired.revision):
        return
    for place in sight.arranged.kept:
        for member in place.others(desired.revision):
            if not member.ready and not member.suspect and member.state is not State.UNREACHABLE:
                sight.stop(member, f"revision {desired.revision} is wanted, and it is not ready")


def end_doubles(sight: Sight) -> None:
    """Where several members have one place, the one that lasts stays: successors, restarts by hand, older updates."""
    wanted = sight.desired.revision
    for place in sight.arranged.kept:
        live = sight.live(place)
        for group in ([one for one in live if one.revision == wanted], [one for one in live if one.revision != wanted]):
            if len(group) > 1:
                _end_double(sight, group)


def _end_double(sight: Sight, group: Sequence[Observed]) -> None:
    keeper = min(group, key=lambda member: _rank(sight, member))
    if not keeper.ready or keeper.suspect:
        return
    successor_due = ends_soon(sight.desired, keeper, sight.now)
    for member in sorted(group, key=lambda one: (one.ready, one.age)):
        if member is keeper or member.suspect:
            continue
        if not member.ready:
            if not successor_due or member.revision != keeper.revision:
                sight.stop(member, f"{keeper.replica_id} is ready in its place")
        elif sight.dispensable > 0 or _ends_now(sight, member):
            sight.stop(member, f"{keeper.replica_id} is ready in its place")


def _rank(sight: Sight, member: Observed) -> tuple[bool, bool, float, tuple[float, str]]:
    """Sorts the one that stays first: ready, of the good revision, with the most time, the oldest."""
    ends = float("inf") if member.lifetime_ends_at is None else member.lifetime_ends_at
    return not member.ready or member.suspect, member.revision != sight.desired.good_revision, -ends, member.age


def _ends_now(sight: Sight, member: Observed) -> bool:
    return member.lifetime_ends_at is not None and member.lifetime_ends_at - sight.now <= DRAIN_S
