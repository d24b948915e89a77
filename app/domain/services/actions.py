"""What a planning pass asks for."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.lifecycle import Reason


@dataclass(frozen=True)
class Create:
    """A new replica in a place. ``replaces`` is the one whose place it takes, if there was one."""

    ordinal: int
    revision: int
    #: failures in a row in that place and revision before it
    tries: int
    replaces: str | None
    why: str


@dataclass(frozen=True)
class Stop:
    """Ask a member to end. ``drain``: what it is answering may finish."""

    replica_id: str
    why: str
    drain: bool = True


@dataclass(frozen=True)
class RollBack:
    """Want the revision ``to`` again: the one under way does not get ready."""

    to: int
    why: str


@dataclass(frozen=True)
class GiveUp:
    """Tell that a place stays empty: its member (``replica_id``) failed as often as it may."""

    ordinal: int
    replica_id: str
    why: str


@dataclass(frozen=True)
class Good:
    """Remember the revision: all members have it and are ready."""

    revision: int


@dataclass(frozen=True)
class CancelAll:
    """End the service: it was to be launched wholly or not at all, and a member failed."""

    reason: Reason
    why: str
    #: the member that failed
    replica_id: str


Action = Create | Stop | RollBack | GiveUp | Good | CancelAll


@dataclass(frozen=True)
class Plan:
    """``actions`` in the order in which they are to be carried out."""

    actions: tuple[Action, ...] = ()
    #: plan again after so many seconds even if nothing changes; None: only a change can matter
    look_in_s: float | None = None
    #: all is as wanted
    settled: bool = False
    #: what it waits for, in words; empty when settled
    waits_for: str = ""
    #: the failed members that nothing replaces now: what ``Desired.given_up`` shall be from here on
    given_up: frozenset[str] = frozenset()

    @property
    def again(self) -> bool:
        """Whether the actions change what is wanted, so that the next pass has more to say at once."""
        return any(isinstance(action, RollBack | Good | CancelAll) for action in self.actions)
