"""Models through the API: the catalogue, the files of the folder, and who may name a path outside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.engines.tiny_model import write_tiny_gguf
from app.settings import Settings
from app.usecases import models
from app.usecases.context import Context
from tests.integration.api.conftest import Caller
from tests.support.problems import assert_problem


@pytest.fixture
def tiny(web_settings: Settings) -> Path:
    return write_tiny_gguf(web_settings.models_dir / "tiny.gguf")


def test_every_gguf_file_is_a_model(admin: Caller, tiny: Path) -> None:
    (tiny.parent / "broken.gguf").write_bytes(b"no model")
    (tiny.parent / "notes.txt").write_text("no model")
    body = admin.get("/api/v1/models").get_json()
    assert [model["name"] for model in body["models"]] == ["broken", "tiny"]
    assert body["total"] == 2
    broken, found = body["models"]
    assert "copy it again" in broken["problem"]
    assert (found["engine"], found["format"], found["problem"], found["in_catalogue"]) == (
        "llama-cpp",
        "gguf",
        "",
        False,
    )
    assert admin.get("/api/v1/models/tiny").get_json() == found
    assert_problem(admin("DELETE", "/api/v1/models/tiny"), 409, "conflict")


def test_a_catalogue_model_lives(admin: Caller, tiny: Path, ctx: Context) -> None:
    body = {"name": "llama3.1-8b", "engine": "llama-cpp", "source": "tiny.gguf", "aliases": ["llama", "llama"]}
    made = admin.post("/api/v1/models", body | {"defaults": {"n_ctx": 512}})
    assert made.status_code == 201, made.get_json()
    assert made.headers["Location"] == "/api/v1/models/llama3.1-8b"
    assert made.get_json()["source"] == str(tiny)
    assert made.get_json()["aliases"] == ["llama"]
    assert admin.get("/api/v1/models/llama").get_json()["name"] == "llama3.1-8b"
    with ctx.database.read() as connection:
        found = models.find(ctx, connection, "llama")
        assert found is not None
        assert (found["name"], found["defaults"], found["source"]) == ("llama3.1-8b", {"n_ctx": 512}, str(tiny))
        assert models.names(ctx, connection) == ["llama", "llama3.1-8b", "tiny"]
    for taken in ({"name": "llama"}, {"name": "other", "aliases": ["llama3.1-8b"]}):
        assert_problem(admin.post("/api/v1/models", body | taken), 409, "name_taken")
    assert admin("DELETE", "/api/v1/models/llama3.1-8b").status_code == 204
    assert_problem(admin.get("/api/v1/models/llama"), 404, "not_found")


def test_a_name_may_hold_slashes(admin: Caller, tiny: Path) -> None:
    body = {"name": "Qwen/Qwen2.5-0.5B", "engine": "llama-cpp", "source": "tiny.gguf"}
    made = admin.post("/api/v1/models", body)
    assert made.headers["Location"] == "/api/v1/models/Qwen/Qwen2.5-0.5B"
    assert admin.get(made.headers["Location"]).get_json()["name"] == "Qwen/Qwen2.5-0.5B"
    assert admin("DELETE", made.headers["Location"]).status_code == 204


def test_paths_outside_the_folder_need_admin(admin: Caller, caller, tiny: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    outside = write_tiny_gguf(tmp_path / "outside.gguf")
    (tiny.parent / "link.gguf").symlink_to(outside)
    operator = caller("operate")
    body = {"name": "m", "engine": "llama-cpp"}
    for source in (str(outside), "../outside.gguf", "link.gguf", "/etc/passwd"):
        assert_problem(operator.post("/api/v1/models", body | {"source": source}), 403, "forbidden")
    assert operator.post("/api/v1/models", body | {"source": "tiny.gguf"}).status_code == 201
    assert admin.post("/api/v1/models", body | {"name": "n", "source": str(outside)}).status_code == 201


def test_what_is_refused(admin: Caller, tiny: Path) -> None:
    body = {"name": "m", "engine": "llama-cpp", "source": "tiny.gguf"}
    assert "Did you mean llama-cpp?" in str(
        assert_problem(admin.post("/api/v1/models", body | {"engine": "llama-cp"}), 422, "invalid_config")["errors"]
    )
    assert_problem(admin.post("/api/v1/models", body | {"source": "gone.gguf"}), 422, "invalid_config")
    assert_problem(admin.post("/api/v1/models", body | {"source": ""}), 422, "invalid_config")
    assert_problem(admin.post("/api/v1/models", {"name": "m"}), 400, "missing_fields")
    assert_problem(admin.get("/api/v1/models/tny"), 404, "not_found")
    for name in ("../x", "%2e%2e/x", "a/../../b", "." * 3, "x" * 300):
        assert_problem(admin.get(f"/api/v1/models/{name}"), 404, "not_found")


def test_a_hub_models_source_is_a_name_on_the_hub_or_a_folder(admin: Caller, caller, web_settings: Settings) -> None:  # type: ignore[no-untyped-def]
    folder = web_settings.models_dir / "qwen"
    folder.mkdir(parents=True)
    operator = caller("operate")
    body = {"engine": "vllm"}
    for name, source, kept in (
        ("a", "Qwen/Qwen2.5", "Qwen/Qwen2.5"),
        ("b", "./qwen", str(folder)),
        ("gpt2", "", "gpt2"),
    ):
        made = operator.post("/api/v1/models", body | {"name": name, "source": source})
        assert made.status_code == 201, made.get_json()
        assert made.get_json()["source"] == kept
    for source in ("s3://bucket/x", "a/b/c", "-x", "a b", "~/x"):
        refused = assert_problem(
            operator.post("/api/v1/models", body | {"name": "c", "source": source}), 422, "invalid_config"
        )
        assert list(refused["errors"]) == ["source"]
    for source in ("/etc", "../..", "./../../etc"):
        assert_problem(operator.post("/api/v1/models", body | {"name": "c", "source": source}), 403, "forbidden")
    assert_problem(admin.post("/api/v1/models", body | {"name": "c", "source": "./gone"}), 422, "invalid_config")


def test_what_runs_code_needs_admin_or_an_admins_model(admin: Caller, caller, web_settings: Settings) -> None:  # type: ignore[no-untyped-def]
    operator = caller("operate")
    body = {"engine": "vllm", "source": "Qwen/Qwen2.5"}
    trusting = {"defaults": {"trust_remote_code": True}}
    assert_problem(operator.post("/api/v1/models", {"name": "a", **body, **trusting}), 403, "forbidden")
    assert admin.post("/api/v1/models", {"name": "trusted", **body, **trusting}).status_code == 201
    assert operator.post("/api/v1/models", {"name": "plain", **body}).status_code == 201
    create = {"server_mode": "replica", "dry_run": True}
    planned = operator.post("/api/v1/replicas", {**create, "model_name": "trusted"})
    assert "--trust-remote-code" in planned.get_json()["argv"]
    for config in ({"trust_remote_code": True}, {"extra_args": ["--enforce-eager"]}):
        for nested in (config, {"replica_config": config}):
            asked = {**create, "model_name": "plain", "replica_config": nested}
            refused = assert_problem(operator.post("/api/v1/replicas", asked), 403, "forbidden")
            assert list(refused["errors"]) == [f"replica_config.{next(iter(config))}"]
            assert admin.post("/api/v1/replicas", asked).status_code == 200
    # what only the whole command shows is told before anything is written
    uneven = {"resources": {"gpus": 3}, "replica_config": {"pipeline_parallel_size": 2}}
    asked = {"server_mode": "replica", "model_name": "plain", **uneven}
    refused = assert_problem(operator.post("/api/v1/replicas", asked), 422, "invalid_config")
    assert list(refused["errors"]) == ["replica_config.pipeline_parallel_size"]
    # ports and devices come from leases, whatever the environment asks for
    wishes = {"VLLM_HOST": "0.0.0.0", "VLLM_PORT": "8001", "CUDA_VISIBLE_DEVICES": "3"}
    told = operator.post("/api/v1/replicas", {**create, "model_name": "plain", "environment": wishes}).get_json()
    assert not set(wishes) & set(told["environment"])
    assert [words.split()[0] for words in told["warnings"]] == ["CUDA_VISIBLE_DEVICES", "VLLM_HOST", "VLLM_PORT"]
    # no is what it is anyway
    asked = {**create, "model_name": "trusted", "replica_config": {"trust_remote_code": False}}
    assert "--no-trust-remote-code" in operator.post("/api/v1/replicas", asked).get_json()["argv"]


def test_an_external_server_needs_the_list_or_admin(admin: Caller, caller) -> None:  # type: ignore[no-untyped-def]
    operator = caller("operate")
    body = {"name": "gpt-4o", "engine": "openai-compatible"}
    elsewhere = {"defaults": {"base_url": "https://api.example.com/v1"}}
    assert_problem(operator.post("/api/v1/models", body | elsewhere), 403, "forbidden")
    for never in ("http://169.254.169.254/v1", "http://127.0.0.1:20001/v1"):
        assert_problem(admin.post("/api/v1/models", body | {"defaults": {"base_url": never}}), 403, "forbidden")
    assert_problem(admin.post("/api/v1/models", body), 422, "invalid_config")
    assert_problem(admin.post("/api/v1/models", body | elsewhere | {"aliases": ["gpt"]}), 422, "invalid_config")
    assert admin.post("/api/v1/models", body | elsewhere).status_code == 201
    create = {"server_mode": "replica", "model_name": "gpt-4o", "dry_run": True}
    secret = {"environment": {"UPSTREAM_API_KEY": "sk-very-secret"}}
    planned = operator.post("/api/v1/replicas", create | secret)
    assert planned.status_code == 200, planned.get_json()
    assert "sk-very-secret" not in planned.get_data(as_text=True)
    assert planned.get_json()["environment"] == {"UPSTREAM_API_KEY": "***"}
    unsent = {"environment": {"UPSTREAM_API_KEY": "a\nb"}, "dry_run": False}
    refused = assert_problem(operator.post("/api/v1/replicas", create | unsent), 422, "invalid_config")
    assert list(refused["errors"]) == ["environment.UPSTREAM_API_KEY"]
    other = {"replica_config": {"base_url": "https://evil.example/v1"}}
    assert_problem(operator.post("/api/v1/replicas", create | other), 403, "forbidden")
    assert admin.post("/api/v1/replicas", create | other).status_code == 200
    assert_problem(operator.post("/api/v1/replicas", create | {"resources": {"gpus": 1}}), 422, "invalid_config")
