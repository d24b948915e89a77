"""Recipes through the API: the list, one of them, rendering, a replica by a recipe, and files that are not in order."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator

from app.settings import Settings
from tests.integration.api.conftest import Caller
from tests.support.problems import assert_problem

BUILT_IN = (
    "inference/llama-cpp",
    "inference/mock",
    "inference/vllm-replicas",
    "inference/vllm-single-node",
    "vector-db/qdrant",
    "vector-db/qdrant-edge",
)
MOCK = {"recipe": "inference/mock", "wait_for_ready": False}


@pytest.fixture
def web_settings(web_settings: Settings, tmp_path: Path) -> Settings:
    folder = tmp_path / "recipes"
    folder.mkdir(mode=0o755)
    return replace(web_settings, recipes_dir=folder, secrets_dir=tmp_path / "recipe-secrets")


@pytest.fixture
def write(web_settings: Settings) -> Callable[[str, str], Path]:
    def write(name: str, text: str) -> Path:
        path = web_settings.recipes_dir / f"{name}.yaml"
        path.parent.mkdir(mode=0o755, exist_ok=True)
        path.write_text(text)
        path.chmod(0o644)
        return path

    return write


def test_the_list_and_its_filters(admin: Caller) -> None:
    body = admin.get("/api/v1/recipes").get_json()
    names = [one["recipe"] for one in body["recipes"]]
    assert set(BUILT_IN) <= set(names)
    assert names == sorted(names)
    assert body["total"] == len(names)
    for query, expected in (
        ("path=inference", [one for one in names if one.startswith("inference/")]),
        ("path=inference/mock", ["inference/mock"]),
        ("path=infer", []),
        ("name=mock", ["inference/mock"]),
        ("name=inference/mock", ["inference/mock"]),
        ("path=inference&name=vllm-replicas", ["inference/vllm-replicas"]),
        ("name=../mock", []),
    ):
        found = admin.get(f"/api/v1/recipes?{query}").get_json()
        assert [one["recipe"] for one in found["recipes"]] == expected, query
    page = admin.get("/api/v1/recipes?limit=1").get_json()
    rest = admin.get(f"/api/v1/recipes?limit=1000&cursor={page['next_cursor']}").get_json()
    assert [one["recipe"] for one in (*page["recipes"], *rest["recipes"])] == names
    assert_problem(admin.get("/api/v1/recipes?nmae=mock"), 422, "invalid_config")


def test_one_recipe_by_both_names(admin: Caller, caller: Callable[[str], Caller]) -> None:
    answer = admin.get("/api/v1/recipes/vllm-single-node")
    body = answer.get_json()
    assert body == admin.get("/api/v1/recipes/inference/vllm-single-node").get_json()
    assert (body["default_model"], body["resources"]["gpu"]) == ("Qwen/Qwen2.5-0.5B-Instruct", 4)
    assert body["parameters"]["max_model_len"]["environment"] == "VLLM_MAX_MODEL_LEN"
    assert body["secrets"] == {"HF_TOKEN": {"file": "hf-token", "optional": True}}
    again = admin.get("/api/v1/recipes/vllm-single-node", If_None_Match=answer.headers["ETag"])
    assert again.status_code == 304
    assert caller("read").get("/api/v1/recipes/mock").status_code == 200
    assert caller("infer").get("/api/v1/recipes/mock").status_code == 403
    problem = assert_problem(admin.get("/api/v1/recipes/vllm-singel-node"), 404, "not_found")
    assert "Did you mean inference/vllm-single-node" in problem["detail"]


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "..%2f..%2fsecrets",
        "inference/../inference/mock",
        "/etc/passwd",
        "inference%2F..%2Fmock",
        ".",
    ],
)
def test_no_name_leaves_the_folder(admin: Caller, name: str) -> None:
    assert admin.get(f"/api/v1/recipes/{name}").status_code in (400, 404)
    assert_problem(admin.post("/api/v1/replicas", {**MOCK, "recipe": name}), 422, "unknown_recipe")


def test_a_short_name_of_two(admin: Caller, write: Callable[[str, str], Path]) -> None:
    write("lab/mock", "engine: mock\n")
    problem = assert_problem(admin.get("/api/v1/recipes/mock"), 422, "unknown_recipe")
    assert "inference/mock or lab/mock" in problem["detail"]
    assert admin.get("/api/v1/recipes/lab/mock").get_json()["source"] == "folder"


def test_the_schema_is_one(anybody: FlaskClient, caller: Callable[[str], Caller]) -> None:
    answer = caller("read").get("/api/v1/schemas/recipe.json")
    assert answer.status_code == 200
    assert answer.content_type == "application/schema+json"
    schema = answer.get_json()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(schema)
    assert anybody.get("/api/v1/schemas/recipe.json").status_code == 401


def test_rendering_changes_nothing(admin: Caller, caller: Callable[[str], Caller]) -> None:
    config = {"environment": {"VLLM_MODEL": "gpt2", "HF_TOKEN": "hf_secret"}, "gpu_per_replica": "2"}
    answer = caller("operate").post("/api/v1/recipes/vllm-replicas/render", {"config": config})
    assert answer.status_code == 200, answer.get_json()
    body = answer.get_json()
    assert (body["recipe"], body["count"]) == ("inference/vllm-replicas", 2)
    assert body["replica"]["model_name"] == "gpt2"
    assert body["plan"]["argv"][:3] == ["vllm", "serve", "gpt2"]
    assert "hf_secret" not in answer.get_data(as_text=True)
    assert admin.get("/api/v1/replicas").get_json()["total"] == 0
    assert caller("read").post("/api/v1/recipes/mock/render", {}).status_code == 403
    assert_problem(admin.post("/api/v1/recipes/mok/render", {}), 404, "not_found")
    assert_problem(admin.post("/api/v1/recipes/mock/render", {"config": {"x": 1}}), 422, "invalid_config")
    assert admin.post("/api/v1/recipes/mock/render").status_code == 200


def test_a_replica_by_a_recipe(admin: Caller) -> None:
    made = admin.post("/api/v1/replicas", {**MOCK, "config": {"parameters": {"slots": 3}}, "labels": {"a": "b"}})
    assert made.status_code == 202, made.get_json()
    shown = admin.get(f"/api/v1/replicas/{made.get_json()['replica_id']}").get_json()
    assert (shown["model_name"], shown["engine"], shown["server_mode"]) == ("mock", "mock", "replica_mock")
    assert shown["spec"]["recipe"] == "inference/mock"
    assert shown["spec"]["replica_config"] == {"mock": {"slots": 3}}
    assert shown["labels"] == {"a": "b"}
    plan = admin.post("/api/v1/replicas", {**MOCK, "model_name": "any", "dry_run": True}).get_json()
    assert (plan["engine"], plan["recipe"]) == ("mock", "inference/mock")


def test_the_replicas_own_fields_go_over_the_recipe(admin: Caller) -> None:
    body: dict[str, Any] = {
        "recipe": "vllm-replicas",
        "model_name": "gpt2",
        "environment": {"VLLM_MAX_MODEL_LEN": "128"},
        "replica_config": {"max_num_seqs": 7},
        "resources": {"gpus": 2},
        "timeouts": {"readiness_timeout_s": 5},
        "run_diagnostics": False,
        "dry_run": True,
    }
    plan = admin.post("/api/v1/replicas", body).get_json()
    assert plan["config"] == {"max_num_seqs": 7, "max_model_len": 128}
    assert plan["placement"]["gpus"] == 1
    assert any("service create" in warning for warning in plan["warnings"])


def test_errors_are_told_by_the_fields_that_were_sent(admin: Caller) -> None:
    wrong = {
        "recipe": "vllm-single-node",
        "environment": {"VLLM_SEED": "x"},
        "resources": {"gpus": -1},
        "config": {"parameters": {"dtype": "f"}},
    }
    problem = assert_problem(admin.post("/api/v1/replicas", wrong), 422, "invalid_config")
    assert set(problem["errors"]) == {"resources.gpus", "environment.VLLM_SEED", "config.parameters.dtype"}
    one = {"recipe": "vllm-single-node", "environment": {"VLLM_SEED": "x"}}
    problem = assert_problem(admin.post("/api/v1/replicas", one), 422, "invalid_config")
    assert "node: environment.VLLM_SEED: 'x' is not a whole number." in problem["detail"]
    problem = assert_problem(admin.post("/api/v1/replicas", {"recipe": "mok"}), 422, "unknown_recipe")
    assert set(problem["errors"]) == {"recipe"}
    for mode in ("replica_mock", "platform_workload"):
        body = {"recipe": "vllm-single-node", "server_mode": mode, "platform_config": {"command": ["sh"]}}
        assert_problem(admin.post("/api/v1/replicas", body), 400, "contradicting_options")
    assert_problem(admin.post("/api/v1/replicas", {"config": {}, "model_name": "x"}), 400, "missing_fields")
    assert_problem(admin.post("/api/v1/replicas", {}), 400, "missing_fields")
    # what only our own code may say
    assert_problem(admin.post("/api/v1/replicas", {**MOCK, "run": {"engine": "command"}}), 422, "invalid_config")


def test_a_replay_does_not_need_the_recipe_any_more(admin: Caller, write: Callable[[str, str], Path]) -> None:
    path = write("lab/once", "engine: mock\n")
    body = {"recipe": "lab/once", "wait_for_ready": False}
    made = admin.post("/api/v1/replicas", body, Idempotency_Key="k1")
    path.unlink()
    again = admin.post("/api/v1/replicas", body, Idempotency_Key="k1")
    assert (again.status_code, again.headers.get("Idempotency-Replayed")) == (202, "true")
    assert again.get_json()["replica_id"] == made.get_json()["replica_id"]
    assert_problem(admin.post("/api/v1/replicas", body, Idempotency_Key="k2"), 422, "unknown_recipe")


def test_a_file_is_read_again_and_a_broken_one_serves_as_it_last_was(
    admin: Caller, write: Callable[[str, str], Path], web_settings: Settings
) -> None:
    path = write("lab/own", 'engine: mock\nversion: "1"\n')
    assert admin.get("/api/v1/recipes/own").get_json()["version"] == "1"
    write("lab/own", 'engine: mock\nversion: "2"\n')
    assert admin.get("/api/v1/recipes/own").get_json()["version"] == "2"
    write("lab/own", "engine: mock\nversoin: 3\n")
    broken = admin.get("/api/v1/recipes/own").get_json()
    assert (broken["state"], broken["served"], broken["version"]) == ("broken", True, "2")
    assert broken["problems"] == ["versoin: is unknown. Did you mean version?"]
    assert admin.post("/api/v1/replicas", {**MOCK, "recipe": "own"}).status_code == 202
    os.unlink(path)
    assert_problem(admin.get("/api/v1/recipes/own"), 404, "not_found")
    write("lab/never", "engine: [")
    never = admin.get("/api/v1/recipes/never").get_json()
    assert (never["state"], never["served"]) == ("broken", False)
    problem = assert_problem(admin.post("/api/v1/replicas", {**MOCK, "recipe": "never"}), 422, "unknown_recipe")
    assert "cannot be served" in problem["detail"]
