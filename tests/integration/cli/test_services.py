"""Services: what is sent, what is shown on the way, and how waiting ends."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from hostler import AsyncClient
from tests.integration.cli.conftest import KEY, Run
from tests.integration.cli.stub import Answer, Stub, problem, sse

ID = "3f9a01c2d4e5"
SERVICES = "/api/v1/services"
ONE = f"{SERVICES}/{ID}"
SERVICE = {"id": ID, "service_id": ID, "name": "web", "status": "configuring", "ready": 0, "count": 2, "replicas": []}
ASKED = Answer(202, {**SERVICE, "task_id": "t1", "warnings": ["VLLM_PORT: ports are leased"]})
RUNS = {**SERVICE, "status": "running", "ready": 2}


def replica(name: str, status: str, **more: object) -> dict[str, object]:
    return {"replica_id": name, "status": status, "ordinal": 0, "revision": 1, **more}


def stands(ready: int, *replicas: dict[str, object]) -> Answer:
    return Answer(body={"healthy_replicas": ready, "total_replicas": 2, "replica_statuses": list(replicas)})


def told(*events: dict[str, object]) -> Answer:
    return Answer(body={"events": list(events), "next_cursor": None})


def event(number: int, kind: str, message: str = "") -> dict[str, object]:
    return {"id": f"1-{number}", "at": f"2026-01-01T00:00:0{number}Z", "kind": kind, "message": message}


def task(state: str, **more: object) -> Answer:
    return Answer(body={"id": "t1", "state": state, "service_id": ID, **more})


@pytest.fixture
def coming(stub: Stub) -> Stub:
    stub.on("POST", SERVICES, ASKED)
    stub.on("GET", f"{ONE}/events", told(event(1, "service_created")))
    stub.on("GET", f"{ONE}/status", stands(0, replica("r1", "starting")), stands(1, replica("r1", "ready")))
    return stub


def test_create_sends_what_the_flags_say(coming: Stub, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret=1")
    result = run(
        *("service", "create", "inference/mock", "--name", "web", "--replicas", "2", "--pool", "p"),
        *("--set", "resources.gpu=4", "--set", "gpu_per_replica=2", "--set", '{"resources": {"cpu": "8"}}'),
        *("--env", "A=b=c", "--env", "HF_TOKEN", "--label", "team=x", "--all-or-nothing", "--model-name", "m"),
    )
    assert result.exit_code == 0
    assert coming.asked[0].body == {
        "recipe_name": "inference/mock",
        "name": "web",
        "replicas": 2,
        "pool": "p",
        "model_name": "m",
        "labels": {"team": "x"},
        "all_or_nothing": True,
        "config": {
            "resources": {"gpu": 4, "cpu": "8"},
            "gpu_per_replica": 2,
            "environment": {"A": "b=c", "HF_TOKEN": "secret=1"},
        },
    }
    assert result.stdout == f"{ID}\n"
    assert "warning: VLLM_PORT: ports are leased" in result.stderr
    assert "hostler service wait web" in result.stderr


def test_a_file_is_the_request_and_flags_go_over_it(coming: Stub, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "request.yaml"
    file.write_text("recipe_name: inference/mock\nreplicas: 3\nconfig: {resources: {gpu: null}}\n")
    run("service", "create", "-f", str(file), "--replicas", "1")
    assert coming.asked[0].body == {
        "recipe_name": "inference/mock",
        "replicas": 1,
        "config": {"resources": {"gpu": None}},
    }


def test_which_recipe_is_asked(run: Run) -> None:
    result = run("service", "create", "--name", "web")
    assert result.exit_code == 2
    assert "hostler recipe list" in result.stderr


def test_dry_run_changes_nothing(stub: Stub, run: Run) -> None:
    stub.on("POST", SERVICES, Answer(200, {"dry_run": True, "count": 2}))
    result = run("service", "create", "inference/mock", "--dry-run", "-o", "json")
    assert json.loads(result.stdout) == {"dry_run": True, "count": 2}
    assert stub.asked[0].body["dry_run"] is True
    assert "nothing was changed" in result.stderr


def test_waiting_shows_each_step_once(coming: Stub, run: Run) -> None:
    coming.on("GET", "/api/v1/tasks/t1", task("running"), task("running"), task("succeeded"))
    coming.on("GET", ONE, Answer(body=RUNS))
    result = run("service", "create", "inference/mock", "--wait")
    assert result.stdout == f"{ID} running 2/2 ready\n"
    steps = [line for line in result.stderr.splitlines() if line.startswith("service")]
    assert steps == [
        f"service {ID}: replica r1 starting",
        f"service {ID}: 0 of 2 ready",
        f"service {ID}: replica r1 ready",
        f"service {ID}: 1 of 2 ready",
    ]


def test_waiting_ends_with_why_and_the_end_of_a_log(coming: Stub, run: Run) -> None:
    coming.on("GET", "/api/v1/tasks/t1", task("failed", reason="process_exited", message="replica r1: exit code 3"))
    failed = {**SERVICE, "status": "failed", "replicas": [replica("r1", "failed", reason="process_exited")]}
    coming.on("GET", ONE, Answer(body=failed))
    coming.on("GET", "/api/v1/replicas/r1/logs", Answer(body="\x1b[31mno such file\x1b[0m\n"))
    result = run("service", "create", "inference/mock", "--wait")
    assert result.exit_code == 6
    assert "process_exited: replica r1: exit code 3" in result.stderr
    assert "  | no such file\n" in result.stderr
    assert f"next: hostler service status {ID}" in result.stderr


def test_a_wait_that_runs_out_is_exit_7(coming: Stub, run: Run) -> None:
    coming.on("GET", "/api/v1/tasks/t1", task("running"))
    result = run("service", "create", "inference/mock", "--wait", "--timeout", "0.3")
    assert result.exit_code == 7
    assert "it goes on" in result.stderr


def test_an_update_shows_only_what_is_new(stub: Stub, run: Run) -> None:
    old, new = event(1, "service_scaled", "to 2"), event(2, "service_rolled_back", "r2 did not become ready")
    stub.on("PATCH", f"{SERVICES}/web", Answer(202, {**SERVICE, "task_id": "t1"}))
    stub.on("GET", f"{SERVICES}/web", Answer(body=RUNS))
    stub.on("GET", f"{ONE}/events", told(old), told(old, new))
    stub.on("GET", "/api/v1/tasks/t1", task("failed", reason="readiness_timeout", message="went back to revision 1"))
    stub.on("GET", ONE, Answer(body=RUNS))
    stub.on("GET", f"{ONE}/status", stands(2, replica("r1", "ready")))
    result = run("service", "update", "web", "--set", "x=1", "--max-surge", "2", "--no-rollback", "--wait")
    assert stub.calls("PATCH", f"{SERVICES}/web")[0].body == {
        "config": {"x": 1},
        "update": {"max_surge": 2, "auto_rollback": False},
    }
    assert result.exit_code == 6
    assert "rolled back: r2 did not become ready" in result.stderr
    assert "went back to revision 1" in result.stderr
    assert "scaled" not in result.stderr


@pytest.mark.parametrize(
    "words, method, path, body",
    [
        (("scale", "web", "3"), "POST", "/web/scale", {"replicas": 3}),
        (("rollback", "web"), "POST", "/web/rollback", {}),
        (("rollback", "web", "--revision", "2"), "POST", "/web/rollback", {"revision": 2}),
        (("pause", "web"), "POST", "/web/pause", {}),
        (("resume", "web"), "POST", "/web/resume", {}),
        (("stop", "web"), "POST", "/web/status", {"status": "cancelled"}),
    ],
)
def test_changes_carry_a_key_that_makes_them_once(
    stub: Stub, run: Run, words: tuple[str, ...], method: str, path: str, body: object
) -> None:
    stub.on(method, SERVICES + path, Answer(202, {**SERVICE, "task_id": "t1"}))
    assert json.loads(run("service", *words, "-o", "json").stdout)["id"] == ID
    [asked] = stub.calls(method, SERVICES + path)
    assert asked.body == body
    assert asked.headers["idempotency-key"]


def test_stop_waits_until_all_are_gone_by_id(stub: Stub, run: Run) -> None:
    stub.on("POST", f"{SERVICES}/web/status", Answer(200, {"service_id": ID, "success": True}))
    stub.on("GET", ONE, Answer(body={**SERVICE, "ended_at": None}), Answer(body={**SERVICE, "ended_at": "2026-01-01"}))
    assert run("service", "stop", "web", "--wait", "--timeout", "10").exit_code == 0
    assert len(stub.calls("GET", ONE)) == 2


def test_wait_is_for_all_replicas_and_fails_when_a_place_was_given_up(stub: Stub, run: Run) -> None:
    half = {**SERVICE, "status": "running", "desired_state": "running", "ready": 1}
    whole = {**half, "ready": 2}
    stub.on("GET", f"{SERVICES}/web", Answer(body=half), Answer(body=whole))
    assert run("service", "wait", "web", "--timeout", "10").exit_code == 0
    assert len(stub.calls("GET", f"{SERVICES}/web")) == 2
    told = "1 of 2 replicas failed too often"
    stub.on("GET", f"{SERVICES}/bad", Answer(body={**half, "message": told, "plan": {"given_up": ["r2"]}}))
    result = run("service", "wait", "bad", "--timeout", "10")
    assert result.exit_code == 6
    assert told in result.stderr


def test_wait_fails_at_once_when_it_cannot_come(stub: Stub, run: Run) -> None:
    stub.on("GET", f"{SERVICES}/web", Answer(body=SERVICE), Answer(body={**SERVICE, "status": "cancelled"}))
    result = run("service", "wait", "web", "--timeout", "10")
    assert result.exit_code == 6
    assert f"service {ID} cancelled" in result.stderr


def test_what_is_not_there_names_the_command(stub: Stub, run: Run) -> None:
    stub.on("GET", f"{SERVICES}/nope", problem(404, "not_found", instance=f"{SERVICES}/nope"))
    result = run("service", "get", "nope")
    assert result.exit_code == 3
    assert "next: hostler service list" in result.stderr


def test_status_lists_the_replicas(stub: Stub, run: Run) -> None:
    answer = stands(1, replica("r1", "ready"), replica("r2", "failed", reason="out_of_memory"))
    assert isinstance(answer.body, dict)
    answer.body |= {"overall_status": "partial"}
    stub.on("GET", f"{SERVICES}/web/status", answer)
    result = run("service", "status", "web")
    assert result.stdout.startswith("partial, 1 of 2 ready\n")
    assert "out_of_memory" in result.stdout


def test_logs_are_cleaned_and_followed(stub: Stub, run: Run) -> None:
    stub.on("GET", f"{SERVICES}/web/logs", Answer(body="r1 | \x1b[31mred\x1b[0m\n"))
    assert run("service", "logs", "web", "--replica", "0", "--tail", "5").stdout == "r1 | red\n"
    assert stub.asked[0].query == {"replica": ["0"], "tail": ["5"]}
    line = "id: 3f9a01c2d4e5:7-9\nevent: log\ndata: r1 | more\n\n"
    stub.on("GET", f"{SERVICES}/live/logs", sse(line, "event: end\ndata: \n\n", whole=True))
    assert run("service", "logs", "live", "-f").stdout == "r1 | more\n"


def test_explain_says_what_it_waits_for(stub: Stub, run: Run) -> None:
    plan = {"waits_for": "replica r2", "until": "2026-01-01T00:00:00Z"}
    body = {**SERVICE, "message": "replacing r1", "plan": plan, "replicas": [replica("r2", "starting")]}
    stub.on("GET", f"{SERVICES}/web", Answer(body=body))
    shown = run("service", "explain", "web").stdout
    for word in ("web is configuring: 0 of 2 ready", "replacing r1", "replica r2", "hostler replica explain r2"):
        assert word in shown


def test_the_async_client_has_the_same_verbs(stub: Stub) -> None:
    stub.on("POST", SERVICES, ASKED)
    half = {**SERVICE, "desired_state": "running", "ready": 1}
    stub.on("GET", f"{SERVICES}/web", Answer(body=half), Answer(body={**half, "ready": 2}))
    stub.on("GET", f"{SERVICES}/web/logs", Answer(body="r1 | hello\n"))

    async def use() -> tuple[str, int, str]:
        async with AsyncClient(stub.url, KEY) as client:
            made = await client.create_service({"recipe_name": "inference/mock"})
            running = await client.wait_service("web", timeout_s=10)
            return made["id"], running["ready"], await client.service_logs("web")

    assert asyncio.run(use()) == (ID, 2, "r1 | hello\n")
