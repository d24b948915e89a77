"""What is wanted of a service. Times are seconds since the epoch by the database's clock."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.domain.lifecycle import Reason


@dataclass(frozen=True)
class Update:
    """How a new revision takes the place of the old one."""

    #: members beyond the count that may live while others are being replaced
    max_surge: int = 1
    #: members of the count that may be without readiness by an act of the planner
    max_unavailable: int = 0
    #: an update that gets no further member ready for this long has failed
    progress_deadline_s: float = 600.0
    auto_rollback: bool = True


@dataclass(frozen=True)
class Restart:
    """How often, and how soon, a failed member is replaced."""

    tries: int = 5
    backoff_s: float = 10.0
    backoff_max_s: float = 300.0
    #: who was ready for this long had started well: its end is no failure in a row
    stable_s: float = 60.0
    #: who is unhealthy for this long is replaced too; 0: never
    unhealthy_s: float = 120.0

    def delay_s(self, tries: int) -> float:
        """The wait before the replacement that follows ``tries`` (>= 1) failures in a row."""
        # the exponent is bounded, or a great number of tries would be beyond a float
        return min(self.backoff_max_s, self.backoff_s * 2.0 ** min(tries - 1, 64))


@dataclass(frozen=True)
class Desired:
    """One service as its row says. Whoever decides the count (a user, later an autoscaler) writes it there."""

    count: int
    #: the revision every member should have
    revision: int = 1
    #: the last one that was ready in all members; None before the first time
    good_revision: int | None = None
    #: False: cancelled
    running: bool = True
    paused: bool = False
    update: Update = field(default_factory=Update)
    restart: Restart = field(default_factory=Restart)
    #: until all were ready for the first time, one failure ends all
    all_or_nothing: bool = False
    #: how long before the end of its lifetime a member gets its successor; None: from its time to ready
    successor_lead_s: float | None = None
    #: failures up to this moment are forgiven (scale, update and restart set it)
    reset_at: float | None = None
    #: when the present update began, or was last resumed
    rollout_since: float | None = None
    #: the update to the wanted revision is over. Where that is not the good one, nothing ran when it ended
    rolled_out: bool = False
    #: the failed members (replica ids) of which it was told that nothing replaces them
    given_up: frozenset[str] = frozenset()
    #: why it was ended, when it was not a user who did
    reason: Reason | None = None

    @property
    def limit(self) -> int:
        """Members that may live at once: nothing is created beyond it."""
        return self.count + self.surge

    @property
    def surge(self) -> int:
        # neither one more nor one less would leave an update no way at all
        return max(self.update.max_surge, 0 if self.update.max_unavailable > 0 else 1)

    @property
    def floor(self) -> int:
        """Ready members below which the planner's own acts never lead."""
        return max(0, self.count - self.update.max_unavailable)

    def forgives(self, failed_at: float) -> bool:
        """Whether a failure of that moment counts no more."""
        return self.reset_at is not None and failed_at <= self.reset_at
