"""A member that lives and does not work makes room for one that does."""

from __future__ import annotations

from app.domain.lifecycle import State
from app.domain.services.members import Observed
from app.domain.services.places import Place
from app.domain.services.sight import Sight


def replace_unhealthy(sight: Sight) -> None:
    """End the member that has been unhealthy for longest, if that is long enough; its place is filled anew.

    One after the other: while a member is on its way none is ended. If those that come do not get ready either, the
    fault is not in the members, and what still lives may recover. It counts as a failure of its place.
    """
    restart = sight.desired.restart
    places = sight.arranged.kept
    if restart.unhealthy_s <= 0 or any(member.launching for place in places for member in sight.live(place)):
        return
    waiting = []
    for place in places:
        for member in _hopeless(sight, place):
            if _failures(sight, member) > restart.tries:
                sight.given_up.add(member.replica_id)
            else:
                waiting.append((member.state_since + restart.unhealthy_s, member.age, place, member))
    if not waiting:
        return
    due, _, place, member = min(waiting, key=lambda one: one[:2])
    if due > sight.now:
        sight.moments.append(due)
        return
    # nothing that it has in flight gets an answer
    sight.stop(member, f"it was unhealthy for {restart.unhealthy_s:g} s", drain=False)
    sight.failures[place.ordinal, member.revision] = _failures(sight, member)


def _failures(sight: Sight, member: Observed) -> int:
    """How often in a row its place failed, this time included."""
    return 1 if member.stable(sight.desired.restart.stable_s) else member.tries + 1


def _hopeless(sight: Sight, place: Place) -> list[Observed]:
    """The members of a place in which none works. Nobody acts on what is under suspicion or cannot be asked.

    Time in a cluster's queue is no unhealthy time: who replaced a member that waits there would wait there anew.
    """
    live = sight.live(place)
    hopeless = all(member.state is State.UNHEALTHY and not member.requeued and not member.suspect for member in live)
    return live if hopeless else []
