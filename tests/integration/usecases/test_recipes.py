"""Rendering on a real database: what the seed's requests come to, and what is refused with which words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from app.engines.tiny_model import write_tiny_gguf
from app.errors import (
    Contradiction,
    Forbidden,
    InvalidConfig,
    ModelForbidden,
    UnknownModel,
    UnknownPool,
    UnknownRecipe,
)
from app.settings import Settings
from app.usecases import creates, keys, pools, recipes, replicas, services
from app.usecases.context import Actor, Context

SINGLE, REPLICAS = "inference/vllm-single-node", "inference/vllm-replicas"
QWEN = "Qwen/Qwen2.5-0.5B-Instruct"
USER = Actor("user", "user", "operate")
ADMIN = Actor("admin", "admin", "admin")
FULL: dict[str, Any] = {
    "environment": {
        "VLLM_MODEL": "gpt2",
        "VLLM_HOST": "0.0.0.0",
        "VLLM_PORT": "8001",
        "VLLM_MAX_MODEL_LEN": "2048",
        "VLLM_TENSOR_PARALLEL_SIZE": "4",
        "VLLM_GPU_MEMORY_UTILIZATION": "0.9",
        "CUDA_VISIBLE_DEVICES": "0",
    },
    "resources": {"cpu": "2", "memory": "32G", "time_limit": 15, "gpu": "4"},
}


@pytest.fixture
def ctx(settings: Settings, tmp_path: Path) -> Iterator[Context]:
    for name in ("models", "recipes", "secrets"):
        (tmp_path / name).mkdir(mode=0o700)
    found = Context.open(
        replace(
            settings,
            models_dir=tmp_path / "models",
            recipes_dir=tmp_path / "recipes",
            secrets_dir=tmp_path / "secrets",
        )
    )
    yield found
    found.close()


def write(ctx: Context, name: str, text: str) -> Path:
    path = ctx.settings.recipes_dir / f"{name}.yaml"
    path.parent.mkdir(mode=0o755, exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)
    return path


def errors_of(ctx: Context, name: str, config: dict[str, Any], who: Actor = USER, **more: Any) -> dict[str, list[str]]:
    with pytest.raises(InvalidConfig) as caught:
        recipes.render(ctx, who, name, config, **more)
    return caught.value.errors


def test_the_default_model_on_four_gpus(ctx: Context) -> None:
    made = recipes.render(ctx, USER, SINGLE, None)
    assert (made.recipe, made.count, made.warnings) == (SINGLE, 1, [])
    assert made.body["model_name"] == QWEN
    assert made.body["resources"] == {"gpus": 4, "nodes": 1}
    plan = creates.plan_create(ctx, USER, made.body)
    assert plan["argv"][:3] == ["vllm", "serve", QWEN]
    assert plan["argv"][plan["argv"].index("--tensor-parallel-size") + 1] == "4"


def test_replicas_share_the_gpus(ctx: Context) -> None:
    made = recipes.render(ctx, USER, REPLICAS, {})
    assert (made.count, made.body["resources"]["gpus"]) == (4, 1)
    made = recipes.render(ctx, USER, REPLICAS, {"resources": {"gpu": "4"}, "gpu_per_replica": 2})
    assert (made.count, made.body["resources"]["gpus"], made.warnings) == (2, 2, [])
    made = recipes.render(ctx, USER, REPLICAS, {"gpu_per_replica": "3"})
    assert (made.count, made.body["resources"]["gpus"]) == (1, 3)
    assert made.warnings == ["4 GPUs at 3 per replica are 1 replica; 1 GPU is left over and not leased."]
    assert "make no replica of 5" in errors_of(ctx, REPLICAS, {"gpu_per_replica": 5})["config.gpu_per_replica"][0]
    for number in (0, 3):
        assert recipes.render(ctx, USER, REPLICAS, {}, replicas=number).count == number
        assert recipes.render(ctx, USER, SINGLE, {}, replicas=number).count == number


def test_hosts_that_do_not_share_a_replicas_gpus_evenly_are_named_as_typed(ctx: Context) -> None:
    for config, field in (
        ({"resources": {"nodes": 2}}, "config.resources.nodes"),
        ({"resources": {"nodes": "2", "gpu": 8}, "gpu_per_replica": 1}, "config.resources.nodes"),
    ):
        (told,) = errors_of(ctx, REPLICAS, config).values()
        assert "1 GPU of each replica (gpu_per_replica)" in told[0]
        assert list(errors_of(ctx, REPLICAS, config)) == [field]
    for nodes in (0, -1, "two", 1.5, 2000):
        assert list(errors_of(ctx, REPLICAS, {"resources": {"nodes": nodes}})) == ["config.resources.nodes"]


def test_all_options_of_the_seed(ctx: Context) -> None:
    made = recipes.render(ctx, USER, SINGLE, FULL)
    body = made.body
    assert body["replica_config"] == {
        "tensor_parallel_size": 4,
        "max_model_len": 2048,
        "gpu_memory_utilization": 0.9,
    }
    assert body["resources"] == {"gpus": 4, "nodes": 1, "cpu": 2, "memory": "32G", "time_limit_s": 900}
    assert body["job"] == {"job_timeout_s": 900}
    assert body["model_name"] == "gpt2"
    assert body["run"]["source"] == "gpt2"
    assert "environment" not in body
    assert [warning.split()[0] for warning in made.warnings] == ["VLLM_HOST", "VLLM_PORT", "CUDA_VISIBLE_DEVICES"]
    assert "gpt2" in creates.plan_create(ctx, USER, body)["argv"]


def test_cpu_only(ctx: Context) -> None:
    config = {
        "environment": {"VLLM_MODEL": "gpt2"},
        "resources": {"nodes": 1, "cpu": "4", "memory": "16G", "gpu": None},
    }
    made = recipes.render(ctx, USER, SINGLE, config)
    assert made.body["resources"] == {"gpus": 0, "nodes": 1, "cpu": 4, "memory": "16G"}
    assert "--tensor-parallel-size" not in creates.plan_create(ctx, USER, made.body)["argv"]
    assert recipes.render(ctx, USER, REPLICAS, {"resources": {"gpu": None}}).count == 1


def test_more_resources(ctx: Context) -> None:
    config = {
        "environment": {"VLLM_MODEL": "gpt2"},
        "resources": {"cpu": "8", "memory": "64G", "time_limit": 120, "gpu": "4"},
    }
    assert recipes.render(ctx, USER, SINGLE, config).body["job"] == {"job_timeout_s": 7200}


def test_every_error_at_once_with_near_matches(ctx: Context) -> None:
    errors = errors_of(
        ctx,
        SINGLE,
        {
            "environment": {
                "VLLM_MAX_MODEL_LENGTH": "1",
                "VLLM_MAX_MODEL_LEN": "0",
                "VLLM_GPU_MEMORY_UTILIZATION": "1.5",
                "LD_PRELOAD": "x",
            },
            "parameters": {"dtyp": "auto", "seed": "none"},
        },
    )
    assert "Did you mean VLLM_MAX_MODEL_LEN?" in errors["config.environment.VLLM_MAX_MODEL_LENGTH"][0]
    assert errors["config.environment.VLLM_MAX_MODEL_LEN"] == ["0 is too small: from 1 to 2.14748e+09."]
    assert "too large" in errors["config.environment.VLLM_GPU_MEMORY_UTILIZATION"][0]
    assert "Neither a parameter" in errors["config.environment.LD_PRELOAD"][0]
    assert errors["config.parameters.dtyp"] == ["Unknown parameter. Did you mean dtype?"]
    assert "not a whole number" in errors["config.parameters.seed"][0]
    config = {"resorces": {}, "environment": {"VLLM_SEED": "x", "TZ": ["x"]}, "parameters": {"sed": 1}}
    assert set(errors_of(ctx, SINGLE, config)) == {
        "config.resorces",
        "config.environment.VLLM_SEED",
        "config.environment.TZ",
        "config.parameters.sed",
    }
    for part in ("environment", "parameters", "resources", "engine_config"):
        assert set(errors_of(ctx, SINGLE, {part: [1]})) == {f"config.{part}"}
    errors = errors_of(ctx, SINGLE, {"resorces": {}, "resources": {"gpus": 4, "cpu": "x", "time_limit": -1}})
    assert errors["config.resorces"] == ["Unknown. Did you mean resources?"]
    assert errors["config.resources.gpus"] == ["Unknown. Did you mean gpu?"]
    assert set(errors) == {
        "config.resorces",
        "config.resources.gpus",
        "config.resources.cpu",
        "config.resources.time_limit",
    }


def test_an_admin_gets_no_unknown_name_through_either(ctx: Context) -> None:
    assert "config.environment.VLLM_MAX_MODEL_LENN" in errors_of(
        ctx, SINGLE, {"environment": {"VLLM_MAX_MODEL_LENN": "1"}}, ADMIN
    )


def test_gpus_and_tensor_parallelism_must_fit(ctx: Context) -> None:
    errors = errors_of(ctx, SINGLE, {"environment": {"VLLM_TENSOR_PARALLEL_SIZE": "2"}})
    assert errors == {
        "config.environment.VLLM_TENSOR_PARALLEL_SIZE": [
            "Each replica gets 4 GPUs; this is written for 2. Make them the same."
        ]
    }
    assert set(errors_of(ctx, SINGLE, {"resources": {"nodes": 2}})) == {"config.resources.nodes"}


def test_several_hosts_only_for_an_engine_that_can(ctx: Context) -> None:
    with ctx.database.begin() as connection:
        connection.execute(text("UPDATE backends SET lacks = '{}', host_bound = false WHERE name = 'mock'"))
    pools.create(ctx, ADMIN, {"name": "wide", "backend": "mock", "slots": 4, "gpus": 4})
    wide = {"resources": {"nodes": 2, "gpu": 2}, "pool": "wide"}
    write(ctx, "lab/one", "engine: mock\n")
    write(ctx, "lab/several", 'engine: command\ncommand: ["x"]\n')
    told = errors_of(ctx, "one", wide)
    assert set(told) == {"config.resources.nodes"}
    assert "engine mock" in told["config.resources.nodes"][0]
    with pytest.raises(InvalidConfig) as caught:
        services.create(ctx, ADMIN, {"recipe_name": "one", "config": wide})
    assert set(caught.value.errors) == {"config.resources.nodes"}
    assert recipes.render(ctx, ADMIN, "several", wide, model_name="gpt2").body["resources"]["nodes"] == 2


def test_one_parameter_set_twice(ctx: Context) -> None:
    same = {"environment": {"VLLM_SEED": "7"}, "parameters": {"seed": 7}}
    assert recipes.render(ctx, USER, SINGLE, same).body["replica_config"] == {"seed": 7}
    with pytest.raises(Contradiction) as caught:
        recipes.render(ctx, USER, SINGLE, {**same, "parameters": {"seed": 8}})
    assert set(caught.value.errors) == {"config.environment.VLLM_SEED", "config.parameters.seed"}


def test_names(ctx: Context) -> None:
    assert recipes.render(ctx, USER, "vllm-single-node", {}).recipe == SINGLE
    for name in ("inference/vlm-single-node", "../inference/mock", "/etc/passwd", "inference/../inference/mock", ""):
        with pytest.raises(UnknownRecipe):
            recipes.render(ctx, USER, name, {})
    with pytest.raises(UnknownRecipe) as caught:
        recipes.render(ctx, USER, "vllm-single-nod", {})
    assert "Did you mean inference/vllm-single-node" in caught.value.detail
    write(ctx, "lab/mock", "engine: mock\n")
    with pytest.raises(UnknownRecipe) as caught:
        recipes.render(ctx, USER, "mock", {})
    assert "inference/mock or lab/mock" in caught.value.detail
    write(ctx, "lab/sunny", "engine: [")
    with pytest.raises(UnknownRecipe) as caught:
        recipes.render(ctx, USER, "suny", {})
    assert "Did you mean" not in caught.value.detail
    write(ctx, "lab/sunny", "engine: mock\n")
    with pytest.raises(UnknownRecipe) as caught:
        recipes.render(ctx, USER, "suny", {})
    assert "Did you mean lab/sunny?" in caught.value.detail


@pytest.mark.parametrize(
    "engine, taken", [("mock", False), ("qdrant-edge", False), ("qdrant", True), ("vllm", True), ("command", True)]
)
def test_a_command_that_is_left_out_is_told(ctx: Context, engine: str, taken: bool) -> None:
    write(ctx, "lab/own", f"engine: {engine}\n" + ('command: ["x"]\n' if engine == "command" else ""))
    made = recipes.render(ctx, ADMIN, "own", {"command": ["sleep", "1"]}, model_name="gpt2")
    told = [one for one in made.warnings if one.startswith("command is left out: ")]
    assert bool(told) is not taken
    assert not recipes.render(ctx, ADMIN, "own", {}, model_name="gpt2").warnings


def test_the_model_by_name_path_and_catalogue(ctx: Context, tmp_path: Path) -> None:
    made = recipes.render(ctx, USER, SINGLE, {}, model_name="gpt2")
    assert (made.body["model_name"], made.body["run"]["source"]) == ("gpt2", "gpt2")
    made = recipes.render(ctx, USER, SINGLE, {"environment": {"VLLM_MODEL": "gpt2"}}, model_name="mine")
    assert (made.body["model_name"], made.body["run"]["source"]) == ("mine", "gpt2")
    assert "config.parameters.model" in errors_of(ctx, "llama-cpp", {})
    tiny = write_tiny_gguf(ctx.settings.models_dir / "tiny.gguf")
    made = recipes.render(ctx, USER, "llama-cpp", {"parameters": {"model": "tiny"}})
    assert creates.plan_create(ctx, USER, made.body)["engine"] == "llama-cpp"
    assert recipes.render(ctx, USER, "llama-cpp", {"parameters": {"model": str(tiny)}}).body["model_name"] == "tiny"
    outside = write_tiny_gguf(tmp_path / "outside.gguf")
    (ctx.settings.models_dir / "link.gguf").symlink_to(outside)
    for path in (str(outside), "../outside.gguf", "./link.gguf", "/etc"):
        with pytest.raises(Forbidden):
            recipes.render(ctx, USER, "llama-cpp", {"parameters": {"model": path}})
    assert recipes.render(ctx, ADMIN, "llama-cpp", {"parameters": {"model": str(outside)}}).count == 1
    with pytest.raises(UnknownModel) as caught:
        recipes.render(ctx, USER, "llama-cpp", {"environment": {"LLAMA_MODEL": "tini"}})
    assert "Did you mean tiny" in caught.value.errors["config.environment.LLAMA_MODEL"][0]
    assert set(errors_of(ctx, "llama-cpp", {"parameters": {"model": "./gone.gguf"}})) == {"config.parameters.model"}


def test_the_only_model_of_an_engine_goes_without_saying(ctx: Context) -> None:
    write_tiny_gguf(ctx.settings.models_dir / "tiny.gguf")
    made = recipes.render(ctx, USER, "llama-cpp", {})
    assert made.body["model_name"] == "tiny"
    assert made.asked["parameters"] == {"model": "tiny"}, "an update keeps it"
    assert any("'tiny' is taken" in told for told in made.warnings)
    write_tiny_gguf(ctx.settings.models_dir / "other.gguf")
    assert "config.parameters.model" in errors_of(ctx, "llama-cpp", {})
    limited = replace(USER, models=("other",))
    assert recipes.render(ctx, limited, "llama-cpp", {}).body["model_name"] == "other"
    chosen = replace(ctx, settings=replace(ctx.settings, default_model="tiny"))
    assert recipes.render(chosen, USER, "llama-cpp", {}).body["model_name"] == "tiny"


def test_a_key_limited_to_models(ctx: Context) -> None:
    limited = replace(USER, models=("gpt2",))
    assert recipes.render(ctx, limited, SINGLE, {}, model_name="gpt2").count == 1
    other = {"VLLM_SERVED_MODEL_NAME": "gpt2", "VLLM_MODEL": "other"}
    for config in ({}, {"environment": {"VLLM_MODEL": "opt"}}, {"environment": other}):
        with pytest.raises(ModelForbidden):
            recipes.render(ctx, limited, SINGLE, config)


def test_what_only_an_admin_may_set(ctx: Context) -> None:
    for config in (
        {"secrets": {"X": {"file": "a"}}},
        {"command": ["x"]},
        {"image": "x"},
        {"engine_config": {"trust_remote_code": True}},
    ):
        with pytest.raises(Forbidden):
            recipes.render(ctx, USER, SINGLE, config)
        assert recipes.render(ctx, ADMIN, SINGLE, config).count == 1
    assert set(errors_of(ctx, SINGLE, {"engine_config": {"max_modl_len": 5}})) == {"config.engine_config.max_modl_len"}


def test_what_the_recipe_says_itself_counts_as_an_admins(ctx: Context) -> None:
    write(
        ctx,
        "lab/own",
        "engine: vllm\nengine_config: {trust_remote_code: true}\nenvironment: {VLLM_PLUGINS: x}\n"
        "command: [/opt/vllm/bin/vllm, serve]\nparameters: {model: {type: string, default: gpt2, sets: model}}\n",
    )
    plan = creates.plan_create(ctx, USER, recipes.render(ctx, USER, "own", {}).body)
    assert plan["argv"][:3] == ["/opt/vllm/bin/vllm", "serve", "gpt2"]
    assert "--trust-remote-code" in plan["argv"]
    assert plan["environment"]["VLLM_PLUGINS"] == "***"
    assert "config.environment.VLLM_PLUGINS" in errors_of(ctx, "own", {"environment": {"VLLM_PLUGINS": "y"}})
    made = recipes.render(ctx, ADMIN, "own", {"environment": {"VLLM_PLUGINS": "y"}})
    assert made.body["environment"] == {"VLLM_PLUGINS": "y"}
    assert made.asked == {"environment": {"VLLM_PLUGINS": "***"}}


def test_a_parameter_lets_users_set_what_only_an_admin_may(ctx: Context) -> None:
    write(
        ctx,
        "lab/remote",
        "engine: vllm\nparameters:\n  model: {type: string, default: gpt2, sets: model}\n"
        "  remote_code: {type: boolean, sets: engine_config.trust_remote_code, environment: REMOTE_CODE}\n",
    )
    made = recipes.render(ctx, USER, "remote", {"environment": {"REMOTE_CODE": True}})
    assert "--trust-remote-code" in creates.plan_create(ctx, USER, made.body)["argv"]
    with pytest.raises(Forbidden):
        recipes.render(ctx, USER, "remote", {"engine_config": {"trust_remote_code": True}})


def test_numbers_of_any_spelling(ctx: Context) -> None:
    config = {"resources": {"gpu": 4.0, "cpu": "2.5", "time_limit": "0.5"}, "gpu_per_replica": 2.0}
    made = recipes.render(ctx, USER, REPLICAS, config)
    assert (made.count, made.body["resources"]) == (2, {"gpus": 2, "nodes": 1, "cpu": 2.5, "time_limit_s": 30})
    assert isinstance(made.count, int)


def test_nulls_take_away(ctx: Context) -> None:
    write(
        ctx,
        "lab/full",
        "engine: vllm\nenvironment: {VLLM_LOGGING_LEVEL: DEBUG, TZ: UTC, VLLM_PLUGINS: x}\n"
        "resources: {gpu: 2, cpu: 4}\ngpu_per_replica: 1\n"
        "parameters: {model: {type: string, default: gpt2, sets: model, environment: M},"
        " seed: {type: integer, default: 5}}\n",
    )
    made = recipes.render(ctx, USER, "full", {"environment": {"TZ": None}, "gpu_per_replica": None})
    assert set(made.body["environment"]) == {"VLLM_LOGGING_LEVEL", "VLLM_PLUGINS"}
    assert (made.count, made.body["resources"]) == (1, {"gpus": 2, "cpu": 4})
    made = recipes.render(ctx, USER, "full", {"environment": None, "resources": None, "parameters": {"seed": None}})
    assert "environment" not in made.body
    assert made.body["resources"] == {"gpus": 0}
    assert "seed" not in made.body.get("replica_config", {})
    # no model at all is none that is called like the recipe
    assert set(errors_of(ctx, "full", {"environment": {"M": None}})) == {"config.environment.M"}
    assert set(errors_of(ctx, "full", {"environment": {"VLLM_PLUGINS": None}})) == {"config.environment.VLLM_PLUGINS"}


@pytest.mark.parametrize("name", ["a\nb", "a\0b", " a", "/", "x" * 201, "a\x7f"])
def test_names_that_no_model_may_have(ctx: Context, name: str) -> None:
    for config in ({"environment": {"MOCK_MODEL": name}}, {"parameters": {"model": name}}):
        assert len(errors_of(ctx, "inference/mock", config)) == 1


def test_thousands_of_wrong_names_are_told_soon(ctx: Context) -> None:
    names = {f"resource_{number}": 1 for number in range(20_000)}
    assert len(errors_of(ctx, SINGLE, names)) == 20_000
    assert len(errors_of(ctx, SINGLE, {"engine_config": names})) == 20_000
    assert "config.parameters" in errors_of(ctx, SINGLE, {"parameters": names})


def test_what_keeps_data_is_alone(ctx: Context) -> None:
    made = recipes.render(ctx, USER, "vector-db/qdrant-edge", {})
    assert (made.count, made.update["max_surge"], made.update["max_unavailable"]) == (1, 0, 1)
    assert "2 would be 2 stores" in errors_of(ctx, "qdrant-edge", {}, replicas=2)["replicas"][0]
    assert set(errors_of(ctx, "qdrant", {"replicas": 2})) == {"config.replicas"}
    assert set(errors_of(ctx, "qdrant", {"resources": {"gpu": 1}})) == {"config.resources.gpu"}
    made_by = keys.create(ctx, ADMIN, {"name": "user", "role": "operate"}, None).record["id"]
    who = replace(USER, key_id=made_by)
    service_id = services.create(ctx, who, {"recipe_name": "qdrant-edge"}).service_id
    with pytest.raises(InvalidConfig) as caught:
        services.scale(ctx, who, service_id, 2)
    assert set(caught.value.errors) == {"replicas"}


def test_what_may_be_secret_is_not_repeated(ctx: Context) -> None:
    for value in (["hf_word"], "hf_word" * 10_000):
        errors = errors_of(ctx, SINGLE, {"environment": {"HF_TOKEN": value}})
        assert "hf_word" not in str(errors)
        assert set(errors) == {"config.environment.HF_TOKEN"}
    made = recipes.render(ctx, USER, SINGLE, {"environment": {"HF_TOKEN": "hf_word", "VLLM_SEED": 1}})
    assert made.asked["environment"] == {"HF_TOKEN": "***", "VLLM_SEED": 1}
    assert "HF_TOKEN" not in made.body["run"].get("secrets", {})
    assert "hf_word" not in str(recipes.shown(made.body))


def test_a_command_recipe_is_for_everybody(ctx: Context) -> None:
    write(
        ctx,
        "lab/echo",
        "engine: command\ncommand: [python3, -m, http.server, '{port}']\nreadiness: {path: /}\n"
        "environment: {GREETING: hello}\nparameters: {loud: {type: boolean, default: false, sets: environment.LOUD}}\n",
    )
    made = recipes.render(ctx, USER, "echo", {"parameters": {"loud": "true"}})
    plan = creates.plan_create(ctx, USER, made.body)
    assert plan["argv"][:3] == ["python3", "-m", "http.server"]
    assert made.body["environment"] == {"GREETING": "hello", "LOUD": "true"}
    made_by = keys.create(ctx, ADMIN, {"name": "user", "role": "operate"}, None).record["id"]
    outcome = creates.request_create(ctx, replace(USER, key_id=made_by), made.body)
    with ctx.database.read() as connection:
        row = connection.exec_driver_sql(f"SELECT spec FROM replicas WHERE id = '{outcome.replica_id}'").one()
    assert row.spec["granted_role"] == "admin"
    assert row.spec["recipe"] == "lab/echo"
    for config in ({"engine_config": {"command": ["sh"]}}, {"command": ["sh"]}):
        with pytest.raises(Forbidden):
            recipes.render(ctx, USER, "echo", config)


def test_a_pool_by_its_labels(ctx: Context) -> None:
    pools.create(ctx, ADMIN, {"name": "big", "backend": "mock", "slots": 5, "labels": {"gpu": "a100", "x": "1"}})
    write(ctx, "lab/big", "engine: mock\npool: {labels: {gpu: a100}}\n")
    assert recipes.render(ctx, USER, "big", {}).body["pool"] == "big"
    assert recipes.render(ctx, USER, "big", {}, pool="mock").body["pool"] == "mock"
    assert recipes.render(ctx, USER, "big", {"pool": "local"}).body["pool"] == "local"
    assert recipes.render(ctx, USER, "big", {"pool": {"name": "local"}}).body["pool"] == "local"
    assert "pool" not in recipes.render(ctx, USER, "big", {"pool": None}).body
    assert set(errors_of(ctx, "big", {"pool": {"name": "a", "labels": {"b": "c"}}})) == {"config.pool"}
    for pool in ({"labels": {"gpu": "h100"}}, "bigg"):
        with pytest.raises(UnknownPool):
            recipes.render(ctx, USER, "big", {"pool": pool})


def test_update_and_restart_over_their_defaults(ctx: Context) -> None:
    made = recipes.render(ctx, USER, "inference/mock", {"restart": {"tries": "2"}, "update": {"max_surge": 2}})
    assert made.restart == {"tries": 2, "backoff_s": 10, "backoff_max_s": 300, "stable_s": 60, "unhealthy_s": 120}
    assert made.update == {"max_surge": 2, "max_unavailable": 0, "progress_deadline_s": 600, "auto_rollback": True}
    assert (made.successor_lead_s, made.all_or_nothing) == (None, False)


def test_a_rendered_mock_is_created(ctx: Context) -> None:
    config = {"environment": {"MOCK_STARTUP_S": "0.5"}, "labels": {"team": "a"}, "readiness": {"timeout_s": 9}}
    made = recipes.render(ctx, USER, "inference/mock", config, model_name="any")
    body = made.body
    assert (body["server_mode"], body["model_name"]) == ("replica_mock", "any")
    assert body["replica_config"] == {"mock": {"startup_s": 0.5}}
    assert (body["labels"], body["timeouts"]) == ({"team": "a"}, {"readiness_timeout_s": 9})
    made_by = keys.create(ctx, ADMIN, {"name": "user", "role": "operate"}, None).record["id"]
    outcome = creates.request_create(ctx, replace(USER, key_id=made_by), body)
    shown = replicas.get(ctx, outcome.replica_id)
    assert (shown["engine"], shown["spec"]["recipe"], shown["labels"]) == ("mock", "inference/mock", {"team": "a"})
    assert "run" not in shown["spec"]


_WORDS = st.sampled_from(["model", "seed", "HF_TOKEN", "LD_PRELOAD", "gpu", "mock", "\u2603", "a b", "", "x" * 300])
_ODD = st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(allow_nan=False) | st.text(max_size=5)
_ANY = st.recursive(_ODD, lambda one: st.dictionaries(_WORDS, one, max_size=3) | st.lists(one, max_size=3))
_TEXTS = st.sampled_from(
    ["4", "0.9", "gpt2", "../x", "/etc", "a\0b", "", "{folder}", "-x", "64G", "1e400", "true", " 7"]
)
_NUMBERS = st.integers(0, 8) | st.sampled_from([0.5, 2.0, "2", "x", -1, None])


def _some(**parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects that are nearly right: known members, mostly of the right kind, and now and then anything at all."""
    return st.fixed_dictionaries({}, optional=parts) | _ANY


