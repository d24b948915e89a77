"""From one revision to the next: by surge, by taking what may be unavailable, or back to the last good one."""

from __future__ import annotations

from app.domain.lifecycle import State
from app.domain.services.actions import RollBack
from app.domain.services.desired import Desired
from app.domain.services.members import NO_FAULT, Observed
from app.domain.services.places import Place
from app.domain.services.replacing import fate_of, how_it_ended
from app.domain.services.sight import Sight

#: A place of an update in which so many members of the new revision failed in a row has proven the revision bad.
TRIES = 2


def roll_back(sight: Sight) -> RollBack | None:
    """The way back, when the wanted revision does not get ready and there is a good one to go back to."""
    desired = sight.desired
    good = desired.good_revision
    if good is None or good == desired.revision or desired.paused or not desired.update.auto_rollback:
        return None
    # where failures are not repeated at all, the first one is proof enough
    enough = min(TRIES, desired.restart.tries + 1)
    for place in sight.arranged.kept:
        ended = _failed_try(desired, place)
        if ended is not None and ended.tries + 1 >= enough:
            times = _times(ended.tries + 1)
            why = f"revision {desired.revision} failed {times}: {ended.replica_id} {how_it_ended(ended)}"
            return RollBack(good, why)
    return _overdue(sight, good)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times in a row"


def _failed_try(desired: Desired, place: Place) -> Observed | None:
    """The newest member of the wanted revision in that place, when it failed by its own fault."""
    ended = place.last
    if ended is None or ended.doubtful or ended.revision != desired.revision or not ended.failed:
        return None
    if desired.forgives(ended.state_since) or ended.reason in NO_FAULT or ended.stable(desired.restart.stable_s):
        return None
    return None if any(member.ready for member in place.of(desired.revision)) else ended


def _overdue(sight: Sight, good: int) -> RollBack | None:
    desired = sight.desired
    if desired.rollout_since is None:
        return None
    new = [member for place in sight.arranged.kept for member in place.of(desired.revision)]
    behind = [member for member in new if not member.ready and not member.suspect and not _cannot_be_asked(member)]
    failed = [ended for place in sight.arranged.kept if (ended := _failed_try(desired, place)) is not None]
    if not behind and not failed:
        return None
    # however late its first member was asked for, it has the whole time from there
    asked_at = min(member.created_at for member in (*behind, *failed))
    ready_at = max(
        (member.ready_at for member in new if member.ready and member.ready_at is not None), default=asked_at
    )
    until = max(desired.rollout_since, asked_at, ready_at) + desired.update.progress_deadline_s
    if sight.now < until:
        sight.moments.append(until)
        return None
    waits = f"{behind[0].replica_id} is {behind[0].state}" if behind else "its members fail"
    return RollBack(
        good,
        f"revision {desired.revision} got no member ready in {desired.update.progress_deadline_s:g} s: {waits}",
    )


def _cannot_be_asked(member: Observed) -> bool:
    return member.state is State.UNREACHABLE


def finish_moves(sight: Sight) -> None:
    """Stop the members of other revisions where one of the wanted revision is ready."""
    wanted = sight.desired.revision
    for place in sight.arranged.kept:
        if not any(member.ready and not member.suspect for member in place.of(wanted)):
            continue
        others = [member for member in sight.live(place) if member.revision != wanted]
        for member in sorted(others, key=lambda one: one.ready):
            if not member.suspect and (not member.ready or sight.dispensable > 0):
                sight.stop(member, f"revision {wanted} is ready in its place")


def hold_failed_moves(sight: Sight) -> None:
    """Keep room for failed tries of the wanted revision that are repeated later, beside the old member."""
    for place in sight.arranged.kept:
        ended = _tried(sight, place)
        if ended is None:
            continue
        fate = fate_of(sight.desired, ended)
        if fate.due is not None and fate.due <= sight.now:
            continue
        sight.reserved += 1
        sight.held.add(place.ordinal)
        if fate.due is None:
            sight.given_up.add(ended.replica_id)
        else:
            sight.moments.append(fate.due)


def begin_moves(sight: Sight) -> None:
    """Begin members of the wanted revision where there is none: beside the old one, or instead of it."""
    places = [place for place in sight.arranged.kept if _to_move(sight, place) and place.ordinal not in sight.held]
    left = sorted(places, key=lambda one: _order(sight, one))
    while left:
        rest = [place for place in left if not _move(sight, place)]
        if len(rest) == len(left):
            break
        # where two made room for one there may be room for a place that had none
        left = rest


def _move(sight: Sight, place: Place) -> bool:
    """Begin the wanted revision in that place, if there is room or may be made."""
    if sight.spare < 1 and not _make_room(sight, sight.live(place)):
        return False
    wanted, before = sight.desired.revision, _tried(sight, place)
    tries = fate_of(sight.desired, before).tries if before else 0
    replaces = before or next(iter(sight.live(place) or place.live), None)
    sight.create(place, wanted, tries, replaces.replica_id if replaces else None, f"update to revision {wanted}")
    return True


def _to_move(sight: Sight, place: Place) -> bool:
    """Whether it has members, and none of the wanted revision."""
    wanted = sight.desired.revision
    if place.suspect:
        return False
    if place.ordinal in sight.begun:
        return sight.begun[place.ordinal] != wanted
    return bool(sight.live(place)) and not place.of(wanted)


def _tried(sight: Sight, place: Place) -> Observed | None:
    """The member of the wanted revision that ended beside the old one, which is still there."""
    ended = place.last if _to_move(sight, place) else None
    return ended if ended is not None and ended.revision == sight.desired.revision else None


def _order(sight: Sight, place: Place) -> tuple[int, bool, bool, float, int]:
    """First where most room can be made, then where a try ended, where nothing is lost, where the end is near."""
    live = sight.live(place)
    ends = min(
        (member.lifetime_ends_at for member in live if member.lifetime_ends_at is not None), default=float("inf")
    )
    return -len(live), _tried(sight, place) is None, any(member.ready for member in live), ends, place.ordinal


def _make_room(sight: Sight, old: list[Observed]) -> bool:
    """Stop the old members of a place, if enough others are ready; whether there is room for the new one then."""
    ready = sum(member.ready for member in old)
    if (ready and ready > sight.dispensable) or sight.spare + len(old) < 1:
        return False
    good = sight.desired.good_revision
    if not sight.proven and any(member.launching and member.revision == good for member in old):
        # it is on its way back to work, and the new revision has yet to show that it can
        return False
    for member in old:
        sight.stop(member, f"revision {sight.desired.revision} takes its place")
    return True
