"""A member for each place that has none."""

from __future__ import annotations

from app.domain.services.members import NO_FAULT, Observed
from app.domain.services.places import Place
from app.domain.services.replacing import Fate, fate_of
from app.domain.services.sight import Sight


def fill(sight: Sight) -> None:
    """Create members in empty places: at once, when their time has come, or never again."""
    for place in sight.arranged.kept:
        if sight.live(place) or place.suspect:
            continue
        revision, fate = _next(sight, place)
        if fate.due is None:
            sight.reserved += 1
            if place.last is not None:
                sight.given_up.add(place.last.replica_id)
        elif fate.due > sight.now:
            sight.reserved += 1
            sight.moments.append(fate.due)
        else:
            sight.empty.append((place, revision, fate))
    fill_rest(sight)


def fill_rest(sight: Sight) -> None:
    """Create in the empty places whose time has come, as far as there is room: restarts by hand may have taken it."""
    while sight.empty and sight.room > 0:
        place, revision, fate = sight.empty.popleft()
        before = place.last or (place.live[-1] if place.live else None)
        sight.create(place, revision, fate.tries, before.replica_id if before else None, fate.why)


def _next(sight: Sight, place: Place) -> tuple[int, Fate]:
    """Which revision comes next in an empty place, and when."""
    desired, ended, now = sight.desired, place.last, sight.now
    good = desired.good_revision
    at_once = Fate(now, 0, f"replica {place.ordinal} of {desired.count}" if ended is None else "its place is empty")
    if ended is not None and ended.revision == desired.revision:
        return ended.revision, fate_of(desired, ended)
    if desired.paused:
        if ended is not None and (ended.failed or ended.revision == good):
            return ended.revision, fate_of(desired, ended)
        return good or desired.revision, at_once
    if good is not None and not sight.proven:
        # until the wanted revision has shown that it gets ready, the good one keeps its places
        if ended is None:
            return good, at_once
        if ended.revision == good and _ended_by_itself(ended):
            fate = fate_of(desired, ended)
            if fate.due is not None and fate.due <= now:
                return good, fate
    return desired.revision, at_once


def _ended_by_itself(ended: Observed) -> bool:
    return ended.failed or ended.reason in NO_FAULT
