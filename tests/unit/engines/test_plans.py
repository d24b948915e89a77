"""What each engine makes of a config: a table of wishes and of mistakes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.engines.base import Command, EngineRequest
from app.engines.llama_cpp import DEFAULT_PARALLEL, MAX_PARALLEL
from app.engines.mock import KNOBS
from app.engines.programs.mock_server.knobs import DEFAULTS, Knobs
from app.engines.registry import engine
from app.errors import InvalidConfig

REQUEST = EngineRequest(model_name="m", model_path=Path("/models/m.gguf"), host="127.0.0.1", port=20001, engine_key="k")

MISTAKES = [
    ("llama-cpp", {"n_ctx": "many"}, ["n_ctx"]),
    ("llama-cpp", {"n_ctx": -1, "threads": 0}, ["n_ctx", "threads"]),
    ("llama-cpp", {"n_parallel": MAX_PARALLEL + 1}, ["n_parallel"]),
    ("llama-cpp", {"warmup": 1}, ["warmup"]),
    ("llama-cpp", {"seed": True}, ["seed"]),
    ("mock", {"mock": {"latency_ms": -1}}, ["mock.latency_ms"]),
    ("mock", {"mock": {"latncy_ms": 1}}, ["mock.latncy_ms"]),
    ("mock", {"mock": []}, ["mock"]),
    ("mock", {"mock": {"error_rate": 1.5}}, ["mock.error_rate"]),
    ("mock", {"mock": {"log_lines": ["fine", 1]}}, ["mock.log_lines.1"]),
    ("qdrant", {"log_level": "LOUD"}, ["log_level"]),
    ("qdrant", {"max_workers": 0, "on_disk_payload": "yes"}, ["max_workers", "on_disk_payload"]),
    ("command", {}, ["command"]),
    ("command", {"command": []}, ["command"]),
    ("command", {"command": "ls -l"}, ["command"]),
    ("command", {"command": ["ls", 1]}, ["command.1"]),
    ("command", {"command": [" "]}, ["command.0"]),
    ("command", {"command": ["a\0b"]}, ["command"]),
    ("command", {"command": ["a"], "readiness_path": "ready"}, ["readiness_path"]),
    ("command", {"command": ["a"], "readiness_path": "/a HTTP/1.1\r\nX: y"}, ["readiness_path"]),
]


@pytest.mark.parametrize("name, config, fields", MISTAKES)
def test_a_mistake_is_told_by_its_field(name: str, config: dict[str, Any], fields: list[str]) -> None:
    assert sorted(engine(name).validate(config)) == fields
    with pytest.raises(InvalidConfig) as refused:
        engine(name).command(replace(REQUEST, config=config))
    assert sorted(refused.value.errors) == [f"replica_config.{field}" for field in fields]


def test_an_unknown_engine_is_told_the_known_ones() -> None:
    with pytest.raises(InvalidConfig, match="llama-cpp, vllm, sglang"):
        engine("tgi")


@pytest.mark.parametrize(
    "config, parallel",
    [
        ({}, DEFAULT_PARALLEL),
        ({"max_batch_size": 32}, 32),
        ({"max_batch_size": 512}, MAX_PARALLEL),
        ({"max_batch_size": 32, "n_parallel": 2}, 2),
    ],
)
def test_a_batch_size_is_sequences_at_once(config: dict[str, Any], parallel: int) -> None:
    assert _file(_plan("llama-cpp", **config))["n_parallel"] == parallel


def test_llama_cpp_gets_what_the_config_says_and_nothing_else() -> None:
    file = _file(_plan("llama-cpp", n_ctx=512, seed=3, api_config={"timeout": 120}))
    assert file == {
        "model": "/models/m.gguf",
        "alias": "m",
        "host": "127.0.0.1",
        "port": 20001,
        "n_ctx": 512,
        "n_parallel": DEFAULT_PARALLEL,
        "seed": 3,
    }


def test_llama_cpp_spins_shortly_unless_the_user_decides() -> None:
    assert _plan("llama-cpp").env["GOMP_SPINCOUNT"] == "1000"
    for theirs in ({"GOMP_SPINCOUNT": "5"}, {"OMP_WAIT_POLICY": "passive"}):
        plan = engine("llama-cpp").command(replace(REQUEST, environment=theirs))
        assert {name: plan.env[name] for name in plan.env if "OMP" in name} == theirs


def test_an_embedding_server_is_not_asked_for_completions() -> None:
    asked = engine("llama-cpp").diagnostics({"embedding": True})
    assert [check.name for check in asked] == ["health", "models"]


def test_the_command_is_filled_in_and_other_braces_stay() -> None:
    words = ["{model}", "--port={port}", "{host}", "{folder}/x", '{"a": {"b": 1}}', "{model_name}", "$(id)"]
    plan = engine("command").command(
        replace(REQUEST, config={"command": words}, environment={"WHERE": "{host}:{port}", "IN": "{folder}"})
    )
    expected = ("/models/m.gguf", "--port=20001", "127.0.0.1", "{folder}/x", '{"a": {"b": 1}}', "m", "$(id)")
    assert plan.argv == expected
    assert plan.env == {"WHERE": "127.0.0.1:20001", "IN": "{folder}", "HOSTLER_ENGINE_KEY": "k"}
    assert plan.secret_env == set(plan.env)


def test_a_command_without_a_file_gets_the_models_name() -> None:
    plan = engine("command").command(replace(REQUEST, model_path=None, config={"command": ["serve", "{model}"]}))
    assert plan.argv == ("serve", "m")


def test_the_readiness_path_of_a_command_is_what_diagnostics_ask() -> None:
    config = {"command": ["a"], "readiness_path": "/up"}
    assert [check.path for check in engine("command").diagnostics(config)] == ["/up"]
    asked = engine("command").diagnostics({**config, "diagnostics": "openai"})
    assert [check.path for check in asked][:2] == ["/up", "/v1/models"]


def test_every_knob_is_documented_and_has_a_default_that_fits() -> None:
    assert set(KNOBS) == set(DEFAULTS) == set(Knobs.__annotations__)
    given = {name: value for name, value in DEFAULTS.items() if value is not None}
    assert engine("mock").validate({"mock": given}) == {}


def test_a_number_of_log_lines_becomes_lines() -> None:
    assert Knobs({"log_lines": 2}).log_lines == ["mock: log line 1 of 2", "mock: log line 2 of 2"]
    assert Knobs({"log_lines": ["a"]}).log_lines == ["a"]


def _plan(name: str, **config: Any) -> Command:
    return engine(name).command(replace(REQUEST, config=config))


def _file(command: Command) -> dict[str, Any]:
    (content,) = command.files.values()
    return dict(json.loads(content))
