"""A service is changed, fails to change, is paused and outlives its replicas while requests come in: none fails.

A whole stack, real engines, requests through the gateway. What was ready and live is read from the history afterwards,
so that no moment is missed.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.embedded import wait_until
from tests.support.service_load import CHAT, assert_within, last_event, under_load
from tests.support.stacks import Stack, stack, wait_gone

pytestmark = pytest.mark.timeout(240)
#: Answers take a while, so that there is always something in flight where something is stopped.
PACE = {"tokens_per_s": 80}
RESTART = {"backoff_s": 0.5, "backoff_max_s": 1, "stable_s": 1}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(tmp_path_factory.mktemp("su") / "state") as made:
        made.up()
        yield made
        made.must("down")
        assert not made.living()


def create(up: Stack, name: str, count: int, **body: Any) -> str:
    """A service that is ready and answers; its id."""
    config = {"engine_config": {"mock": PACE}, **body.pop("config", {})}
    asked = {"recipe_name": "inference/mock", "name": name, "model_name": name, "replicas": count, "pool": "local"}
    made = up.call("POST", "/api/v1/services", {**asked, "restart": RESTART, "config": config, **body}, 202)
    await_task(up, made["task_id"])
    wait_until(lambda: _answers(up, name), 20, "the first answer")
    return str(made["service_id"])


def _answers(up: Stack, model: str) -> bool:
    body = {**CHAT, "model": model}
    return bool(up.call("POST", "/v1/chat/completions", body, expect=(200, 404, 503)).get("choices"))


def await_task(up: Stack, task_id: str, state: str = "succeeded", limit_s: float = 90) -> dict[str, Any]:
    def ended() -> dict[str, Any] | None:
        task: dict[str, Any] = up.call("GET", f"/api/v1/tasks/{task_id}")
        return task if task["state"] not in ("queued", "running") else None

    wait_until(lambda: ended() is not None, limit_s, f"the end of task {task_id}\n{up.last_words()}")
    task = ended()
    assert task is not None
    assert task["state"] == state, task
    return task


def get(up: Stack, service: str) -> dict[str, Any]:
    return dict(up.call("GET", f"/api/v1/services/{service}"))


def change(up: Stack, service: str, mock: dict[str, Any], **body: Any) -> str:
    """A new revision; the id of its task."""
    readiness = body.pop("readiness", {})
    config = {"engine_config": {"mock": {**PACE, **mock}}, "readiness": readiness}
    return str(up.call("PATCH", f"/api/v1/services/{service}", {"config": config, **body}, 202)["task_id"])


def end(up: Stack, *services: str) -> None:
    for service in services:
        up.call("POST", f"/api/v1/services/{service}/status", {"status": "cancelled"})
    for service in services:
        wait_until(lambda service=service: get(up, service)["ended_at"] is not None, 60, f"the end of {service}")


@pytest.mark.parametrize("count, surge, unavailable", [(1, 1, 0), (3, 1, 0), (3, 0, 1), (3, 2, 1)])
def test_an_update_fails_no_request(up: Stack, count: int, surge: int, unavailable: int) -> None:
    name = f"update-{count}-{surge}-{unavailable}"
    limits = {"max_surge": surge, "max_unavailable": unavailable}
    service = create(up, name, count, update=limits)
    old = {one["replica_id"] for one in get(up, service)["replicas"]}
    began = last_event(up, service)
    with under_load(up, service, name) as load:
        wait_until(lambda: set(load.answered) >= old, 20, "answers of all")
        await_task(up, change(up, service, {"startup_s": 0.5}))
        new = {one["replica_id"] for one in get(up, service)["replicas"]}
        wait_until(lambda: set(load.answered) >= new, 20, "answers of all the new ones")
    assert load.wrong == []
    assert load.count > 50
    assert len(new) == count
    assert not new & old
    seen = assert_within(up, service, least=count - unavailable, most=count + surge, from_id=began)
    assert max(live for _, live in seen) > count or surge == 0
    shown = get(up, service)
    assert (shown["revision"], shown["good_revision"], shown["overall_status"]) == (2, 2, "healthy")
    end(up, service)


def test_an_update_goes_on_whoever_is_killed_meanwhile(up: Stack) -> None:
    """Those that reconcile, launch and stop die one after the other: each step is taken once, and no request fails."""
    service = create(up, "killed", 3)
    began = last_event(up, service)
    with under_load(up, service, "killed") as load:
        # long enough that it still goes on when the last of them dies
        task_id = change(up, service, {"startup_s": 5})
        for role in ("agent", "worker", "worker-control"):
            before = last_event(up, service)
            assert up.call("GET", f"/api/v1/tasks/{task_id}")["state"] == "running"
            pid = up.pid(role)
            os.kill(pid, signal.SIGKILL)
            wait_gone(pid)
            wait_until(lambda before=before: last_event(up, service) != before, 60, f"a step after the end of {role}")
        await_task(up, task_id, limit_s=120)
    assert load.wrong == []
    assert_within(up, service, least=3, most=4, from_id=began)
    assert _revisions(up, service) == [2, 2, 2]
    rows = up.call("GET", f"/api/v1/replicas?label=service_id={service}&limit=200")["replicas"]
    assert len(rows) == 6, "each was replaced once"
    end(up, service)


def test_scaling_fails_no_request(up: Stack) -> None:
    """Who goes is drained, and it is never one of those that stay."""
    service = create(up, "scaled", 1)
    began = last_event(up, service)
    with under_load(up, service, "scaled") as load:
        for count in (4, 2, 3, 1):
            asked = up.call("POST", f"/api/v1/services/{service}/scale", {"replicas": count}, 202)
            await_task(up, asked["task_id"])
            replicas = {one["replica_id"] for one in get(up, service)["replicas"]}
            assert len(replicas) == count
            wait_until(lambda replicas=replicas: set(load.answered) >= replicas, 20, "answers of all")
    assert load.wrong == []
    seen = assert_within(up, service, least=1, most=4, from_id=began)
    assert [live for _, live in seen][-1] == 1
    assert len(up.call("GET", f"/api/v1/replicas?label=service_id={service}&limit=200")["replicas"]) == 5
    end(up, service)


BAD = [
    pytest.param({"startup_s": 600}, "readiness_timeout", id="never ready"),
    pytest.param({"exit_on_start": 3}, "process_exited", id="exits"),
    pytest.param({"error_rate": 1.0}, "diagnostics_failed", id="fails its diagnostics"),
]


@pytest.mark.parametrize("mock, reason", BAD)
def test_an_update_that_fails_goes_back_and_nobody_notices(up: Stack, mock: dict[str, Any], reason: str) -> None:
    name = f"back-{reason.replace('_', '-')}"
    service = create(up, name, 2)
    old = {one["replica_id"] for one in get(up, service)["replicas"]}
    began = last_event(up, service)
    with under_load(up, service, name) as load:
        task = await_task(up, change(up, service, mock, readiness={"timeout_s": 3}), "failed")
        wait_until(lambda: get(up, service)["plan"]["settled"], 60, "the way back")
    assert load.wrong == []
    assert load.count > 50
    assert set(load.answered) == old, "what is not good gets no request"
    assert task["reason"] == reason
    assert_within(up, service, least=2, most=3, from_id=began)
    shown = get(up, service)
    assert {one["replica_id"] for one in shown["replicas"]} == old, "no healthy replica was touched"
    assert (shown["revision"], shown["good_revision"], shown["overall_status"]) == (1, 1, "healthy")
    assert "revision 2" in shown["message"]
    rows = up.call("GET", f"/api/v1/replicas?label=service_id={service}&limit=200")["replicas"]
    assert sorted(one["reason"] for one in rows if one["status"] == "failed") == [reason, reason]
    end(up, service)


def test_a_paused_update_stands_still_and_goes_on(up: Stack) -> None:
    service = create(up, "paused", 3)
    began = last_event(up, service)
    with under_load(up, service, "paused") as load:
        task_id = change(up, service, {"startup_s": 1})
        wait_until(lambda: _revisions(up, service).count(2) == 1, 30, "the first replica of the new revision")
        up.call("POST", f"/api/v1/services/{service}/pause", {})
        wait_until(lambda: not _moving(up, service), 30, "what was begun")
        held = sorted(one["replica_id"] for one in get(up, service)["replicas"])
        assert "paused" in get(up, service)["plan"]["waits_for"]
        # a member goes meanwhile, one that is alone in its place: one of its own revision comes
        replicas = get(up, service)["replicas"]
        begun = {one["ordinal"] for one in replicas if one["revision"] == 2}
        victim = next(one for one in replicas if one["ordinal"] not in begun)
        up.call("POST", f"/api/v1/replicas/{victim['replica_id']}/stop", {}, 202)
        wait_until(lambda: _replaced(up, service, victim), 30, "its replacement")
        [heir] = [one for one in get(up, service)["replicas"] if one["replica_id"] not in held]
        assert (heir["revision"], heir["ordinal"], heir["replaces"]) == (1, victim["ordinal"], victim["replica_id"])
        up.call("POST", f"/api/v1/services/{service}/resume", {})
        await_task(up, task_id)
    assert load.wrong == []
    assert load.count > 50
    # the user took one away; the update itself none
    assert_within(up, service, least=2, most=4, from_id=began)
    assert _revisions(up, service) == [2, 2, 2]
    end(up, service)


def _revisions(up: Stack, service: str) -> list[int]:
    return [one["revision"] for one in get(up, service)["replicas"] if one["state"] == "ready"]


def _moving(up: Stack, service: str) -> bool:
    return any(one["state"] != "ready" for one in get(up, service)["replicas"])


def _replaced(up: Stack, service: str, victim: dict[str, Any]) -> bool:
    replicas = get(up, service)["replicas"]
    return any(one["replaces"] == victim["replica_id"] and one["state"] == "ready" for one in replicas)


def test_successors_are_ready_before_the_end(up: Stack) -> None:
    """Two lifetimes end together, so their successors come one after the other, each before its time."""
    config = {"resources": {"time_limit": 0.4}, "gateway": {"drain_s": 5}}
    service = create(up, "mortal", 2, config=config, successor_lead_s=9)
    first = {one["replica_id"] for one in get(up, service)["replicas"]}
    began = last_event(up, service)
    with under_load(up, service, "mortal") as load:
        wait_until(lambda: len(set(load.answered) - first) >= 4, 100, "the successors of the successors")
    assert load.wrong == []
    assert_within(up, service, least=2, most=3, from_id=began)
    rows = up.call("GET", f"/api/v1/replicas?label=service_id={service}&limit=200")["replicas"]
    assert all(one["reason"] is None for one in rows), "nobody's time ran out"
    end(up, service)
