"""The planner against a world in which anything may happen: limits hold at every pass, and in calm it converges."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from app.domain.lifecycle import Reason, State
from app.domain.services import Desired, Restart, Update
from tests.unit.domain.service_world import LAUNCHING, World

COUNTS = st.integers(0, 5)
PICK = st.integers(0, 30)
ENDS = st.sampled_from([Reason.PROCESS_EXITED, Reason.OUT_OF_MEMORY, Reason.LAUNCH_FAILED, Reason.DIAGNOSTICS_FAILED])
NO_FAULT = st.sampled_from([Reason.NODE_LOST, Reason.PREEMPTED])
UPDATES = st.builds(
    Update,
    max_surge=st.integers(0, 3),
    max_unavailable=st.integers(0, 3),
    progress_deadline_s=st.sampled_from([30.0, 600.0]),
    auto_rollback=st.booleans(),
)
RESTARTS = st.builds(
    Restart,
    tries=st.integers(0, 5),
    stable_s=st.sampled_from([0.0, 60.0]),
    unhealthy_s=st.sampled_from([0.0, 20.0, 120.0]),
)


class ServiceMachine(RuleBasedStateMachine):
    """Each rule is something that happens; the reconciler follows most of the time, not always."""

    world: World

    @initialize(
        count=COUNTS,
        update=UPDATES,
        restart=RESTARTS,
        lead=st.sampled_from([None, 20.0, 5000.0]),
        lifetime=st.sampled_from([None, None, 90.0, 1000.0]),
        bad=st.booleans(),
        all_or_nothing=st.sampled_from([False, False, True]),
    )
    def begin(
        self,
        count: int,
        update: Update,
        restart: Restart,
        lead: float | None,
        lifetime: float | None,
        bad: bool,
        all_or_nothing: bool,
    ) -> None:
        desired = Desired(count, update=update, restart=restart, successor_lead_s=lead, all_or_nothing=all_or_nothing)
        self.world = World(desired, {1} if bad else set(), lifetime_s=lifetime)
        self.world.reconcile()

    def _pick(self, pick: int, *states: State) -> str | None:
        found = self.world.of(*states)
        return found[pick % len(found)] if found else None

    def _after(self, seen: bool) -> None:
        if seen:
            self.world.reconcile()

    @rule(seen=st.booleans())
    def all_get_ready(self, seen: bool) -> None:
        for name in self.world.of(*LAUNCHING):
            self.world.get_ready(name)
        self._after(seen)

    @rule(pick=PICK, seen=st.booleans())
    def one_gets_ready(self, pick: int, seen: bool) -> None:
        name = self._pick(pick, *LAUNCHING)
        if name:
            self.world.get_ready(name)
        self._after(seen)

    @rule(pick=PICK, state=st.sampled_from(LAUNCHING[1:]))
    def one_goes_on(self, pick: int, state: State) -> None:
        name = self._pick(pick, *LAUNCHING)
        if name:
            self.world.enter(name, state)
        self._after(True)

    @rule(pick=PICK, reason=ENDS | NO_FAULT, seen=st.booleans())
    def one_fails(self, pick: int, reason: Reason, seen: bool) -> None:
        name = self._pick(pick, *LAUNCHING, State.READY, State.UNHEALTHY, State.UNREACHABLE)
        if name:
            self.world.fail(name, reason)
        self._after(seen)

    @rule(pick=PICK, state=st.sampled_from([State.UNHEALTHY, State.UNREACHABLE]))
    def one_falls_ill(self, pick: int, state: State) -> None:
        name = self._pick(pick, State.READY)
        if name:
            self.world.enter(name, state)
        self._after(True)

    @rule(pick=PICK)
    def one_is_requeued(self, pick: int) -> None:
        name = self._pick(pick, State.READY)
        if name:
            self.world.enter(name, State.UNHEALTHY, reason=Reason.PREEMPTED)
        self._after(True)

    @rule(pick=PICK)
    def one_recovers(self, pick: int) -> None:
        name = self._pick(pick, State.UNHEALTHY, State.UNREACHABLE)
        if name:
            ready_at = self.world.members[name].ready_at
            self.world.enter(name, State.READY, ready_at=ready_at or self.world.now, reason=None)
        self._after(True)

    @rule(pick=PICK, seen=st.booleans())
    def a_user_stops_one(self, pick: int, seen: bool) -> None:
        name = self._pick(pick, *LAUNCHING, State.READY, State.UNHEALTHY)
        if name:
            self.world.stop(name)
        self._after(seen)

    @rule(pick=PICK)
    def a_user_restarts_one(self, pick: int) -> None:
        name = self._pick(pick, State.READY, State.FAILED, State.UNHEALTHY)
        if name:
            self.world.restart(name)
        self._after(True)

    @rule(pick=PICK)
    def one_is_gone(self, pick: int) -> None:
        ending = [one for one in self.world.members.values() if not one.live and not one.released]
        if ending:
            one = ending[pick % len(ending)]
            state = State.FAILED if one.state is State.FAILED else State.STOPPED
            self.world.set(one.replica_id, state=state, released=True)
        self._after(True)

    @rule(pick=PICK, suspect=st.booleans())
    def suspicion(self, pick: int, suspect: bool) -> None:
        names = sorted(self.world.members)
        if names:
            self.world.set(names[pick % len(names)], suspect=suspect)
        self._after(True)

    @rule(pick=PICK, load=st.integers(0, 9))
    def load(self, pick: int, load: int) -> None:
        name = self._pick(pick, State.READY)
        if name:
            self.world.set(name, load=load)

    @rule(seconds=st.sampled_from([0.1, 1.0, 9.0, 11.0, 25.0, 70.0, 200.0, 700.0]), seen=st.booleans())
    def time_passes(self, seconds: float, seen: bool) -> None:
        self.world.pass_time(seconds)
        self._after(seen)

    @rule(count=COUNTS)
    def scale(self, count: int) -> None:
        self.world.desired = replace(self.world.desired, count=count, reset_at=self.world.now)
        self._after(True)

    @rule(bad=st.booleans(), seen=st.booleans())
    def update(self, bad: bool, seen: bool) -> None:
        self.world.update(bad=bad)
        self._after(seen)

    @precondition(lambda self: self.world.desired.good_revision is not None)
    @rule()
    def a_user_goes_back(self) -> None:
        desired = self.world.desired
        assert desired.good_revision is not None
        self.world.desired = replace(desired, revision=desired.good_revision, reset_at=self.world.now, rolled_out=False)
        self._after(True)

    @rule(paused=st.booleans())
    def pause(self, paused: bool) -> None:
        self.world.desired = replace(self.world.desired, paused=paused, rollout_since=self.world.now)
        self._after(True)

    @rule()
    def reset(self) -> None:
        self.world.desired = replace(self.world.desired, reset_at=self.world.now)
        self._after(True)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        world.desired = replace(world.desired, paused=False, reset_at=world.now, rollout_since=world.now)
        found = world.calm_down()
        desired = world.desired
        if not desired.running:
            assert found.settled
            assert world.live == []
        elif desired.revision not in world.bad:
            assert found.settled, found
            assert len(world.live) == desired.count
            assert all(one.ready and one.revision == desired.revision for one in world.live)
            assert len({one.ordinal for one in world.live}) == desired.count
        else:
            # nothing to go back to: it was tried as often as it may be, and told
            assert desired.good_revision is None or not desired.update.auto_rollback or not desired.count
            assert not any(one.revision == desired.revision for one in world.live)
            assert bool(found.given_up) == bool(desired.count)


TestServices = ServiceMachine.TestCase
TestServices.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
