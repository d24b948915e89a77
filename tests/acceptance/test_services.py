"""Services as a person uses them, by command line on a whole stack, and what of them is read over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support import plain_http
from tests.support.embedded import wait_until
from tests.support.stacks import Stack, stack

pytestmark = pytest.mark.timeout(300)

#: Ends in the middle of its start, after it has said why.
DYING = (
    *("--set", "engine_config.mock.startup_s=60", "--set", "engine_config.mock.exit_after_s=0.2"),
    *("--set", 'engine_config.mock.log_lines=["no such tensor"]'),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(tmp_path_factory.mktemp("services") / "state", HOSTLER_PROBE_INTERVAL_S="1") as started:
        started.up()
        yield started
        started.must("down")


@pytest.fixture
def name(made: Stack) -> Iterator[str]:
    """A name of the test's own; what is called so is stopped afterwards."""
    chosen = f"s-{uuid4().hex[:8]}"
    yield chosen
    if (made.json("service", "list", "--name", chosen)["services"] or [{"ended_at": "-"}])[0]["ended_at"] is None:
        made.must("service", "stop", chosen, "--wait", "--timeout", "60s")


def create(made: Stack, name: str, *words: str, replicas: int = 2) -> dict[str, Any]:
    fixed = ("--name", name, "--replicas", str(replicas), "--wait", "--timeout", "60s")
    return made.json("service", "create", "inference/mock", *fixed, *words)


def read(made: Stack, path: str, **more: Any) -> httpx2.Response:
    headers = {"X-API-Key": made.key, **more.pop("headers", {})}
    return plain_http.get(f"{made.url}/api/v1{path}", headers=headers, timeout=30, trust_env=False, **more)


def test_a_service_lives(made: Stack, name: str) -> None:
    service = create(made, name)
    assert (service["status"], service["ready"], service["revision"]) == ("running", 2, 1)
    first = {one["replica_id"] for one in service["replicas"]}

    more = made.json("service", "scale", name, "3", "--wait", "--timeout", "60s")
    assert (more["ready"], more["count"]) == (3, 3)
    assert first < {one["replica_id"] for one in more["replicas"]}

    updated = made.json("service", "update", name, "--set", "environment.MOCK_SEED=5", "--wait", "--timeout", "60s")
    assert (updated["revision"], updated["good_revision"], updated["ready"]) == (2, 2, 3)
    back = made.json("service", "rollback", name, "--wait", "--timeout", "60s")
    assert (back["revision"], back["ready"]) == (1, 3)
    assert [one["number"] for one in made.json("service", "revisions", name)["revisions"]] == [2, 1]

    less = made.json("service", "scale", name, "1", "--wait", "--timeout", "60s")
    assert less["ready"] == 1
    kinds = [event["kind"] for event in made.json("service", "events", name)["events"]]
    assert {"service_created", "service_scaled", "service_updated", "service_rolled_back"} <= set(kinds)

    made.must("service", "stop", name, "--wait", "--timeout", "60s")
    ended = made.json("service", "get", name)
    assert (ended["status"], ended["id"]) == ("cancelled", service["id"])
    assert ended["ended_at"]
    # the words of all that ever were
    said = made.must("service", "logs", name)
    assert all(f"{replica_id} | " in said for replica_id in first)
    assert not [row for row in made.json("replica", "list", "--all")["replicas"] if row["status"] == "ready"]


def test_what_cannot_come_up_is_told_at_once_with_why(made: Stack, name: str) -> None:
    limits = json.dumps({"restart": {"tries": 0}})
    words = ("service", "create", "inference/mock", "--name", name, *DYING, "-f", "-", "--wait", "--timeout", "60s")
    done = made.hostler(*words, said=limits)
    assert done.returncode == 6, done.stderr
    for word in ("process_exited", "  | no such tensor", "next: hostler service status"):
        assert word in done.stderr
    assert "because   process_exited" in made.must("service", "explain", name)