_PARTS: dict[str, st.SearchStrategy[Any]] = {
    "environment": st.dictionaries(
        st.sampled_from(["VLLM_MODEL", "VLLM_SEED", "VLLM_TENSOR_PARALLEL_SIZE", "MOCK_MODEL", "LLAMA_MODEL", "TZ"])
        | _WORDS,
        _TEXTS | _NUMBERS,
        max_size=3,
    ),
    "parameters": st.dictionaries(st.sampled_from(["model", "seed", "slots", "dtype"]), _TEXTS | _NUMBERS, max_size=2),
    "resources": _some(gpu=_NUMBERS, cpu=_NUMBERS, memory=_TEXTS, nodes=_NUMBERS, time_limit=_NUMBERS),
    "gpu_per_replica": _NUMBERS,
    "replicas": _NUMBERS,
    "base_port": _NUMBERS,
    "pool": st.sampled_from(["local", "mock", "none", {"labels": {"a": "b"}}, {"name": "mock"}]) | _ANY,
    "engine_config": _some(
        mock=_some(slots=_NUMBERS), seed=_NUMBERS, backend_options=_ANY, tensor_parallel_size=_NUMBERS
    ),
    "labels": st.dictionaries(st.sampled_from(["team", "service_id"]), _TEXTS, max_size=2),
    "update": _some(max_surge=_NUMBERS),
    "restart": _some(tries=_NUMBERS),
    "readiness": _some(timeout_s=_NUMBERS, path=_TEXTS),
    "probes": _some(run_diagnostics=st.booleans(), timeout_s=_NUMBERS),
    "gateway": _some(max_concurrency=_NUMBERS),
    "capabilities": _ANY,
    "secrets": _some(HF_TOKEN=_some(file=_TEXTS)),
    "command": st.lists(_TEXTS, max_size=2),
    "image": _TEXTS,
}
#: A few of them each time: with all of them one would be wrong nearly always.
_CONFIGS = st.sets(st.sampled_from(sorted(_PARTS)), max_size=3).flatmap(
    lambda names: st.fixed_dictionaries({name: _PARTS[name] for name in names})
)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(_CONFIGS, st.sampled_from([USER, ADMIN]), st.none() | _TEXTS, st.none() | st.integers(0, 5))
def test_any_request_is_rendered_or_refused(
    ctx: Context, config: Any, who: Actor, model_name: str | None, replicas: int | None
) -> None:
    for name in ("inference/mock", SINGLE, REPLICAS, "inference/llama-cpp", "vector-db/qdrant-edge"):
        with suppress(InvalidConfig, Contradiction, Forbidden):
            made = recipes.render(ctx, who, name, config, model_name=model_name, replicas=replicas)
            # what was rendered can be stored, and planned
            json.dumps([made.body, made.asked], allow_nan=False)
            assert made.count >= 0
            creates.plan_create(ctx, who, made.body)
