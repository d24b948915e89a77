"""What a replica goes through from the request to the end, on real parts: states, events, leases, tasks."""

from __future__ import annotations

import json
import urllib.request

import pytest

from app.engines.tiny_model import write_tiny_gguf
from tests.support.crew import Crew

LAUNCHED = ["pending", "scheduling", "preparing", "starting", "waiting_for_ready", "ready"]
ENDED = ["stopping", "stopped"]


def test_mock_backend_runs_nothing_and_goes_the_whole_way(crew: Crew) -> None:
    replica = crew.create(pool="mock")
    row = crew.await_ready(replica)
    assert (row.base_url, row.port, row.node) == (None, None, None)
    assert crew.path(replica) == LAUNCHED
    assert list(crew.leases(replica)) == ["slot"]
    assert row.diagnostics["passed"] is True
    [create] = crew.tasks(replica)
    assert (create.kind, create.state, create.phase) == ("create", "succeeded", "done")
    stop = crew.stop_replica(replica)
    assert crew.await_task(stop.task_id).state == "succeeded"
    row = crew.await_released(replica)
    assert (row.state, row.reason) == ("stopped", None)
    assert crew.path(replica) == LAUNCHED + ENDED


def test_mock_engine_is_a_server_that_answers_and_is_put_away(crew: Crew) -> None:
    replica = crew.create()
    row = crew.await_ready(replica)
    assert row.base_url == f"http://127.0.0.1:{row.port}"
    assert crew.settings.ports[0] <= row.port <= crew.settings.ports[1]
    assert crew.leases(replica) == {"port": [row.port], "slot": crew.leases(replica)["slot"]}
    assert [check["name"] for check in row.diagnostics["checks"]] != []
    assert _answers(row.base_url + "/health") == 200
    assert crew.starts(replica) == 1
    assert len(crew.engines(replica)) == 1
    crew.end(replica)
    assert crew.engines(replica) == []
    assert crew.path(replica) == LAUNCHED + ENDED
    attempt = crew.attempt(replica)
    assert attempt.released_at is not None
    assert attempt.signal in (15, 9) or attempt.exit_code == 0


def test_llama_cpp_serves_a_tiny_model(crew: Crew) -> None:
    write_tiny_gguf(crew.settings.models_dir / "tiny.gguf")
    replica = crew.create("tiny", mode="replica")
    row = crew.await_ready(replica, timeout_s=60)
    key = crew.ctx.engine_key
    body = {"model": "tiny", "prompt": "the", "max_tokens": 4}
    assert _answers(row.base_url + "/v1/completions", body, key) == 200
    assert _answers(row.base_url + "/v1/completions", body, "wrong") == 401
    assert row.diagnostics["passed"] is True
    crew.end(replica)


def test_every_event_names_its_cause_actor_and_task(crew: Crew) -> None:
    replica = crew.create(pool="mock")
    crew.await_ready(replica)
    crew.end(replica)
    for event in crew.events(replica, "transition"):
        assert event.cause
        assert event.actor in ("tester", "hostler")
        assert event.task_id, f"{event.to_state} has no task"
        assert event.attempt == 1
    assert [event.kind for event in crew.events(replica) if event.kind != "transition"].count("released") == 1


def test_run_diagnostics_false_runs_none(crew: Crew) -> None:
    replica = crew.create(run_diagnostics=False, mock={"error_rate": 1})
    assert crew.await_ready(replica).diagnostics is None
    crew.end(replica)


@pytest.mark.parametrize("knobs", [{"error_rate": 1}, {"startup_s": 0.8, "error_rate": 1}], ids=["quick", "slow"])
def test_failed_diagnostics_fail_the_create(crew: Crew, knobs: dict[str, float]) -> None:
    """``quick`` is found out by the worker, ``slow`` by the agent."""
    replica = crew.create(mock=knobs)
    row = crew.await_state(replica, "failed", "ready")
    assert (row.state, row.reason) == ("failed", "diagnostics_failed"), crew.story(replica)
    assert row.diagnostics["passed"] is False
    crew.await_released(replica)
    [task] = crew.tasks(replica)
    assert (task.state, task.reason) == ("failed", "diagnostics_failed")
    assert crew.engines(replica) == []


def test_a_launch_that_dies_says_so_at_once_with_code_and_log(crew: Crew) -> None:
    """Trap 5: reason, exit code and the log's tail, and the task ends with them."""
    replica = crew.create(mock={"exit_on_start": 7, "log_lines": ["no such device"]})
    row = crew.await_state(replica, "failed")
    assert row.reason == "process_exited"
    assert "7" in row.message
    attempt = crew.attempt(replica)
    assert attempt.exit_code == 7
    assert "no such device" in attempt.log_tail
    [task] = crew.tasks(replica)
    assert task.state == "failed"
    assert "no such device" in task.result["log_tail"]
    crew.await_released(replica)


def test_a_death_during_a_slow_start_is_seen_by_the_watch(crew: Crew) -> None:
    replica = crew.create(mock={"startup_s": 60, "exit_after_s": 1, "exit_code": 9, "log_lines": ["loading"]})
    crew.await_state(replica, "waiting_for_ready")
    row = crew.await_state(replica, "failed", timeout_s=10)
    assert row.reason == "process_exited"
    assert crew.attempt(replica).exit_code == 9
    assert "loading" in crew.attempt(replica).log_tail
    crew.await_released(replica)


def test_a_refused_launch_fails_and_returns_what_it_held(crew: Crew) -> None:
    replica = crew.create(pool="mock", options={"fail_launch": "always"})
    row = crew.await_released(replica)
    assert (row.state, row.reason) == ("failed", "launch_failed")


def test_values_encrypted_under_another_key_are_an_invalid_config(crew: Crew) -> None:
    crew.change("UPDATE pools SET state = 'draining' WHERE name = 'drained'")
    replica = crew.create(pool="drained", environment={"HF_TOKEN": "x"})
    crew.change("UPDATE replicas SET environment = 'garbage' WHERE id = :id", id=replica)
    crew.change("UPDATE pools SET state = 'active' WHERE name = 'drained'")
    row = crew.await_released(replica)
    assert (row.state, row.reason) == ("failed", "invalid_config"), crew.story(replica)
    assert "key" in row.message


def _answers(url: str, body: dict[str, object] | None = None, key: str = "") -> int:
    request = urllib.request.Request(url, data=json.dumps(body).encode() if body else None)
    request.add_header("Content-Type", "application/json")
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