def test_a_request_may_wait_itself(made: Stack, name: str) -> None:
    body: dict[str, Any] = {"recipe_name": "inference/mock", "name": name, "replicas": 2}

    def post(**more: Any) -> httpx2.Response:
        headers = {"X-API-Key": made.key, "Prefer": "wait=60"}
        return plain_http.post(
            f"{made.url}/api/v1/services", json=body | more, headers=headers, timeout=90, trust_env=False
        )

    ready = post()
    assert ready.status_code == 201, ready.text
    assert (ready.json()["ready"], ready.headers["Location"]) == (2, f"/api/v1/services/{ready.json()['id']}")
    dying = {"engine_config": {"mock": {"startup_s": 60, "exit_after_s": 0.2, "log_lines": ["no such tensor"]}}}
    failed = post(name=f"{name}-bad", config=dying, restart={"tries": 0})
    assert failed.status_code == 502, failed.text
    problem = failed.json()
    assert (problem["code"], problem["reason"]) == ("service_failed", "process_exited")
    assert problem["service_id"] in problem["detail"]
    assert "no such tensor" in problem["log_tail"]
    made.must("service", "stop", f"{name}-bad", "--wait", "--timeout", "60s")


def test_a_failed_update_is_told_and_leaves_what_ran(made: Stack, name: str) -> None:
    service = create(made, name)
    failed = made.hostler("service", "update", name, *DYING, "--wait", "--timeout", "80s")
    assert failed.returncode == 6, failed.stderr
    assert "rolled back" in failed.stderr
    shown = made.json("service", "get", name)
    assert (shown["revision"], shown["ready"], shown["status"]) == (1, 2, "running")
    assert [one["replica_id"] for one in shown["replicas"]] == [one["replica_id"] for one in service["replicas"]]


