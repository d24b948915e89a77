"""When the member that ended in a place is replaced, and when no more."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.services.desired import Desired
from app.domain.services.members import Observed


@dataclass(frozen=True)
class Fate:
    """What follows a member's end. ``due`` is in seconds since the epoch; None: its budget is used up."""

    due: float | None
    #: failures in a row before the replacement
    tries: int
    why: str


def fate_of(desired: Desired, ended: Observed) -> Fate:
    """When a member that ended is replaced in its own revision."""
    at_once = ended.state_since
    if desired.forgives(ended.state_since):
        return Fate(at_once, 0, f"{ended.replica_id} ended before the reset")
    stable = ended.stable(desired.restart.stable_s)
    if not ended.failed or ended.blameless:
        # stopped by hand, or its time was over
        return Fate(at_once, 0 if stable else ended.tries, f"{ended.replica_id} {how_it_ended(ended)}")
    failures = 1 if stable else ended.tries + 1
    why = f"{ended.replica_id} {how_it_ended(ended)}"
    if failures > desired.restart.tries:
        return Fate(None, failures, f"{why}, for the {failures}. time in a row")
    return Fate(ended.state_since + (0.0 if stable else desired.restart.delay_s(failures)), failures, why)


def how_it_ended(ended: Observed) -> str:
    """In words that follow its id."""
    if ended.live:
        return f"is {ended.state}"
    if not ended.failed and ended.reason is None:
        return "was stopped"
    word = "failed" if ended.failed else "ended"
    return f"{word} ({ended.reason})" if ended.reason else word
