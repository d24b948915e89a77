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
        before = place.live[-1] if place.live else place.last
        tries = sight.failures.get((place.ordinal, revision), fate.tries)
        sight.create(place, revision, tries, before.replica_id if before else None, fate.why)


def _next(sight: Sight, place: Place) -> tuple[int, Fate]:
    """Which revision comes next in an empty place, and when."""
    desired, now = sight.desired, sight.now
    wanted, good = desired.revision, desired.good_revision
    paused = desired.paused and not desired.rolled_out
    begins = good if good is not None and (paused or _unproven(sight)) else wanted
    if place.live:
        # this pass stopped who lived in it; it has nothing to wait for
        return place.live[-1].revision if paused else begins, Fate(now, 0, "its place is empty")
    ended = place.last
    if ended is None:
        return begins, Fate(now, 0, f"replica {place.ordinal} of {desired.count}")
    fate = fate_of(desired, ended)
    if ended.revision == wanted:
        return wanted, fate
    at_once = Fate(now, 0, fate.why)
    if paused:
        own = ended.failed or good in (None, ended.revision)
        return (ended.revision, fate) if own else (begins, at_once)
    if _unproven(sight) and ended.revision == good and _ended_by_itself(ended) and fate.due and fate.due <= now:
        return good, fate
    return wanted, at_once


def _unproven(sight: Sight) -> bool:
    """Until the wanted revision has shown that it gets ready, the good one keeps its places. Not where the update ended
    with nothing running: there are none to keep."""
    return sight.desired.good_revision is not None and not sight.proven and not sight.desired.rolled_out


def _ended_by_itself(ended: Observed) -> bool:
    return ended.failed or ended.reason in NO_FAULT
