"""Healthy, failing, hung, silent and saturated: what the watch makes of it, and what a health task answers."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request

import pytest

from app.errors import Conflict
from app.usecases.checks import request_diagnose, request_health
from tests.support.crew import Crew


def test_a_health_task_looks_now_and_says_what_it_saw(crew: Crew) -> None:
    replica = crew.create()
    row = crew.await_ready(replica)
    task = crew.await_task(request_health(crew.ctx, crew.actor, replica).task_id)
    assert task.state == "succeeded"
    assert (task.result["healthy"], task.result["base_url"]) == (True, row.base_url)
    assert [(check["name"], check["ok"]) for check in task.result["checks"]] == [("process", True), ("answers", True)]
    crew.end(replica)
    with pytest.raises(Conflict):
        request_health(crew.ctx, crew.actor, replica)


def test_a_health_task_of_what_fails_asks_again_until_its_time_is_over(crew: Crew) -> None:
    replica = crew.create(mock={"health_fails_after_s": 0.5})
    crew.await_state(replica, "unhealthy")
    asked = request_health(crew.ctx, crew.actor, replica, timeout_s=2, poll_interval_s=0.5)
    task = crew.await_task(asked.task_id)
    assert task.result["healthy"] is False
    assert task.claims > 1
    assert "500" in task.message
    crew.end(replica)


def test_failing_health_is_unhealthy_after_the_threshold_and_no_sooner(crew: Crew) -> None:
    replica = crew.create(mock={"health_fails_after_s": 0.5})
    crew.await_ready(replica)
    row = crew.await_state(replica, "unhealthy")
    assert row.reason == "health_failed"
    assert row.check_failures >= crew.settings.unhealthy_after
    assert row.last_health["healthy"] is False
    assert crew.engines(replica) != [], "unhealthy is not dead"
    ready, unhealthy = (next(e.at for e in crew.events(replica) if e.to_state == to) for to in ("ready", "unhealthy"))
    assert (unhealthy - ready).total_seconds() >= crew.settings.probe_interval_s * 2
    crew.end(replica)


def test_hung_health_is_unhealthy_and_holds_up_nobody_else(crew: Crew) -> None:
    hung = crew.create(mock={"health_hangs_after_s": 0.5})
    other = crew.create(mock={"health_fails_after_s": 2})
    crew.await_ready(hung)
    crew.await_ready(other)
    crew.await_state(hung, "unhealthy", timeout_s=40)
    crew.await_state(other, "unhealthy", timeout_s=40)
    crew.end(hung, other)


def test_flapping_health_comes_back(crew: Crew) -> None:
    replica = crew.create(pool="mock", options={"flap_period_s": 2.5})
    crew.await_ready(replica)
    crew.await_state(replica, "unhealthy")
    crew.await_ready(replica)
    assert crew.path(replica)[-3:] == ["ready", "unhealthy", "ready"]
    assert crew.replica(replica).check_failures == 0
    crew.end(replica)


def test_a_backend_that_cannot_be_asked_proves_no_death(crew: Crew) -> None:
    replica = crew.create(pool="mock", options={"unreachable_after_s": 0.5, "unreachable_for_s": 1.5})
    crew.await_ready(replica)
    row = crew.await_state(replica, "unreachable")
    assert row.released_at is None
    assert list(crew.leases(replica)) == ["slot"]
    crew.await_ready(replica)
    crew.end(replica)


def test_a_launch_that_cannot_be_asked_about_goes_on_when_it_can(crew: Crew) -> None:
    """It was never ready, so coming back is no recovery: the create succeeds only now."""
    options = {"ready_delay_s": 1.5, "unreachable_after_s": 0.1, "unreachable_for_s": 1}
    replica = crew.create(pool="mock", options=options)
    crew.await_state(replica, "unreachable")
    assert crew.tasks(replica)[0].state == "running"
    crew.await_ready(replica)
    assert crew.tasks(replica)[0].state == "succeeded"
    assert crew.path(replica)[-3:] == ["unreachable", "waiting_for_ready", "ready"]
    assert crew.replica(replica).diagnostics["passed"]
    crew.end(replica)


def test_a_death_is_seen_at_once_and_told_with_its_signal(crew: Crew) -> None:
    import os
    import signal
    import time

    replica = crew.create()
    crew.await_ready(replica)
    # the watch learns of a new engine with its next look
    crew.await_that(lambda: crew.replica(replica).last_health, "the first look of the watch")
    [engine] = crew.engines(replica)
    begun = time.monotonic()
    os.kill(engine, signal.SIGKILL)
    row = crew.await_state(replica, "failed")
    assert time.monotonic() - begun < 2, crew.story(replica)
    assert row.reason in ("process_exited", "out_of_memory")
    assert crew.attempt(replica).signal == 9
    crew.await_released(replica)


def test_a_saturated_engine_that_works_is_left_alone(crew: Crew) -> None:
    """Trap 7: one slot, slow answers, more callers than it can serve: it answers its probes, so it stays ready."""
    replica = crew.create(mock={"slots": 1, "latency_ms": 150})
    url = crew.await_ready(replica).base_url + "/v1/completions"
    before = len(crew.events(replica))
    stop, answered = threading.Event(), []

    def call() -> None:
        request = urllib.request.Request(url, data=b'{"model": "m", "prompt": "x", "max_tokens": 1}')
        request.add_header("Content-Type", "application/json")
        request.add_header("Authorization", f"Bearer {crew.ctx.engine_key}")
        while not stop.is_set():
            with urllib.request.urlopen(request, timeout=30) as answer:
                answered.append(answer.status)

    callers = [threading.Thread(target=call) for _ in range(8)]
    for caller in callers:
        caller.start()
    # long enough for unhealthy_after probes to fail, if one did
    crew.await_that(lambda: len(answered) >= 20, "twenty answers through one slot")
    stop.set()
    for caller in callers:
        caller.join()
    assert set(answered) == {200}
    assert crew.replica(replica).state == "ready"
    assert len(crew.events(replica)) == before, crew.story(replica)
    assert crew.starts(replica) == 1
    crew.end(replica)


def test_diagnose_runs_again_and_tells_of_an_engine_that_only_seems_well(crew: Crew) -> None:
    """Health answers, completions do not."""
    replica = crew.create(run_diagnostics=False)
    crew.await_ready(replica)
    first = crew.await_task(request_diagnose(crew.ctx, crew.actor, replica).task_id)
    assert first.state == "succeeded", first.message
    assert crew.replica(replica).diagnostics["passed"] is True
    crew.end(replica)
    broken = crew.create(mock={"error_rate": 1}, run_diagnostics=False)
    crew.await_ready(broken)
    second = crew.await_task(request_diagnose(crew.ctx, crew.actor, broken).task_id)
    assert (second.state, second.reason) == ("failed", "diagnostics_failed")
    assert crew.replica(broken).diagnostics["passed"] is False
    assert crew.replica(broken).state == "ready"
    crew.end(broken)
    with pytest.raises(Conflict):
        request_diagnose(crew.ctx, crew.actor, broken)
