"""The planner, case by case: what it asks for in one pass."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.domain.lifecycle import Reason, State
from app.domain.services import (
    CancelAll,
    Create,
    Desired,
    GiveUp,
    Good,
    Observed,
    Overall,
    Restart,
    RollBack,
    Status,
    Stop,
    Update,
    overall_status,
    plan,
    replica_word,
    service_status,
)

NOW = 10_000.0


def member(ordinal: int, state: State = State.READY, revision: int = 1, **more: object) -> Observed:
    """Ready since long ago, unless said otherwise."""
    values: dict[str, object] = {
        "replica_id": f"r{ordinal}-{revision}",
        "ordinal": ordinal,
        "revision": revision,
        "state": state,
        "created_at": 1000.0 + ordinal,
        "state_since": 2000.0,
        "ready_at": 2000.0 if state in (State.READY, State.UNHEALTHY) else None,
        **more,
    }
    return Observed(**values)  # type: ignore[arg-type]


def creates(desired: Desired, members: list[Observed], now: float = NOW) -> list[Create]:
    return [action for action in plan(desired, members, now).actions if isinstance(action, Create)]


def stops(desired: Desired, members: list[Observed], now: float = NOW) -> list[str]:
    return [action.replica_id for action in plan(desired, members, now).actions if isinstance(action, Stop)]


def test_a_new_service_gets_all_its_members() -> None:
    made = creates(Desired(3), [])
    assert [(one.ordinal, one.revision, one.tries, one.replaces) for one in made] == [
        (0, 1, 0, None),
        (1, 1, 0, None),
        (2, 1, 0, None),
    ]


def test_a_service_that_is_whole_is_good_and_then_settled() -> None:
    members = [member(0), member(1)]
    first = plan(Desired(2), members, NOW)
    assert first.actions == (Good(1),)
    assert first.again
    then = plan(Desired(2, good_revision=1), members, NOW)
    assert then.actions == ()
    assert then.settled
    assert then.look_in_s is None


@pytest.mark.parametrize(
    "tries, delay", [(0, 10.0), (1, 20.0), (2, 40.0), (3, 80.0), (4, 160.0)], ids=lambda value: str(value)
)
def test_a_member_that_never_became_ready_is_replaced_after_a_doubling_wait(tries: int, delay: float) -> None:
    failed = member(0, State.FAILED, tries=tries, state_since=NOW, reason=Reason.PROCESS_EXITED)
    waits = plan(Desired(1), [failed], NOW + delay - 1)
    assert waits.actions == ()
    assert waits.look_in_s == pytest.approx(1.0)
    assert not waits.settled
    made = creates(Desired(1), [failed], NOW + delay)
    assert [(one.ordinal, one.tries, one.replaces) for one in made] == [(0, tries + 1, failed.replica_id)]


def test_the_wait_has_a_bound() -> None:
    assert Restart().delay_s(6) == 300.0
    assert Restart().delay_s(5000) == 300.0


def test_a_member_that_failed_as_often_as_it_may_is_given_up_and_told_once() -> None:
    failed = member(0, State.FAILED, tries=5, state_since=NOW, reason=Reason.PROCESS_EXITED)
    first = plan(Desired(1), [failed], NOW + 100_000)
    assert [type(action) for action in first.actions] == [GiveUp]
    then = plan(Desired(1, given_up=first.given_up), [failed], NOW + 100_000)
    assert then.actions == ()
    assert not then.settled
    assert "reset" not in then.waits_for
    assert then.look_in_s is None
    # scale, update and restart forgive it
    again = creates(Desired(1, given_up=first.given_up, reset_at=NOW + 1), [failed], NOW + 2)
    assert [(one.ordinal, one.tries) for one in again] == [(0, 0)]


def test_a_member_that_had_run_well_is_replaced_at_once_and_counted_anew() -> None:
    died = member(0, State.FAILED, tries=4, ready_at=NOW - 60, state_since=NOW, reason=Reason.PROCESS_EXITED)
    assert [one.tries for one in creates(Desired(1), [died], NOW)] == [1]


def test_a_member_stopped_by_hand_is_replaced_at_once() -> None:
    leaving = member(0, State.STOPPING, wanted=False, state_since=NOW)
    assert [(one.ordinal, one.replaces) for one in creates(Desired(1), [leaving], NOW)] == [(0, leaving.replica_id)]


@pytest.mark.parametrize("state", [State.UNHEALTHY, State.UNREACHABLE, State.STOPPING])
def test_no_death_is_seen_where_there_is_none(state: State) -> None:
    """A restart stops first, with the wish to run kept."""
    assert plan(Desired(1, good_revision=1), [member(0, state, state_since=NOW - 119)], NOW).actions == ()


def test_who_is_unhealthy_for_long_is_replaced_one_after_the_other() -> None:
    members = [member(0), member(1, State.UNHEALTHY, state_since=NOW - 121), member(2, State.UNHEALTHY)]
    desired = Desired(3, good_revision=1)
    first = plan(desired, members, NOW)
    # the one that has been so for longest; what is in flight there gets no answer
    assert [type(action) for action in first.actions] == [Stop, Create]
    assert (first.actions[0].replica_id, first.actions[0].drain) == ("r2-1", False)
    assert (first.actions[1].ordinal, first.actions[1].replaces) == (2, "r2-1")
    left = replace(members[2], state=State.STOPPING, wanted=False)
    comes = member(2, State.STARTING, replica_id="r2-new", replaces="r2-1", state_since=NOW)
    assert plan(desired, [*members[:2], left, comes], NOW).actions == ()
    works = replace(comes, state=State.READY, ready_at=NOW)
    assert stops(desired, [*members[:2], left, works]) == ["r1-1"]


@pytest.mark.parametrize("tries", [0, 1, 4])
def test_a_replacement_of_who_never_worked_again_counts_as_a_failure(tries: int) -> None:
    briefly = member(0, State.UNHEALTHY, tries=tries, ready_at=NOW - 130, state_since=NOW - 120)
    assert [one.tries for one in creates(Desired(1, good_revision=1), [briefly])] == [tries + 1]
    long = replace(briefly, ready_at=NOW - 1000)
    assert [one.tries for one in creates(Desired(1, good_revision=1), [long])] == [1]


def test_who_is_unhealthy_as_often_as_it_may_stays_and_that_is_told_once() -> None:
    ailing = member(0, State.UNHEALTHY, tries=5, ready_at=NOW - 130, state_since=NOW - 120)
    found = plan(Desired(1, good_revision=1), [ailing], NOW)
    assert [type(one) for one in found.actions] == [GiveUp]
    assert plan(Desired(1, good_revision=1, given_up=found.given_up), [ailing], NOW).actions == ()


def test_who_is_unhealthy_is_looked_at_again_when_its_time_comes() -> None:
    ailing = member(0, State.UNHEALTHY, state_since=NOW - 20)
    assert plan(Desired(1, good_revision=1), [ailing], NOW).look_in_s == pytest.approx(100.0)
    assert stops(Desired(1, good_revision=1, restart=Restart(unhealthy_s=0)), [ailing], NOW + 1000) == []
    assert stops(Desired(1, good_revision=1), [replace(ailing, suspect=True)], NOW + 1000) == []


def test_who_waits_in_its_clusters_queue_again_is_neither_replaced_nor_counted() -> None:
    waits = member(0, State.UNHEALTHY, reason=Reason.PREEMPTED, tries=5, ready_at=NOW - 130, state_since=NOW - 120)
    desired = Desired(2, good_revision=1)
    sick = member(1, State.UNHEALTHY, reason=Reason.HEALTH_FAILED)
    assert plan(Desired(1, good_revision=1), [waits], NOW + 100_000).actions == ()
    # and keeps nobody from replacing another one
    assert stops(desired, [waits, sick], NOW + 100_000) == ["r1-1"]
    ended = replace(waits, state=State.FAILED, tries=1, released=True)
    assert [one.tries for one in creates(Desired(1, good_revision=1), [ended])] == [1]


def test_scale_up_fills_the_lowest_numbers() -> None:
    members = [member(0), member(2)]
    assert [one.ordinal for one in creates(Desired(4, good_revision=1), members)] == [1, 3]


def test_scale_down_stops_the_unhealthy_then_the_least_loaded_then_the_youngest() -> None:
    members = [member(0, load=5), member(1, State.UNHEALTHY), member(2, load=1), member(3, load=5), member(4, load=5)]
    assert stops(Desired(4, good_revision=1), members) == ["r1-1"]
    assert stops(Desired(3, good_revision=1), members) == ["r1-1", "r2-1"]
    assert stops(Desired(2, good_revision=1), members) == ["r1-1", "r2-1", "r4-1"]
    assert stops(Desired(0, good_revision=1), members) == ["r1-1", "r2-1", "r4-1", "r3-1", "r0-1"]


def test_a_cancelled_service_stops_all_and_is_settled_when_they_are_gone() -> None:
    desired = Desired(2, running=False)
    assert stops(desired, [member(0), member(1, State.PENDING)]) == ["r0-1", "r1-1"]
    ended = [replace(member(number, State.STOPPED, wanted=False), released=number == 0) for number in (0, 1)]
    assert not plan(desired, ended, NOW).settled
    assert plan(desired, [replace(one, released=True) for one in ended], NOW).settled


def test_suspects_are_left_alone() -> None:
    members = [member(0, suspect=True), member(1, State.FAILED, suspect=True, reason=Reason.NODE_LOST)]
    assert plan(Desired(2, good_revision=1), members, NOW).actions == ()
    assert stops(Desired(1, good_revision=1), [member(0, suspect=True), member(1)]) == ["r1-1"]


def test_what_was_seen_gone_or_asked_to_end_is_replaced_though_its_host_is_silent() -> None:
    """A host that never comes back must not keep a place for ever: stop its replica by hand, and another one comes."""
    died = member(0, State.FAILED, suspect=True, reason=Reason.PROCESS_EXITED)
    assert creates(Desired(1, good_revision=1), [died]) == []
    assert len(creates(Desired(1, good_revision=1), [replace(died, released=True)])) == 1
    asked = member(0, State.STOPPING, suspect=True, wanted=False)
    assert len(creates(Desired(1, good_revision=1), [asked])) == 1


def test_all_or_nothing_ends_all_at_the_first_failure_until_it_was_good_once() -> None:
    members = [member(0), member(1, State.FAILED, reason=Reason.OUT_OF_MEMORY)]
    found = plan(Desired(2, all_or_nothing=True), members, NOW).actions
    assert [(type(action), action.reason) for action in found if isinstance(action, CancelAll)] == [
        (CancelAll, Reason.OUT_OF_MEMORY)
    ]
    assert [one.ordinal for one in creates(Desired(2, all_or_nothing=True, good_revision=1), members)] == [1]


def test_an_update_goes_one_beside_the_others_by_default() -> None:
    desired = Desired(3, revision=2, good_revision=1)
    old = [member(number) for number in range(3)]
    first = plan(desired, old, NOW).actions
    assert [(one.ordinal, one.revision, one.replaces) for one in first if isinstance(one, Create)] == [(0, 2, "r0-1")]
    launching = member(0, State.STARTING, 2, created_at=NOW, replaces="r0-1")
    assert plan(desired, [*old, launching], NOW).actions == ()
    ready = replace(launching, state=State.READY, ready_at=NOW)
    then = plan(desired, [*old, ready], NOW).actions
    assert [action.replica_id for action in then if isinstance(action, Stop)] == ["r0-1"]
    assert [action.ordinal for action in then if isinstance(action, Create)] == [1]


def test_an_update_without_surge_takes_one_away_first() -> None:
    desired = Desired(3, revision=2, good_revision=1, update=Update(max_surge=0, max_unavailable=1))
    old = [member(number) for number in range(3)]
    found = plan(desired, old, NOW).actions
    assert [type(action) for action in found] == [Stop, Create]
    rest = [replace(old[0], wanted=False, state=State.STOPPING), *old[1:], member(0, State.PENDING, 2, replaces="r0-1")]
    assert plan(desired, rest, NOW).actions == ()


def test_room_that_an_update_makes_in_one_place_is_used_in_another_at_once() -> None:
    """A restart by hand took the room of an empty place; the update ends both who share a place."""
    desired = Desired(2, revision=2, good_revision=1, update=Update(max_surge=0, max_unavailable=2))
    shared = [member(1, State.UNHEALTHY, replica_id=name, state_since=NOW) for name in ("one", "two")]
    empty = member(0, State.FAILED, 2, reason=Reason.NODE_LOST, ready_at=2000.0)
    found = plan(desired, [empty, *shared], NOW)
    assert stops(desired, [empty, *shared], NOW) == ["one", "two"]
    assert [(one.ordinal, one.revision) for one in found.actions if isinstance(one, Create)] == [(1, 2), (0, 2)]


def test_an_update_that_fails_twice_in_a_place_goes_back() -> None:
    desired = Desired(2, revision=2, good_revision=1, rollout_since=NOW)
    old = [member(0), member(1)]
    failed = member(0, State.FAILED, 2, replaces="r0-1", state_since=NOW, reason=Reason.READINESS_TIMEOUT)
    assert plan(desired, [*old, failed], NOW).actions == ()
    assert [one.tries for one in creates(desired, [*old, failed], NOW + 10)] == [1]
    again = replace(failed, replica_id="again", replaces=failed.replica_id, tries=1)
    back = plan(desired, [*old, failed, again], NOW + 20).actions
    assert [type(action) for action in back] == [RollBack]
    # and then nothing is left to do, once what failed is gone
    after = plan(replace(desired, revision=1), [*old, failed, again], NOW + 20)
    assert (after.actions, after.settled, after.waits_for) == ((), False, "2 replicas to be gone")
    gone = [replace(one, released=True) for one in (failed, again)]
    assert plan(replace(desired, revision=1), [*old, *gone], NOW + 20).settled
    silent = replace(failed, suspect=True)
    assert plan(replace(desired, revision=1), [*old, silent, replace(again, released=True)], NOW + 20).settled


def test_an_update_goes_back_at_its_first_failure_where_none_is_repeated() -> None:
    failed = member(0, State.FAILED, 2, replaces="r0-1", state_since=NOW, reason=Reason.OUT_OF_MEMORY)
    desired = Desired(1, revision=2, good_revision=1, rollout_since=NOW, restart=Restart(tries=0))
    assert plan(desired, [member(0), failed], NOW).actions == (
        RollBack(1, "revision 2 failed once: r0-2 failed (out_of_memory)"),
    )


def test_an_update_without_progress_goes_back() -> None:
    desired = Desired(2, revision=2, good_revision=1, rollout_since=NOW)
    members = [member(0), member(1), member(0, State.PENDING, 2, replaces="r0-1")]
    waits = plan(desired, members, NOW + 100)
    assert waits.actions == ()
    assert waits.look_in_s == pytest.approx(500)
    assert [type(action) for action in plan(desired, members, NOW + 600).actions] == [RollBack]
    assert plan(replace(desired, paused=True), members, NOW + 600).actions == ()


def test_a_paused_update_goes_no_further_and_still_replaces_what_fails() -> None:
    desired = Desired(2, revision=2, good_revision=1, paused=True)
    members = [member(0, State.FAILED, reason=Reason.PROCESS_EXITED), member(1)]
    assert [(one.ordinal, one.revision) for one in creates(desired, members)] == [(0, 1)]


@pytest.mark.parametrize("good", [None, 1])
def test_a_paused_update_replaces_what_fails_by_its_own_revision_whatever_was_proven(good: int | None) -> None:
    desired = Desired(2, revision=2, good_revision=good, paused=True)
    members = [member(0, State.FAILED, reason=Reason.PROCESS_EXITED), member(1, revision=2)]
    assert [(one.ordinal, one.revision) for one in creates(desired, members)] == [(0, 1)]
    by_hand = replace(members[0], state=State.STOPPED, wanted=False, reason=None)
    assert [(one.ordinal, one.revision) for one in creates(desired, [by_hand, members[1]])] == [(0, 1)]


def test_a_paused_update_without_replicas_waits_and_leaves_new_ones_to_the_good_revision() -> None:
    desired = Desired(0, revision=3, good_revision=1, paused=True)
    waits = plan(desired, [], NOW)
    assert (waits.settled, waits.waits_for) == (False, "the update to revision 3 is paused")
    assert [one.revision for one in creates(replace(desired, count=2), [])] == [1, 1]
    assert plan(replace(desired, paused=False), [], NOW).settled


@pytest.mark.parametrize("paused", [False, True])
def test_an_update_that_ended_with_nothing_running_is_what_new_ones_are_made_of(paused: bool) -> None:
    desired = Desired(0, revision=3, good_revision=1, paused=paused, rolled_out=True)
    stopped = member(0, State.STOPPED, wanted=False, released=True)
    assert plan(desired, [stopped], NOW).settled
    assert [one.revision for one in creates(replace(desired, count=2), [stopped])] == [3, 3]


def test_a_paused_update_does_not_even_end_what_it_replaced() -> None:
    new = member(0, revision=2, replaces="r0-1")
    assert stops(Desired(1, revision=2, good_revision=1, paused=True), [member(0), new]) == []
    assert stops(Desired(1, revision=2, good_revision=1), [member(0), new]) == ["r0-1"]


def test_the_loss_of_a_node_is_no_fault_of_the_member() -> None:
    lost = member(0, State.FAILED, tries=3, ready_at=NOW - 10, state_since=NOW, reason=Reason.NODE_LOST)
    assert [one.tries for one in creates(Desired(1), [lost], NOW)] == [3]
    # but one that never became ready may be why
    never = replace(lost, ready_at=None)
    assert creates(Desired(1), [never], NOW) == []
    assert [one.tries for one in creates(Desired(1), [never], NOW + 80)] == [4]


def test_a_lifetime_that_is_over_before_readiness_is_a_failure() -> None:
    over = member(
        0, State.STOPPED, wanted=False, reason=Reason.LIFETIME_EXPIRED, state_since=NOW, tries=1, ready_at=None
    )
    assert creates(Desired(1), [over], NOW) == []
    assert [one.tries for one in creates(Desired(1), [over], NOW + 20)] == [2]
    assert [one.tries for one in creates(Desired(1), [replace(over, ready_at=NOW - 5)], NOW)] == [1]


def test_who_cannot_be_asked_is_not_stopped_for_an_update_before_that_is_ready() -> None:
    desired = Desired(1, revision=2)
    away = member(0, State.UNREACHABLE, ready_at=2000.0)
    assert stops(desired, [away]) == []
    assert stops(desired, [replace(away, state=State.UNHEALTHY)]) == ["r0-1"]
    assert stops(desired, [away, member(0, revision=2, replaces="r0-1")]) == ["r0-1"]


def test_until_the_new_revision_is_proven_the_good_one_keeps_its_places() -> None:
    desired = Desired(3, revision=2, good_revision=1)
    died = member(1, State.FAILED, reason=Reason.PROCESS_EXITED)
    members = [member(0), member(0, State.STARTING, 2, replaces="r0-1"), died, member(2)]
    assert [(one.ordinal, one.revision) for one in creates(desired, members)] == [(1, 1)]
    proven = [member(0), replace(members[1], state=State.READY, ready_at=NOW), died, member(2)]
    assert [(one.ordinal, one.revision) for one in creates(desired, proven)] == [(1, 2)]
    # what has to wait for its turn is the new one's at once
    again = replace(died, state_since=NOW, tries=2)
    assert [(one.ordinal, one.revision) for one in creates(desired, [*members[:2], again, member(2)])] == [(1, 2)]


def test_an_update_stops_no_ready_member_below_the_floor() -> None:
    desired = Desired(2, revision=2, good_revision=1)
    members = [member(0), member(0, revision=2, replaces="r0-1"), member(1, State.UNHEALTHY, state_since=NOW)]
    assert stops(desired, members, NOW) == ["r1-1"], "only one beside the new one is ready"
    assert stops(desired, [*members[:2], member(1)]) == ["r0-1"]


def test_all_that_fails_is_told_before_anything_is_ready_only_when_asked() -> None:
    """A failure of what was ready, and a lost node, end it as well; what a user took away does not."""
    desired = Desired(2, all_or_nothing=True)
    lost = member(0, State.FAILED, reason=Reason.NODE_LOST)
    assert [type(one) for one in plan(desired, [lost, member(1)], NOW).actions] == [CancelAll]
    away = member(0, State.STOPPED, wanted=False, reason=Reason.CANCELLED)
    assert [one.ordinal for one in creates(desired, [away, member(1)])] == [0]


def test_a_member_whose_lifetime_ends_gets_a_successor_and_goes_when_that_is_ready() -> None:
    desired = Desired(1, good_revision=1)
    old = member(0, lifetime_ends_at=NOW + 60, ready_at=NOW - 1000, created_at=NOW - 1010)
    early = plan(desired, [old], NOW - 5)
    assert early.actions == ()
    assert early.look_in_s == pytest.approx(5)
    made = creates(desired, [old], NOW)
    assert [(one.ordinal, one.replaces) for one in made] == [(0, "r0-1")]
    heir = member(0, State.STARTING, replica_id="heir", replaces="r0-1", created_at=NOW)
    assert plan(desired, [old, heir], NOW).actions == ()
    heir = replace(heir, state=State.READY, ready_at=NOW + 5, lifetime_ends_at=NOW + 1000)
    assert stops(desired, [old, heir], NOW + 5) == ["r0-1"]


def test_members_that_end_together_are_succeeded_one_after_the_other_in_time() -> None:
    desired = Desired(4, good_revision=1)
    end = NOW + 1000
    members = [member(number, lifetime_ends_at=end, ready_at=NOW - 2000, asked_at=NOW - 2000) for number in range(4)]
    found = plan(desired, members, NOW)
    # four in a row, 60 s each
    assert found.look_in_s == pytest.approx(1000 - 4 * 60)
    assert [one.ordinal for one in creates(desired, members, end - 240)] == [0]
    two = replace(desired, update=Update(max_surge=2))
    assert [one.ordinal for one in creates(two, members, end - 120)] == [0, 1]
    none = replace(desired, update=Update(max_surge=0, max_unavailable=1))
    assert creates(none, members, end - 1) == [], "without surge there is no room for a successor"


def test_no_successor_of_a_successor_at_once_when_the_lead_is_longer_than_the_life() -> None:
    desired = Desired(1, good_revision=1, successor_lead_s=5000)
    young = member(0, lifetime_ends_at=NOW + 100, ready_at=NOW, state_since=NOW, created_at=NOW)
    assert plan(desired, [young], NOW).look_in_s == pytest.approx(50)
    assert len(creates(desired, [young], NOW + 50)) == 1


def test_the_words() -> None:
    assert replica_word(State.READY) is Status.RUNNING
    assert replica_word(State.STOPPED, Reason.LIFETIME_EXPIRED) is Status.COMPLETED
    two = Desired(2)
    cases = [
        (two, [], Status.PENDING, Overall.STARTING),
        (two, [member(0, State.STARTING)], Status.CONFIGURING, Overall.STARTING),
        (two, [member(0)], Status.RUNNING, Overall.PARTIAL),
        (two, [member(0), member(1, State.UNHEALTHY)], Status.RUNNING, Overall.DEGRADED),
        (two, [member(0), member(1, State.UNHEALTHY, reason=Reason.PREEMPTED)], Status.RUNNING, Overall.PARTIAL),
        (Desired(1), [member(0, State.UNHEALTHY)], Status.RUNNING, Overall.FAILED),
        (Desired(1), [member(0, State.UNHEALTHY, reason=Reason.PREEMPTED)], Status.RUNNING, Overall.STARTING),
        (two, [member(0), member(1, State.FAILED, reason=Reason.OUT_OF_MEMORY)], Status.RUNNING, Overall.DEGRADED),
        (two, [member(0), member(1)], Status.RUNNING, Overall.HEALTHY),
        (
            Desired(1),
            [member(0, State.FAILED, tries=5, reason=Reason.OUT_OF_MEMORY)],
            Status.FAILED,
            Overall.FAILED,
        ),
        (Desired(0), [], Status.PENDING, Overall.STOPPED),
        (Desired(1, running=False), [member(0)], Status.CANCELLED, Overall.STOPPED),
        (Desired(1, running=False, reason=Reason.OUT_OF_MEMORY), [], Status.FAILED, Overall.STOPPED),
    ]
    for desired, members, status, overall in cases:
        assert (service_status(desired, members), overall_status(desired, members)) == (status, overall)
