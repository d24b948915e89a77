"""Create, restart and wait: what is sent, what is shown on the way, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.integration.cli.conftest import KEY, Run
from tests.integration.cli.stub import Answer, Stub, problem

ACCEPTED = Answer(202, {"replica_id": "r1", "task_id": "t1", "status": "pending"})
READY = {"replica_id": "r1", "status": "ready", "base_url": "http://127.0.0.1:20000"}
FAILED = {"replica_id": "r1", "status": "failed", "reason": "process_exited", "message": "exit code 3"}


def event(number: int, state: str, **more: object) -> dict[str, object]:
    at = f"2026-01-01T00:00:0{number}Z"
    return {
        "id": number,
        "at": at,
        "kind": "transition",
        "replica_id": "r1",
        "task_id": "t1",
        "to_state": state,
        **more,
    }


def task(state: str, **more: object) -> Answer:
    return Answer(body={"id": "t1", "state": state, "phase": "launching", "replica_id": "r1", **more})


@pytest.fixture
def launching(stub: Stub) -> Stub:
    stub.on("POST", "/api/v1/replicas", ACCEPTED)
    stub.on(
        "GET",
        "/api/v1/replicas/r1/events",
        Answer(body={"events": [event(1, "pending")], "next_cursor": None}),
        Answer(body={"events": [event(1, "pending"), event(2, "starting")], "next_cursor": None}),
    )
    return stub


def test_create_sends_what_the_flags_say(launching: Stub, run: Run) -> None:
    run(
        *("replica", "create", "--model-name", "m", "--pool", "p", "--env", "A=b=c", "--label", "team=x"),
        *("--config", "n_ctx=512", "--config", "mock.delay_s=0.5", "--config", '{"mock": {"fail": true}}'),
        *("--priority", "p0", "--readiness-timeout", "5m", "--lifetime", "1h", "--no-diagnostics"),
    )
    assert launching.asked[0].body == {
        "server_mode": "replica",
        "model_name": "m",
        "pool": "p",
        "environment": {"A": "b=c"},
        "labels": {"team": "x"},
        "replica_config": {"n_ctx": 512, "mock": {"delay_s": 0.5, "fail": True}},
        "timeouts": {"readiness_timeout_s": 300},
        "job": {"job_priority": "p0", "job_timeout_s": 3600},
        "run_diagnostics": False,
        "wait_for_ready": False,
    }


@pytest.mark.parametrize(
    "text", ['{"model_name": "f", "job": {"job_priority": "p3"}}', "model_name: f\njob: {job_priority: p3}"]
)
def test_a_file_is_the_request_and_flags_go_over_it(launching: Stub, run: Run, tmp_path: Path, text: str) -> None:
    file = tmp_path / "request"
    file.write_text(text)
    run("replica", "create", "-f", str(file), "--lifetime", "60")
    run("replica", "create", "-f", "-", "--model-name", "flag", stdin=text)
    assert launching.asked[0].body["model_name"] == "f"
    assert launching.asked[0].body["job"] == {"job_priority": "p3", "job_timeout_s": 60}
    assert launching.asked[1].body["model_name"] == "flag"


def test_a_secret_of_the_engine_need_not_stand_in_the_arguments(
    launching: Stub, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret=1")
    run("replica", "create", "--model-name", "m", "--env", "HF_TOKEN", "--env", "A=1")
    assert launching.asked[0].body["environment"] == {"HF_TOKEN": "secret=1", "A": "1"}


def test_no_proxy_sees_what_goes_to_this_host(launching: Stub, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert run("replica", "create", "--model-name", "m").exit_code == 0


def test_create_without_waiting_returns_at_once_and_says_how_to_follow(launching: Stub, run: Run) -> None:
    result = run("replica", "create", "--model-name", "m")
    assert result.stdout == "r1\n"
    assert "hostler replica wait r1" in result.stderr
    assert launching.asked[0].headers["prefer"] == "wait=0"


def test_create_json_is_the_body_of_the_api(launching: Stub, run: Run) -> None:
    assert json.loads(run("replica", "create", "--model-name", "m", "-o", "json").stdout) == ACCEPTED.body


def test_a_file_that_wants_to_wait_waits_in_the_command(launching: Stub, run: Run) -> None:
    launching.on("GET", "/api/v1/tasks/t1", task("succeeded"))
    launching.on("GET", "/api/v1/replicas/r1", Answer(body=READY))
    result = run("replica", "create", "-f", "-", stdin='{"model_name": "m", "wait_for_ready": true}')
    assert launching.asked[0].body["wait_for_ready"] is False
    assert result.stdout == "r1 ready http://127.0.0.1:20000\n"


def test_waiting_shows_each_state_once(launching: Stub, run: Run) -> None:
    launching.on("GET", "/api/v1/tasks/t1", task("running"), task("running"), task("succeeded"))
    launching.on("GET", "/api/v1/replicas/r1", Answer(body=READY))
    result = run("replica", "create", "--model-name", "m", "--wait", "-o", "json")
    assert json.loads(result.stdout) == READY
    steps = [line.split(" (after")[0] for line in result.stderr.splitlines()]
    assert steps == ["replica r1: pending", "replica r1: starting"]


def test_a_failed_launch_ends_the_wait_with_reason_and_log(launching: Stub, run: Run) -> None:
    launching.on("GET", "/api/v1/tasks/t1", task("failed", reason="process_exited"))
    launching.on("GET", "/api/v1/replicas/r1", Answer(body=FAILED))
    launching.on("GET", "/api/v1/replicas/r1/logs", Answer(body="loading\n\x1b[31mno such file\x1b[0m\n"))
    result = run("replica", "create", "--model-name", "m", "--wait")
    assert result.exit_code == 6
    assert result.stdout == ""
    assert "process_exited: exit code 3" in result.stderr
    assert "  | no such file\n" in result.stderr
    assert "hostler replica logs r1" in result.stderr


def test_a_wait_that_runs_out_is_exit_7_and_the_launch_goes_on(launching: Stub, run: Run) -> None:
    launching.on("GET", "/api/v1/tasks/t1", task("running"))
    began = time.monotonic()
    result = run("replica", "create", "--model-name", "m", "--wait", "--timeout", "0.5")
    assert result.exit_code == 7
    assert 0.4 < time.monotonic() - began < 3
    assert "hostler replica explain r1" in result.stderr
    # a server that does not wait is not asked in a tight loop
    assert len(launching.calls("GET", "/api/v1/tasks/t1")) < 8


def test_a_restarted_server_does_not_end_a_wait(launching: Stub, run: Run) -> None:
    away = Answer(cut=True)
    launching.on("GET", "/api/v1/tasks/t1", task("running"), away, away, away, task("succeeded"))
    launching.on("GET", "/api/v1/replicas/r1", Answer(body=READY))
    assert run("replica", "create", "--model-name", "m", "--wait").exit_code == 0


def test_dry_run_shows_the_plan(stub: Stub, run: Run) -> None:
    plan = {"dry_run": True, "argv": ["llama", "--port", "20000"], "environment": {"KEY": "***"}}
    stub.on("POST", "/api/v1/replicas", Answer(200, plan))
    result = run("replica", "create", "--model-name", "m", "--dry-run", "-o", "json")
    assert json.loads(result.stdout) == plan
    assert stub.asked[0].body["dry_run"] is True


def test_dry_run_prints_a_script_as_lines(stub: Stub, run: Run) -> None:
    script = "#!/bin/bash\n#SBATCH --nodes=1\n\ncd -- /a || exit 1\x1b[2J\n"
    plan = {"dry_run": True, "argv": ["llama"], "script": script}
    stub.on("POST", "/api/v1/replicas", Answer(200, plan), Answer(200, plan))
    lines = run("replica", "create", "--model-name", "m", "--dry-run").stdout.splitlines()
    assert lines[lines.index("script") + 1 :][:5] == ["", "#!/bin/bash", "#SBATCH --nodes=1", "", "cd -- /a || exit 1"]
    raw = run("replica", "create", "--model-name", "m", "--dry-run", "-o", "json")
    assert json.loads(raw.stdout) == plan


def test_restart_shows_only_what_is_new(stub: Stub, run: Run) -> None:
    stub.on("POST", "/api/v1/replicas/r1/restart", Answer(202, {"replica_id": "r1", "task_id": "t1"}))
    old = event(1, "failed", task_id="t0")
    stub.on(
        "GET",
        "/api/v1/replicas/r1/events",
        Answer(body={"events": [old], "next_cursor": None}),
        Answer(body={"events": [event(2, "ready")], "next_cursor": None}),
    )
    stub.on("GET", "/api/v1/tasks/t1", task("succeeded"))
    stub.on("GET", "/api/v1/replicas/r1", Answer(body=READY))
    result = run("replica", "restart", "r1", "--wait")
    assert result.stdout == "r1 ready http://127.0.0.1:20000\n"
    assert "failed" not in result.stderr
    assert stub.calls("GET", "/api/v1/replicas/r1/events")[1].query["cursor"] == ["1"]


def test_ctrl_c_leaves_the_launch_and_says_how_to_stop_it(launching: Stub) -> None:
    launching.on("GET", "/api/v1/tasks/t1", task("running"))
    argv = [sys.executable, "-m", "hostler", "replica", "create", "--model-name", "m", "--wait"]
    env = {**os.environ, "HOSTLER_URL": launching.url, "HOSTLER_API_KEY": KEY}
    process = subprocess.Popen(
        argv,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # what a shell starts with & ignores Ctrl-C, and hands that on: these tests may run so
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    first = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "pending" in first
    assert "hostler replica stop r1" in err
    assert "Traceback" not in err
    assert out == ""
    assert not [asked for asked in launching.asked if asked.path.endswith("/stop")]


# replica wait


def test_wait_until_ready(stub: Stub, run: Run) -> None:
    stub.on("GET", "/api/v1/replicas/r1", Answer(body={**READY, "status": "starting"}), Answer(body=READY))
    assert run("replica", "wait", "r1").stdout == "r1 ready http://127.0.0.1:20000\n"


def test_wait_fails_fast_with_reason_and_log(stub: Stub, run: Run) -> None:
    stub.on("GET", "/api/v1/replicas/r1", Answer(body=FAILED))
    stub.on("GET", "/api/v1/replicas/r1/logs", Answer(body="the last words\n"))
    result = run("replica", "wait", "r1", "--timeout", "60")
    assert result.exit_code == 6
    assert "process_exited" in result.stderr
    assert "the last words" in result.stderr


def test_wait_for_stopped_of_a_failed_one_is_exit_6(stub: Stub, run: Run) -> None:
    stub.on("GET", "/api/v1/replicas/r1", Answer(body=FAILED))
    assert run("replica", "wait", "r1", "--for", "stopped").exit_code == 6


def test_wait_for_released_is_more_than_terminal(stub: Stub, run: Run) -> None:
    released = {**FAILED, "released_at": "2026-01-01T00:00:00Z"}
    stub.on("GET", "/api/v1/replicas/r1", Answer(body=FAILED), Answer(body=released))
    assert run("replica", "wait", "r1", "--for", "released").exit_code == 0


def test_wait_for_deleted_ends_with_404(stub: Stub, run: Run) -> None:
    stub.on("GET", "/api/v1/replicas/r1", Answer(body=FAILED), problem(404, "not_found"))
    assert run("replica", "wait", "r1", "--for", "deleted").stdout == "r1 deleted\n"


def test_wait_for_what_is_not_there_is_exit_3(run: Run) -> None:
    assert run("replica", "wait", "r1").exit_code == 3


def test_wait_runs_out(stub: Stub, run: Run) -> None:
    stub.on("GET", "/api/v1/replicas/r1", Answer(body={**READY, "status": "starting"}))
    result = run("replica", "wait", "r1", "--timeout", "0.3s")
    assert result.exit_code == 7
    assert "it is starting" in result.stderr


# stop, health, task wait


def test_stop_by_label_stops_the_live_ones(stub: Stub, run: Run) -> None:
    rows = [{"replica_id": "r1", "status": "ready"}, {"replica_id": "r2", "status": "failed"}]
    stub.on("GET", "/api/v1/replicas", Answer(body={"replicas": rows, "next_cursor": None}))
    stub.on("POST", "/api/v1/replicas/r1/stop", Answer(202, {"replica_id": "r1", "task_id": "t9"}))
    result = run("replica", "stop", "-l", "team=x", "--grace", "1m")
    assert result.stdout == "r1\n"
    assert stub.asked[0].query["label"] == ["team=x"]
    assert stub.asked[1].body == {"grace_s": 60}


def test_stop_of_an_empty_id_says_so(stub: Stub, run: Run) -> None:
    for ids in ([""], ["r1", ""], ["", "-l", "team=x"]):
        result = run("replica", "stop", *ids)
        assert result.exit_code == 2
        assert "the id of a replica is empty" in result.stderr
    assert stub.asked == []


@pytest.mark.parametrize("left, told", [("2026-01-01T00:00:00Z", "may still run"), (None, "nothing to give up")])
def test_giving_up_says_whether_something_may_be_left(stub: Stub, run: Run, left: str | None, told: str) -> None:
    body = {"replica_id": "r1", "status": "failed", "attempts": [{"number": 1, "left_behind_at": left}]}
    stub.on("POST", "/api/v1/replicas/r1/stop", Answer(body=body))
    result = run("replica", "stop", "r1", "--abandon")
    assert (result.exit_code, result.stdout) == (0, "r1\n")
    assert told in result.stderr
    assert stub.asked[-1].body["abandon"] is True


def test_stop_and_wait_returns_when_it_is_gone(stub: Stub, run: Run) -> None:
    stub.on("POST", "/api/v1/replicas/r1/stop", Answer(202, {"replica_id": "r1", "task_id": "t9"}))
    gone = {"replica_id": "r1", "status": "stopped", "released_at": "2026-01-01T00:00:00Z"}
    stub.on("GET", "/api/v1/replicas/r1", Answer(body={**gone, "released_at": None}), Answer(body=gone))
    assert json.loads(run("replica", "stop", "r1", "--wait", "-o", "json").stdout) == gone


def test_one_that_refuses_does_not_keep_the_others(stub: Stub, run: Run) -> None:
    for replica_id in ("r1", "r3"):
        stub.on("POST", f"/api/v1/replicas/{replica_id}/stop", Answer(202, {"replica_id": replica_id}))
        stub.on("DELETE", f"/api/v1/replicas/{replica_id}", Answer(204))
    result = run("replica", "stop", "r1", "r2", "r3")
    assert (result.stdout.split(), result.exit_code) == (["r1", "r3"], 3)
    result = run("replica", "delete", "r1", "r2", "r3", "r4")
    assert (result.stdout.split(), result.exit_code) == (["r1", "r3"], 3)
    assert "replicas/r2" in result.stderr
    assert "replicas/r4" in result.stderr


def test_health_waits_for_the_verdict(stub: Stub, run: Run) -> None:
    body = {"replica_id": "r1", "healthy": True, "checks": [{"name": "ready", "ok": True}]}
    stub.on("POST", "/api/v1/replicas/r1/health", Answer(200, body))
    assert run("replica", "health", "r1", "--timeout", "30").exit_code == 0
    assert stub.asked[0].headers["prefer"] == "wait=30"
    assert stub.asked[0].body == {"timeout_s": 30}


def test_an_unhealthy_replica_is_exit_6(stub: Stub, run: Run) -> None:
    body = {"replica_id": "r1", "healthy": False, "message": "no completion"}
    stub.on("POST", "/api/v1/replicas/r1/health", Answer(200, body))
    result = run("replica", "health", "r1")
    assert result.exit_code == 6
    assert "no completion" in result.stderr


@pytest.mark.parametrize("state,exit_code", [("succeeded", 0), ("failed", 6), ("cancelled", 1)])
def test_task_wait_ends_as_the_task_did(stub: Stub, run: Run, state: str, exit_code: int) -> None:
    gate = threading.Event()
    gate.set()
    stub.on("GET", "/api/v1/tasks/t1", task("running"), Answer(body={"id": "t1", "state": state}, gate=gate))
    result = run("task", "wait", "t1", "-o", "json")
    assert result.exit_code == exit_code
    assert json.loads(result.stdout)["state"] == state
