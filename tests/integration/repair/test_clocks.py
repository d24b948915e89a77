"""Each deadline has a clock of its own: being unreachable for a while neither stops nor restarts one."""

from __future__ import annotations

from tests.support.crew import Crew


def test_unreachable_does_not_restart_readiness(crew: Crew) -> None:
    options = {"ready_delay_s": 60, "unreachable_after_s": 0.5, "unreachable_for_s": 1.5}
    replica = crew.create(pool="mock", options=options, timeouts={"readiness_timeout_s": 8})
    first = crew.await_state(replica, "waiting_for_ready").deadline_at
    assert crew.await_state(replica, "unreachable").deadline_at == first
    assert crew.await_state(replica, "waiting_for_ready").deadline_at == first
    row = crew.await_state(replica, "failed")
    assert row.reason == "readiness_timeout"
    failed = next(event.at for event in crew.events(replica) if event.to_state == "failed")
    assert failed >= first
    assert crew.tasks(replica)[0].state == "failed"
    crew.await_released(replica)


def test_a_launch_that_cannot_be_asked_about_ends_at_its_deadline(crew: Crew) -> None:
    """Nobody knows whether it is dead; that it was not ready in time is known."""
    options = {"ready_delay_s": 60, "unreachable_after_s": 0.5, "unreachable_for_s": 8}
    replica = crew.create(pool="mock", options=options, timeouts={"readiness_timeout_s": 2})
    row = crew.await_state(replica, "failed")
    assert row.reason == "readiness_timeout"
    assert crew.tasks(replica)[0].state == "failed"
    assert row.released_at is None, "not seen gone"
    crew.await_released(replica)


def test_what_was_ready_has_no_readiness_deadline_when_unreachable(crew: Crew) -> None:
    options = {"unreachable_after_s": 0.5, "unreachable_for_s": 3}
    replica = crew.create(pool="mock", options=options, timeouts={"readiness_timeout_s": 1})
    crew.await_ready(replica)
    assert crew.await_state(replica, "unreachable").deadline_at is None
    crew.await_ready(replica)
    crew.end(replica)
