"""From what is wanted of a service and what is seen of it to what is to be done. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from app.domain.lifecycle import Reason
from app.domain.services.actions import Action, CancelAll, GiveUp, Good, Plan, Stop
from app.domain.services.desired import Desired
from app.domain.services.doubles import drop_unready, end_doubles
from app.domain.services.filling import fill, fill_rest
from app.domain.services.members import Observed
from app.domain.services.places import arrange
from app.domain.services.replacing import how_it_ended
from app.domain.services.rollout import begin_moves, finish_moves, hold_failed_moves, roll_back
from app.domain.services.sight import Sight
from app.domain.services.successors import begin_successors
from app.domain.services.unhealthy import replace_unhealthy


def plan(desired: Desired, members: Sequence[Observed], now: float) -> Plan:
    """One planning pass. ``members`` in any order; ``now`` in seconds since the epoch by the database's clock.

    The same input gives the same plan, and a plan that was carried out leaves nothing to do until something changes or
    a moment comes (``look_in_s``).
    """
    if not desired.running:
        return _end(members)
    sight = Sight(desired, arrange(desired, members), now)
    ended = _all_or_nothing(sight)
    if ended is not None:
        return Plan((ended,), waits_for="its end")
    back = roll_back(sight)
    if back is not None:
        return Plan((back,), waits_for=f"the way back to revision {back.to}")
    for place in sight.arranged.dropped:
        for member in place.live:
            if not member.suspect:
                sight.stop(member, f"scaled down to {desired.count}", kept=False)
    if not desired.paused:
        drop_unready(sight)
    end_doubles(sight)
    if not desired.paused:
        finish_moves(sight)
    replace_unhealthy(sight)
    fill(sight)
    if not desired.paused:
        hold_failed_moves(sight)
    begin_successors(sight)
    if not desired.paused:
        begin_moves(sight)
    fill_rest(sight)
    return _told(sight, members)


def _end(members: Sequence[Observed]) -> Plan:
    stops = tuple(
        Stop(member.replica_id, "the service was cancelled")
        for member in sorted(members, key=lambda one: one.age)
        if member.live
    )
    left = sum(not (member.ended and member.released) for member in members)
    return Plan(stops, settled=not left, waits_for=f"{left} replicas to be gone" if left else "")


def _all_or_nothing(sight: Sight) -> CancelAll | None:
    if not sight.desired.all_or_nothing or sight.desired.good_revision is not None:
        return None
    for place in sight.arranged.kept:
        member = place.last
        if member is not None and (member.failed or member.blameless) and not member.doubtful:
            why = f"{member.replica_id} {how_it_ended(member)} before all were ready"
            return CancelAll(member.reason or Reason.BACKEND_ERROR, why, member.replica_id)
    return None


def _told(sight: Sight, members: Sequence[Observed]) -> Plan:
    desired = sight.desired
    by_id = {member.replica_id: member for member in members}
    for replica_id in sorted(sight.given_up - desired.given_up):
        member = by_id[replica_id]
        why = f"{replica_id} {how_it_ended(member)}, as often in a row as it may ({desired.restart.tries} tries)"
        sight.actions.append(GiveUp(member.ordinal, replica_id, why))
    whole = bool(sight.arranged.kept) and not sight.arranged.dropped and not sight.actions and _whole(sight)
    if whole and desired.good_revision != desired.revision:
        sight.actions.append(Good(desired.revision))
    waits_for = _waits_for(sight, members)
    actions: tuple[Action, ...] = tuple(sight.actions)
    look_in_s = max(0.0, min(sight.moments) - sight.now) if sight.moments else None
    return Plan(actions, look_in_s, not actions and not waits_for, waits_for, frozenset(sight.given_up))


def _whole(sight: Sight) -> bool:
    """Whether each place has a ready member of the wanted revision and none of another."""
    wanted = sight.desired.revision
    return all(
        any(member.ready for member in place.of(wanted)) and not place.others(wanted) for place in sight.arranged.kept
    )


def _waits_for(sight: Sight, members: Sequence[Observed]) -> str:
    desired, wanted = sight.desired, sight.desired.revision
    parts = []
    if sight.given_up:
        parts.append(f"{len(sight.given_up)} replicas failed too often: scale, update or restart to try again")
    behind = [place for place in sight.arranged.kept if not any(one.ready for one in place.of(wanted))]
    moves = any(place.others(wanted) for place in behind)
    # without replicas too it is no further than it was when it was paused
    begun = not desired.count and not desired.rolled_out and desired.good_revision not in (None, wanted)
    if desired.paused and (moves or begun):
        parts.append(f"the update to revision {wanted} is paused")
    not_ready = sum(not place.ready for place in sight.arranged.kept)
    if not_ready:
        parts.append(f"{not_ready} of {desired.count} replicas to be ready")
    elif behind:
        parts.append(f"{len(behind)} of {desired.count} replicas to be ready in revision {wanted}")
    # what failed on a silent host may never be seen gone
    leaving = sum(not (one.live or one.released or one.doubtful) for one in members)
    leaving += sum(len(place.live) for place in sight.arranged.dropped)
    if leaving:
        parts.append(f"{leaving} replicas to be gone")
    doubled = sum(len(place.live) > 1 for place in sight.arranged.kept)
    if doubled and not behind:
        parts.append(f"{doubled} replicas to be replaced")
    if not parts and sight.actions:
        parts.append("what it just asked for")
    return "; ".join(parts)
