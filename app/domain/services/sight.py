"""One pass in the making: what is there, what was decided so far, and the room that is left."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from app.domain.services.actions import Action, Create, Stop
from app.domain.services.desired import Desired
from app.domain.services.members import Observed
from app.domain.services.places import Arranged, Place
from app.domain.services.replacing import Fate


@dataclass
class Sight:
    """What the steps of a pass share. Each step adds actions and takes from the room."""

    desired: Desired
    arranged: Arranged
    now: float
    actions: list[Action] = field(default_factory=list)
    #: moments at which something is due though nothing changes
    moments: list[float] = field(default_factory=list)
    #: replacements that are due later, or never: their room is not given to others
    reserved: int = 0
    given_up: set[str] = field(default_factory=set)
    #: places in which a member was just asked for, and of which revision
    begun: dict[int, int] = field(default_factory=dict)
    #: failures in a row, by place and revision, of members that this pass ends because they do not work
    failures: dict[tuple[int, int], int] = field(default_factory=dict)
    #: empty places whose time has come, with the revision and the fate of who was there
    empty: deque[tuple[Place, int, Fate]] = field(default_factory=deque)
    #: places in which a failed try of the wanted revision has to wait
    held: set[int] = field(default_factory=set)
    _stopped: set[str] = field(default_factory=set)
    _live: int = 0
    _ready: int = 0

    def __post_init__(self) -> None:
        self._live = sum(len(place.live) for place in (*self.arranged.kept, *self.arranged.dropped))
        # those of dropped places do not count: they are beyond the wanted number
        self._ready = sum(len(place.ready) for place in self.arranged.kept)

    @property
    def proven(self) -> bool:
        """Whether the wanted revision is known to become ready here."""
        wanted = self.desired.revision
        return any(member.ready for place in self.arranged.kept for member in place.of(wanted))

    @property
    def room(self) -> int:
        """Members that may be created now."""
        return self.desired.limit - self._live

    @property
    def spare(self) -> int:
        """Room that no replacement of a failed member waits for."""
        return self.room - self.reserved

    @property
    def dispensable(self) -> int:
        """Ready members that may be stopped now."""
        return self._ready - self.desired.floor

    def live(self, place: Place) -> list[Observed]:
        """Those that this pass did not stop."""
        return [member for member in place.live if member.replica_id not in self._stopped]

    def stop(self, member: Observed, why: str, *, kept: bool = True, drain: bool = True) -> None:
        """``kept``: it is of a place that is kept, so its readiness counts."""
        self._stopped.add(member.replica_id)
        self._live -= 1
        if kept and member.ready:
            self._ready -= 1
        self.actions.append(Stop(member.replica_id, why, drain))

    def create(self, place: Place, revision: int, tries: int, replaces: str | None, why: str) -> None:
        self._live += 1
        self.begun[place.ordinal] = revision
        self.actions.append(Create(place.ordinal, revision, tries, replaces, why))
