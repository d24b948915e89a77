"""A world for the planner: members that launch, fail, die and go, and an executor that does what it is told.

What the planner may never do is checked at each pass, from what the world knows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from app.domain.lifecycle import Reason, State
from app.domain.services import CancelAll, Create, Desired, GiveUp, Good, Observed, Plan, RollBack, Stop, plan
from app.domain.services.doubles import DRAIN_S

#: Passes in a row after which what is wanted has to be the same.
PASSES = 6
LAUNCHING = (State.PENDING, State.SCHEDULING, State.STARTING, State.WAITING_FOR_READY)


@dataclass
class World:
    desired: Desired
    #: revisions that never become ready
    bad: set[int] = field(default_factory=set)
    now: float = 1_000_000.0
    lifetime_s: float | None = None
    members: dict[str, Observed] = field(default_factory=dict)
    revisions: int = 1
    told: list[str] = field(default_factory=list)

    # -- what happens by itself, or by a user ---------------------------------------------------------------------

    def set(self, replica_id: str, **changes: object) -> None:
        self.members[replica_id] = replace(self.members[replica_id], **changes)  # type: ignore[arg-type]

    def enter(self, replica_id: str, state: State, **changes: object) -> None:
        self.set(replica_id, state=state, state_since=self.now, **changes)

    def get_ready(self, replica_id: str) -> None:
        """The launch goes well, if its revision can."""
        if self.members[replica_id].revision in self.bad:
            self.fail(replica_id, Reason.READINESS_TIMEOUT)
            return
        ends = None if self.lifetime_s is None else self.now + self.lifetime_s
        before = self.members[replica_id].lifetime_ends_at
        self.enter(replica_id, State.READY, ready_at=self.now, lifetime_ends_at=ends if before is None else before)

    def fail(self, replica_id: str, reason: Reason) -> None:
        self.enter(replica_id, State.FAILED, reason=reason)

    def stop(self, replica_id: str) -> None:
        """Asked to stop, as by a user: what was never launched is gone at once."""
        if self.members[replica_id].state is State.PENDING:
            self.enter(replica_id, State.STOPPED, wanted=False, released=True, reason=Reason.CANCELLED)
        else:
            self.enter(replica_id, State.STOPPING, wanted=False)

    def restart(self, replica_id: str) -> None:
        old = self.members[replica_id]
        fresh = {"wanted": True, "asked_at": self.now, "reason": None, "released": False, "ready_at": None}
        self.enter(replica_id, State.PENDING if old.ended else State.STOPPING, lifetime_ends_at=None, **fresh)

    def end_lifetimes(self) -> None:
        for one in list(self.members.values()):
            if one.live and one.lifetime_ends_at is not None and one.lifetime_ends_at <= self.now:
                self.enter(one.replica_id, State.STOPPING, wanted=False, reason=Reason.LIFETIME_EXPIRED)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.end_lifetimes()

    def update(self, *, bad: bool = False) -> None:
        self.revisions += 1
        if bad:
            self.bad.add(self.revisions)
        self.desired = replace(
            self.desired,
            revision=self.revisions,
            rollout_since=self.now,
            reset_at=self.now,
            paused=False,
            rolled_out=False,
        )

    def of(self, *states: State) -> list[str]:
        return [one.replica_id for one in self.members.values() if one.state in states and one.wanted]

    @property
    def live(self) -> list[Observed]:
        return [one for one in self.members.values() if one.live]

    # -- the executor -----------------------------------------------------------------------------------------------

    def reconcile(self) -> Plan:
        """Plan and act until nothing is left to do; each pass is checked."""
        for _ in range(PASSES):
            found = plan(self.desired, list(self.members.values()), self.now)
            self.check(found)
            self.act(found)
            if not found.actions:
                return found
            if not found.again:
                rest = plan(self.desired, list(self.members.values()), self.now)
                # carried out, a plan leaves nothing to do but to remember that all is well
                assert [one for one in rest.actions if not isinstance(one, Good)] == [], (found, rest)
        raise AssertionError(f"the plan is never done: {found}")

    def act(self, found: Plan) -> None:
        self.desired = replace(
            self.desired, given_up=found.given_up, rolled_out=self.desired.rolled_out or found.settled
        )
        for action in found.actions:
            match action:
                case Create():
                    self._create(action)
                case Stop():
                    self.stop(action.replica_id)
                case RollBack():
                    self.desired = replace(self.desired, revision=action.to, rollout_since=self.now, rolled_out=False)
                case Good():
                    self.desired = replace(self.desired, good_revision=action.revision)
                case CancelAll():
                    self.desired = replace(self.desired, running=False, reason=action.reason)
                case GiveUp():
                    self.told.append(action.replica_id)

    def _create(self, action: Create) -> None:
        replica_id = f"{len(self.members):06x}"
        self.members[replica_id] = Observed(
            replica_id,
            action.ordinal,
            action.revision,
            State.PENDING,
            created_at=self.now,
            state_since=self.now,
            tries=action.tries,
            replaces=action.replaces,
        )

    # -- what must hold of every plan ---------------------------------------------------------------------------------

    def check(self, found: Plan) -> None:
        members = list(self.members.values())
        assert plan(self.desired, members[::-1], self.now) == found
        replaced = {one.replaces for one in members}
        marked = [replace(one, replaced=one.replica_id in replaced) for one in members]
        shown = [one for one in marked if not (one.ended and one.released and one.replaced)]
        assert plan(self.desired, shown, self.now).actions == found.actions
        if found.settled:
            assert not found.actions
            assert not found.waits_for
        stopped = [self.members[one.replica_id] for one in found.actions if isinstance(one, Stop)]
        made = [one for one in found.actions if isinstance(one, Create)]
        assert len({one.replica_id for one in stopped}) == len(stopped)
        assert all(one.live for one in stopped)
        for told in (one for one in found.actions if isinstance(one, GiveUp)):
            assert told.replica_id not in self.desired.given_up
        if not self.desired.running:
            assert not made
            return
        self._check_limits(stopped, made)
        idle = {one.replica_id for one in found.actions if isinstance(one, Stop) and not one.drain}
        self._check_patience([one for one in stopped if one.replica_id in idle])
        self._check_need([one for one in stopped if one.replica_id not in idle], idle)
        for one in made:
            self._check_create(one)

    def _check_limits(self, stopped: list[Observed], made: list[Create]) -> None:
        desired = self.desired
        left = len(self.live) - len(stopped)
        if made:
            assert left + len(made) <= desired.count + max(desired.update.max_surge, desired.surge)
        assert len({(one.ordinal, one.revision) for one in made}) == len(made)
        ready = [one for one in stopped if one.ready]
        kept = self.kept_places(stopped)
        lowered = [one for one in ready if one.ordinal in kept and not self._ends_now(one)]
        if lowered:
            still = sum(one.ready for one in self.live if one not in stopped and one.ordinal in kept)
            assert still + sum(self._ends_now(one) for one in ready) >= desired.floor, (stopped, still)

    def kept_places(self, stopped: Iterable[Observed]) -> set[int]:
        """The places that are not given up by a scale down."""
        lived_in = {one.ordinal for one in self.live}
        gone = lived_in - {one.ordinal for one in self.live if one not in list(stopped)}
        return lived_in if len(lived_in) <= self.desired.count else lived_in - gone

    def _ends_now(self, one: Observed) -> bool:
        return one.lifetime_ends_at is not None and one.lifetime_ends_at - self.now <= DRAIN_S

    def _check_patience(self, stopped: list[Observed]) -> None:
        """Only what does not work is stopped without draining: one at a time, as often as its place may fail."""
        restart = self.desired.restart
        assert len(stopped) <= 1
        for one in stopped:
            assert one.state is State.UNHEALTHY
            assert one.reason is not Reason.PREEMPTED
            assert not one.suspect
            assert self.now >= one.state_since + restart.unhealthy_s > one.state_since
            assert one.stable(restart.stable_s) or one.tries < restart.tries

    def _check_need(self, stopped: list[Observed], idle: set[str]) -> None:
        """No ready member is stopped unless it is beyond the count, of another revision, or one of two in its place."""
        desired = self.desired
        places = {one.ordinal for one in self.live}
        for one in stopped:
            assert not one.suspect
            beside = [two for two in self.live if two.ordinal == one.ordinal and two is not one]
            beyond = len(places) > desired.count
            updated = one.revision != desired.revision and not desired.paused
            doubled = any(two.ready and two not in stopped for two in beside)
            assert beyond or updated or doubled, one
            if beyond and not updated and not doubled and one.ready:
                # an unready place is not kept in place of this one
                for ordinal in places - {two.ordinal for two in self.live if two in stopped or two.replica_id in idle}:
                    others = [two for two in self.live if two.ordinal == ordinal]
                    assert any(two.ready or two.suspect for two in others), (one, others)

    def _check_create(self, made: Create) -> None:
        desired = self.desired
        here = [one for one in self.live if one.ordinal == made.ordinal]
        assert not any(one.suspect for one in here)
        assert made.revision in {desired.revision, desired.good_revision, *(one.revision for one in self._last(made))}
        if desired.paused:
            assert all(one.revision == made.revision for one in here)
        for before in self._last(made):
            if before.state is State.UNHEALTHY and before.live and before.revision == made.revision and len(here) == 1:
                stable = before.stable(desired.restart.stable_s)
                # it is replaced for not working, or joined by its successor
                assert made.tries in (1 if stable else before.tries + 1, 0)
            if before.live or before.revision != made.revision or desired.forgives(before.state_since):
                continue
            if before.failed and not before.blameless:
                stable = before.stable(desired.restart.stable_s)
                failures = 1 if stable else before.tries + 1
                assert failures <= desired.restart.tries
                assert made.tries == failures
                assert stable or self.now >= before.state_since + desired.restart.delay_s(failures)

    def _last(self, made: Create) -> list[Observed]:
        return [self.members[made.replaces]] if made.replaces is not None else []

    # -- calm ---------------------------------------------------------------------------------------------------------

    def calm_down(self, limit: int = 400) -> Plan:
        """From here on all goes well that can: launches come to an end, the sick recover, the ending are gone."""
        self.lifetime_s = None
        for _ in range(limit):
            found = self.reconcile()
            moved = self._move_on()
            if not moved:
                if found.look_in_s is None:
                    return found
                self.pass_time(found.look_in_s + 0.001)
            else:
                self.pass_time(1.0)
        raise AssertionError(f"no end of it: {found} {self.desired} {list(self.members.values())}")

    def _move_on(self) -> bool:
        moved = False
        for one in list(self.members.values()):
            name = one.replica_id
            if one.suspect:
                self.set(name, suspect=False)
            elif one.lifetime_ends_at is not None:
                self.set(name, lifetime_ends_at=None)
            elif one.state is State.STOPPING:
                # a restart queues again, what was asked to end is gone
                self.enter(name, State.PENDING if one.wanted else State.STOPPED, released=not one.wanted)
            elif one.ended and not one.released:
                self.set(name, released=True)
            elif one.state in LAUNCHING:
                self.get_ready(name)
            elif one.state in (State.UNHEALTHY, State.UNREACHABLE):
                self.enter(name, State.READY, ready_at=one.ready_at or self.now, reason=None)
            else:
                continue
            moved = True
        return moved
