"""Services from a file: what is asked first, what is shown, what is sent, and what export gives back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.cli.conftest import Run
from tests.integration.cli.stub import Answer, Stub, problem

ID = "3f9a01c2d4e5"
SERVICES = "/api/v1/services"
WEB = {"name": "web", "recipe_name": "inference/mock", "replicas": 2, "config": {"environment": {"A": "1"}}}
RUNS = {
    "id": ID,
    "name": "web",
    "recipe_name": "inference/mock",
    "desired_state": "running",
    "count": 2,
    "labels": {},
    "config": {"environment": {"A": "***"}},
    "asked": {"update": {"max_surge": 2}},
}
NO_WEB = problem(404, "not_found", "There is no service web.")
UNCHANGED = Answer(200, {"dry_run": True, "changes": []})
CHANGED = Answer(
    200, {"dry_run": True, "changes": [{"field": "config.environment.A", "before": "***", "after": "***"}]}
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "services.yaml"
    path.write_text(yaml.safe_dump(WEB))
    return path


def sent(stub: Stub) -> list[tuple[str, str, Any]]:
    """What was asked for beside looking."""
    changes = [one for one in stub.asked if one.method != "GET" and not (one.body or {}).get("dry_run")]
    return [(one.method, one.path, one.body) for one in changes]


def test_what_is_not_there_is_created_after_it_was_shown(stub: Stub, run: Run, file: Path) -> None:
    stub.on("GET", f"{SERVICES}/web", NO_WEB)
    stub.on("POST", SERVICES, Answer(200, {"dry_run": True, "count": 2}), Answer(202, {"id": ID, "task_id": "t1"}))
    result = run("apply", "-f", str(file), "--yes", "-o", "json")
    assert result.exit_code == 0
    assert stub.calls("POST", SERVICES)[0].body == {**WEB, "dry_run": True}
    assert sent(stub) == [("POST", SERVICES, WEB)]
    assert json.loads(result.stdout)["services"][0] | {"warnings": []} == {
        "name": "web",
        "action": "create",
        "id": ID,
        "changes": [],
        "warnings": [],
    }
    assert "+ web (inference/mock)" in result.stderr


def test_applying_again_changes_nothing(stub: Stub, run: Run, file: Path) -> None:
    stub.on("GET", f"{SERVICES}/web", Answer(body=RUNS))
    stub.on("PATCH", f"{SERVICES}/{ID}", UNCHANGED)
    result = run("apply", "-f", str(file))
    assert result.exit_code == 0
    assert sent(stub) == []
    assert "= web" in result.stderr
    assert run("apply", "-f", str(file), "--diff").exit_code == 0


def test_what_differs_is_updated_and_scaled(stub: Stub, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "three.yaml"
    path.write_text(yaml.safe_dump({**WEB, "replicas": 3}))
    stub.on("GET", f"{SERVICES}/web", Answer(body=RUNS))
    accepted = Answer(202, {"id": ID, "task_id": "t1"})
    stub.on("PATCH", f"{SERVICES}/{ID}", CHANGED, CHANGED, accepted)
    stub.on("POST", f"{SERVICES}/{ID}/scale", accepted)
    shown = run("apply", "-f", str(path), "--dry-run")
    assert shown.exit_code == 2
    assert "~ web" in shown.stdout
    assert "replicas: 2 -> 3" in shown.stdout
    assert sent(stub) == []
    assert run("apply", "-f", str(path), "-y").exit_code == 0
    change = {"recipe_name": WEB["recipe_name"], "config": WEB["config"], "replace_config": True}
    assert sent(stub) == [
        ("PATCH", f"{SERVICES}/{ID}", change),
        ("POST", f"{SERVICES}/{ID}/scale", {"replicas": 3}),
    ]


def test_nothing_is_changed_when_one_of_them_cannot_be(stub: Stub, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump_all([WEB, {**WEB, "name": "api", "pool": "nope"}]))
    for name in ("web", "api"):
        stub.on("GET", f"{SERVICES}/{name}", NO_WEB)
    unknown = problem(422, "unknown_pool", "No pool is called nope.", errors={"pool": ["Unknown pool."]})
    stub.on("POST", SERVICES, Answer(200, {"dry_run": True, "count": 2}), unknown)
    result = run("apply", "-f", str(path), "--yes")
    assert result.exit_code == 3
    assert "api: No pool is called nope." in result.stderr
    assert sent(stub) == []


def test_a_refusal_is_not_told_as_a_difference(stub: Stub, run: Run, file: Path) -> None:
    stub.on("GET", f"{SERVICES}/web", NO_WEB)
    unknown = problem(422, "unknown_pool", "No pool is called nope.")
    wrong = problem(422, "invalid_config", "config.x: Unknown.")
    stub.on("POST", SERVICES, unknown, wrong)
    assert run("apply", "-f", str(file), "--diff").exit_code == 1
    assert run("apply", "-f", str(file), "--diff").exit_code == 1
    assert run("apply", "-f", str(file), "--yes").exit_code == 2


def test_nobody_there_to_ask(stub: Stub, run: Run, file: Path) -> None:
    stub.on("GET", f"{SERVICES}/web", NO_WEB)
    stub.on("POST", SERVICES, Answer(200, {"dry_run": True, "count": 2}))
    result = run("apply", "-f", str(file), stdin="y\n")
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert sent(stub) == []


def test_prune_needs_a_label_and_stops_what_no_file_names(stub: Stub, run: Run, file: Path) -> None:
    stub.on("GET", f"{SERVICES}/web", Answer(body=RUNS))
    stub.on("PATCH", f"{SERVICES}/{ID}", UNCHANGED)
    old = {**RUNS, "id": "a" * 12, "name": "old"}
    ended = {**old, "id": "b" * 12, "name": "ended", "desired_state": "cancelled"}
    stub.on("GET", SERVICES, Answer(body={"services": [RUNS, old, ended], "next_cursor": None}))
    stub.on("POST", f"{SERVICES}/{'a' * 12}/status", Answer(body={"service_id": "a" * 12}))
    assert run("apply", "-f", str(file), "--prune", "-y").exit_code == 2
    assert run("apply", "-f", str(file), "-l", "team=x", "-y").exit_code == 2
    assert stub.asked == []
    assert run("apply", "-f", str(file), "--prune", "-l", "team=x", "-y").exit_code == 0
    assert stub.calls("GET", SERVICES)[0].query["label"] == ["team=x"]
    assert sent(stub) == [("POST", f"{SERVICES}/{'a' * 12}/status", {"status": "cancelled"})]


@pytest.mark.parametrize(
    "text",
    [
        yaml.safe_dump([WEB]),
        yaml.safe_dump({"services": [WEB]}),
        f"---\n{yaml.safe_dump(WEB)}---\n",
        json.dumps(WEB),
    ],
)
def test_forms_of_a_file(stub: Stub, run: Run, text: str) -> None:
    stub.on("GET", f"{SERVICES}/web", Answer(body=RUNS))
    stub.on("PATCH", f"{SERVICES}/{ID}", UNCHANGED)
    assert run("apply", "-f", "-", stdin=text).exit_code == 0


@pytest.mark.parametrize(
    "text, told",
    [
        ("name: web\nrecipe: x\nrecipe_name: y\n", "unknown: recipe"),
        ("recipe_name: y\n", "name is missing"),
        ("name: 1\nrecipe_name: y\n", "name is missing or no text"),
        ("- web\n", "not an object"),
        ("a: b: c\n", "is no YAML"),
        ("{name: web, recipe_name: y}\n---\n{name: web, recipe_name: y}\n", "stands twice"),
        ("name: web\nrecipe_name: y\nreplicas: 1\nreplicas: 3\n", "line 4: 'replicas' is there twice"),
        ("services:\n- {name: web, recipe_name: y, config: {a: {b: 1, b: 2}}}\n", "'b' is there twice"),
        ("name: web\nrecipe_name: y\nconfig: &x {a: *x}\n", "line 3: anchors and aliases are not taken"),
        ("name: !x web\nrecipe_name: y\n", "line 1: tags (!) are not taken"),
        ("{name: web, recipe_name: y, config: {1: a}}", "a name must be a text"),
        ("{name: web, recipe_name: y, config: {a: 1e999}}", "this number is too large"),
        ("{name: web, recipe_name: y, replicas: " + "[" * 5000, "nests too deep"),
    ],
)
def test_a_file_that_is_none_is_told_before_anything_is_asked(stub: Stub, run: Run, text: str, told: str) -> None:
    result = run("apply", "-f", "-", "--yes", stdin=text)
    assert result.exit_code == 1
    assert told in result.stderr
    assert stub.asked == []


def test_export_gives_what_apply_takes(stub: Stub, run: Run) -> None:
    ended = {**RUNS, "name": "ended", "desired_state": "cancelled"}
    stub.on("GET", SERVICES, Answer(body={"services": [RUNS, ended], "next_cursor": None}))
    stub.on("GET", f"{SERVICES}/web", Answer(body=RUNS))
    stub.on("PATCH", f"{SERVICES}/{ID}", UNCHANGED)
    text = run("export").stdout
    assert list(yaml.safe_load_all(text)) == [
        {
            "name": "web",
            "recipe_name": "inference/mock",
            "replicas": 2,
            "config": {"environment": {"A": "***"}},
            "update": {"max_surge": 2},
        }
    ]
    assert run("apply", "-f", "-", "--diff", stdin=text).exit_code == 0
    assert run("export", "web", "-o", "json").exit_code == 0