def test_metrics_and_targets_name_whose_they_are(made: Stack, name: str) -> None:
    service = create(made, name)
    ids = {one["replica_id"] for one in service["replicas"]}
    answer = read(made, f"/services/{name}/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = list(text_string_to_metric_families(answer.text))
    samples = [sample for family in families for sample in family.samples]
    assert {sample.labels["replica"] for sample in samples} == ids
    assert {sample.labels["service"] for sample in samples} == {service["id"]}
    assert {family.name for family in families} >= {"hostler_replica_metrics_up", "mock:requests"}

    groups = [one for one in read(made, "/services/targets").json() if one["labels"].get("service") == service["id"]]
    assert {one["labels"]["replica"] for one in groups} == ids
    for one in groups:
        assert set(one) == {"targets", "labels"}
        assert all(isinstance(value, str) for value in one["labels"].values())
        [target] = one["targets"]
        assert plain_http.get(f"http://{target}/health", trust_env=False).status_code == 200


def test_followed_logs_show_who_comes_later_and_end_with_the_service(made: Stack, name: str) -> None:
    create(made, name, "--set", 'engine_config.mock.log_lines=["one"]', replicas=1)
    argv = made.argv("service", "logs", name, "-f")
    following = subprocess.Popen(argv, env=made.environ, stdout=subprocess.PIPE, text=True)
    assert following.stdout is not None
    try:
        assert following.stdout.readline().endswith(" | one\n")
        more = made.json("service", "scale", name, "2", "--wait", "--timeout", "60s")
        made.must("service", "stop", name, "--wait", "--timeout", "60s")
        said, _ = following.communicate(timeout=30)
    finally:
        following.kill()
        following.communicate()
    assert following.returncode == 0
    assert f"{more['replicas'][1]['replica_id']} | one" in said.splitlines()


def test_a_broken_stream_of_logs_goes_on_where_it_was(made: Stack, name: str) -> None:
    service = create(made, name, "--set", 'engine_config.mock.log_lines=["one","two"]')
    path = f"/services/{name}/logs?follow=true"
    before: list[tuple[str, str]] = []
    headers = {"X-API-Key": made.key}
    with plain_http.stream("GET", f"{made.url}/api/v1{path}", headers=headers, timeout=30, trust_env=False) as response:
        for event in httpx2.EventSource(response):
            if event.event == "log":
                before.append((event.data, event.id))
            if len(before) == 3:
                break
    assert len(before) == 3
    made.must("service", "stop", name, "--wait", "--timeout", "60s")
    rest = read(made, path, headers={"Last-Event-ID": before[-1][1]})
    assert rest.headers["content-type"].startswith("text/event-stream")
    after = [line.removeprefix("data: ") for line in rest.text.splitlines() if line.startswith("data: ")]
    expected = read(made, f"/services/{name}/logs").text.splitlines()
    assert sorted([data for data, _ in before] + [line for line in after if line]) == sorted(expected)
    one = service["replicas"][1]["replica_id"]
    assert {line.partition(" | ")[0] for line in read(made, f"/services/{name}/logs?replica=1").text.splitlines()} == {
        one
    }
    assert len(read(made, f"/services/{name}/logs?replica={one}&tail=1").text.splitlines()) == 1


def test_a_replica_that_dies_is_replaced_and_both_are_heard(made: Stack, name: str) -> None:
    service = create(made, name)
    victim = service["replicas"][0]["replica_id"]
    made.must("replica", "stop", victim, "--force")

    def replaced() -> bool:
        shown = made.json("service", "get", name)
        return shown["ready"] == 2 and victim not in {one["replica_id"] for one in shown["replicas"]}

    wait_until(replaced, 30, "a replacement")
    assert f"{victim} | " in made.must("service", "logs", name)


def test_a_file_is_applied_and_comes_back_from_export(made: Stack, name: str, tmp_path: Path) -> None:
    file = tmp_path / "services.yaml"
    wanted = {
        "name": name,
        "recipe_name": "inference/mock",
        "replicas": 1,
        "labels": {"test": name},
        "config": {"environment": {"MOCK_SEED": "1"}},
        "update": {"max_surge": 2},
    }
    file.write_text(yaml.safe_dump(wanted))
    assert made.hostler("apply", "-f", str(file), "--diff").returncode == 2
    made.must("apply", "-f", str(file), "--yes", "--wait", "--timeout", "60s")
    service = made.json("service", "get", name)
    assert (service["ready"], service["labels"]) == (1, {"test": name})

    again = made.hostler("apply", "-f", str(file))
    assert (again.returncode, made.json("service", "get", name)["revision"]) == (0, 1)
    assert f"= {name}" in again.stderr
    exported = made.must("export", name)
    assert made.hostler("apply", "-f", "-", "--diff", said=exported).returncode == 0
    # whatever differs in the writing says the same
    other = {**wanted, "replicas": "1", "config": {"environment": {"MOCK_SEED": 1}}}
    assert made.hostler("apply", "-f", "-", "--diff", said=yaml.safe_dump(other)).returncode == 0

    file.write_text(yaml.safe_dump({**wanted, "replicas": 2, "config": {"environment": {"MOCK_SEED": "2"}}}))
    shown = made.hostler("apply", "-f", str(file), "--dry-run")
    assert shown.returncode == 2
    assert "replicas: 1 -> 2" in shown.stdout
    made.must("apply", "-f", str(file), "--yes", "--wait", "--timeout", "60s")
    changed = made.json("service", "get", name)
    assert (changed["id"], changed["revision"], changed["ready"]) == (service["id"], 2, 2)

    file.write_text(yaml.safe_dump({**wanted, "name": f"{name}-b"}))
    made.must("apply", "-f", str(file), "--yes", "--prune", "-l", f"test={name}", "--wait", "--timeout", "60s")
    assert made.json("service", "get", name)["desired_state"] == "cancelled"
    made.must("service", "stop", f"{name}-b", "--wait", "--timeout", "60s")


def test_on_a_terminal_it_asks_before_it_applies(made: Stack, name: str, tmp_path: Path) -> None:
    file = tmp_path / "services.yaml"
    file.write_text(yaml.safe_dump({"name": name, "recipe_name": "inference/mock"}))
    for answer, code, found in (("n\n", 1, 0), ("y\n", 0, 1)):
        typed, terminal = os.openpty()
        process = subprocess.Popen(
            made.argv("apply", "-f", str(file)), env=made.environ, stdin=terminal, stderr=subprocess.PIPE, text=True
        )
        os.close(terminal)
        os.write(typed, answer.encode())
        _, said = process.communicate(timeout=60)
        os.close(typed)
        assert (process.returncode, f"+ {name}" in said, "apply 1 change?" in said) == (code, True, True), said
        assert len(made.json("service", "list", "--name", name)["services"]) == found
