"""What is seen of one member: a replica in a place of a service."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.lifecycle import LAUNCHING, TERMINAL, Reason, State

#: Its time was over, as was said when it was asked for.
OVER = frozenset({Reason.LIFETIME_EXPIRED, Reason.WALLTIME})
#: Ends that say nothing about what ran.
NO_FAULT = OVER | {Reason.NODE_LOST, Reason.PREEMPTED}


@dataclass(frozen=True)
class Observed:
    """One replica of the service. Times are seconds since the epoch by the database's clock.

    Those that ended, were replaced and are gone may be left out: they decide nothing.
    """

    replica_id: str
    #: the place it has in its service
    ordinal: int
    revision: int
    state: State
    created_at: float
    #: when the present state was entered
    state_since: float
    #: False: someone asked it to stop
    wanted: bool = True
    reason: Reason | None = None
    #: when its present attempt became ready (the last time), None when it never did
    ready_at: float | None = None
    #: when its present attempt was asked for; None: at its creation
    asked_at: float | None = None
    #: failures in a row in its place and revision before it
    tries: int = 0
    #: the replica whose place it took
    replaces: str | None = None
    #: another one took its place, shown or not
    replaced: bool = False
    lifetime_ends_at: float | None = None
    #: seen gone, its capacity returned
    released: bool = False
    #: requests in flight
    load: int = 0
    #: its pool or node is under suspicion: nobody acts on it
    suspect: bool = False

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL

    @property
    def live(self) -> bool:
        """Runs, or is on its way, and shall. One that restarts is live."""
        return self.wanted and self.state not in TERMINAL

    @property
    def ready(self) -> bool:
        """Answers, with its diagnostics passed: a launch is not ready before."""
        return self.live and self.state is State.READY

    @property
    def launching(self) -> bool:
        # a restart stops first, and is a launch again
        return self.live and (self.state in LAUNCHING or self.state is State.STOPPING)

    @property
    def requeued(self) -> bool:
        """It served, and its cluster queued it again: no fault of its own, however long that takes."""
        return self.live and self.state is State.UNHEALTHY and self.reason is Reason.PREEMPTED

    @property
    def failed(self) -> bool:
        """Ended by itself; or its lifetime was over before it became ready."""
        if self.ready_at is None and self.reason in OVER:
            return not self.live
        # cancelled behind us: that is no fault of what served, and of what never did it may be a cluster's answer
        cancelled = self.reason is Reason.CANCELLED and self.ready_at is not None
        return self.state is State.FAILED and self.wanted and not cancelled

    @property
    def doubtful(self) -> bool:
        """Its end may be only what a silent host looks like. Not so if it was seen gone, or asked to end."""
        return self.suspect and self.wanted and not self.released

    @property
    def blameless(self) -> bool:
        """It had been ready, and ended for what its revision cannot help."""
        return self.ready_at is not None and self.reason in NO_FAULT

    def stable(self, stable_s: float) -> bool:
        """Whether it was ready for so long until it entered its present state."""
        return self.ready_at is not None and self.state_since - self.ready_at >= stable_s

    @property
    def age(self) -> tuple[float, str]:
        """Sorts from the oldest to the youngest."""
        return self.created_at, self.replica_id
