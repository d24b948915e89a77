"""vLLM and SGLang: what a config comes to as arguments, and what never gets that far."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.engines import sglang, vllm
from app.engines.base import Command, EngineRequest
from app.engines.registry import engine
from app.errors import InvalidConfig
from tests.standins import common

REQUEST = EngineRequest(
    model_name="qwen",
    model_path=None,
    host="127.0.0.1",
    port=20001,
    engine_key="the-engine-key",
    source="Qwen/Qwen2.5-0.5B-Instruct",
    program=("run", "it"),
    cache_dir=Path("/state/cache"),
)
BOTH = pytest.mark.parametrize("name", ["vllm", "sglang"])


def _plan(name: str, *, gpus: int = 0, **config: Any) -> Command:
    return engine(name).command(replace(REQUEST, config=config, gpus=gpus))


@BOTH
def test_the_program_its_model_its_name_and_its_address(name: str) -> None:
    argv = _plan(name).argv
    assert argv[:2] == ("run", "it")
    for flag, value in (("--served-model-name", "qwen"), ("--host", "127.0.0.1"), ("--port", "20001")):
        assert argv[argv.index(flag) + 1] == value
    assert [word for word in argv if word.endswith("Qwen/Qwen2.5-0.5B-Instruct")]


def test_the_key_goes_to_vllm_by_environment_and_to_sglang_by_file() -> None:
    plan = _plan("vllm")
    assert (plan.env["VLLM_API_KEY"], "VLLM_API_KEY" in plan.secret_env) == ("the-engine-key", True)
    plan = _plan("sglang")
    assert plan.files["sglang.yaml"] == '{"api-key": "the-engine-key"}'
    assert plan.argv[2:4] == ("--config", "{folder}/sglang.yaml")
    for name in ("vllm", "sglang"):
        assert not [word for word in _plan(name).argv if "the-engine-key" in word]


@BOTH
@pytest.mark.parametrize(
    "config, gpus, expected",
    [
        ({}, 0, None),
        ({}, 4, 4),
        ({"pipeline_parallel_size": 2}, 4, 2),
        ({"tensor_parallel_size": 2, "data_parallel_size": 2}, 4, 2),
    ],
)
def test_layers_are_shared_by_all_gpus_that_are_left(
    name: str, config: dict[str, Any], gpus: int, expected: int | None
) -> None:
    argv = _plan(name, gpus=gpus, **config).argv
    found = [argv[index + 1] for index, word in enumerate(argv) if word == "--tensor-parallel-size"]
    assert found == ([] if expected is None else [str(expected)])


@BOTH
def test_gpus_that_cannot_be_shared_evenly_are_refused(name: str) -> None:
    with pytest.raises(InvalidConfig, match="3 GPUs cannot be shared by 2"):
        _plan(name, gpus=3, pipeline_parallel_size=2)


@BOTH
def test_a_config_says_how_many_gpus_it_is_written_for(name: str) -> None:
    it = engine(name)
    assert it.gpus_needed({}) is None
    assert it.gpus_needed({"pipeline_parallel_size": 2}) is None
    assert it.gpus_needed({"tensor_parallel_size": 2, "pipeline_parallel_size": 2, "data_parallel_size": 3}) == 12


@pytest.mark.parametrize(
    "name, config, words",
    [
        ("vllm", {"max_model_len": 4096.0, "max_batch_size": 8}, "--max-model-len 4096 --max-num-seqs 8"),
        ("vllm", {"max_batch_size": 8, "max_num_seqs": 4}, "--max-num-seqs 4"),
        ("vllm", {"enforce_eager": False}, "--no-enforce-eager"),
        ("vllm", {"enforce_eager": True}, "--enforce-eager"),
        ("vllm", {"limit_mm_per_prompt": {"image": 2}}, '--limit-mm-per-prompt {"image":2}'),
        ("vllm", {"chat_template": "{{ messages }}"}, "--chat-template {folder}/chat-template.jinja"),
        ("sglang", {"max_model_len": 4096, "max_batch_size": 8}, "--context-length 4096 --max-running-requests 8"),
        ("sglang", {"gpu_memory_utilization": 0.8}, "--mem-fraction-static 0.8"),
        ("sglang", {"chunked_prefill_size": -1}, "--chunked-prefill-size=-1"),
        ("sglang", {"disable_radix_cache": True}, "--disable-radix-cache"),
        ("sglang", {"chat_template": "x"}, "--chat-template {folder}/chat-template.jinja"),
    ],
)
def test_a_member_becomes_a_flag_and_its_value(name: str, config: dict[str, Any], words: str) -> None:
    bare = _plan(name).argv
    assert [word for word in _plan(name, **config).argv if word not in bare] == words.split()


@pytest.mark.parametrize(
    "name, config, field",
    [
        ("vllm", {"gpu_memory_utilization": 0}, "gpu_memory_utilization"),
        ("vllm", {"gpu_memory_utilization": 1.01}, "gpu_memory_utilization"),
        ("vllm", {"max_num_seqs": 10**9}, "max_num_seqs"),
        ("vllm", {"max_num_seqs": True}, "max_num_seqs"),
        ("vllm", {"tensor_parallel_size": 0}, "tensor_parallel_size"),
        ("vllm", {"dtype": "--trust-remote-code"}, "dtype"),
        ("vllm", {"quantization": "--trust-remote-code"}, "quantization"),
        ("vllm", {"quantization": "awq\n"}, "quantization"),
        ("vllm", {"quantization": "awq --trust-remote-code"}, "quantization"),
        ("vllm", {"revision": "../../../etc"}, "revision"),
        ("vllm", {"revision": "a/../../b"}, "revision"),
        ("vllm", {"generation_config": "/etc"}, "generation_config"),
        ("vllm", {"load_format": "runai_streamer"}, "load_format"),
        ("vllm", {"limit_mm_per_prompt": {"image": {"count": 1}}}, "limit_mm_per_prompt.image"),
        ("vllm", {"enforce_eager": "yes"}, "enforce_eager"),
        ("vllm", {"chat_template": ["x"]}, "chat_template"),
        ("vllm", {"extra_args": "--x"}, "extra_args"),
        ("vllm", {"extra_args": ["--port=1"]}, "extra_args.0"),
        ("vllm", {"extra_args": ["--x", "--api_key", "x"]}, "extra_args.1"),
        ("vllm", {"extra_args": ["--ssl-keyf=x"]}, "extra_args.0"),
        ("vllm", {"extra_args": ["--a\0b"]}, "extra_args.0"),
        ("sglang", {"extra_args": ["--admin-api-key=x"]}, "extra_args.0"),
        ("sglang", {"extra_args": ["--tp-size=8"]}, "extra_args.0"),
        ("sglang", {"kv_cache_dtype": "-x"}, "kv_cache_dtype"),
        ("sglang", {"seed": 2**31}, "seed"),
    ],
)
def test_what_is_no_value_of_its_member_is_told_by_its_field(name: str, config: dict[str, Any], field: str) -> None:
    assert list(engine(name).validate(config)) == [field]


@BOTH
@pytest.mark.parametrize(
    "source", ["s3://bucket/model", "--trust-remote-code", "a/b/c", "a b", "https://x/y", "~/m", "-"]
)
def test_a_source_is_a_path_or_a_name_on_the_hub_and_nothing_else(name: str, source: str) -> None:
    with pytest.raises(InvalidConfig, match="no name on the hub"):
        engine(name).command(replace(REQUEST, source=source))


@BOTH
def test_what_it_downloads_outlives_the_attempt(name: str) -> None:
    assert _plan(name).env["XDG_CACHE_HOME"] == "/state/cache"


@BOTH
def test_tools_beside_the_program_are_found_as_in_an_activated_environment(name: str) -> None:
    assert "PATH" not in _plan(name).env
    plan = engine(name).command(replace(REQUEST, program=("/opt/it/bin/python", "-m", "it")))
    assert plan.env["PATH"] == "/opt/it/bin:{path}"


@BOTH
def test_its_last_lines_tell_want_of_a_program_and_of_memory(name: str) -> None:
    it = engine(name)
    missing = it.cause_of_exit(f"/usr/bin/python: No module named {name}\n")
    assert missing is not None
    assert missing.kind == "launch_failed"
    assert f"{name} not found" in missing.message
    memory = it.cause_of_exit("INFO a\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB\nINFO b\n")
    assert memory is not None
    assert (memory.kind, "Tried to allocate 2 GiB" in memory.message) == ("out_of_memory", True)
    assert it.cause_of_exit("Traceback ...\nKeyError: 'x'\n") is None


@BOTH
def test_every_flag_is_one_that_the_real_program_has(name: str) -> None:
    module = {"vllm": vllm, "sglang": sglang}[name]
    known = set(common.flags(name, add_help=False)._option_string_actions)
    used = {one.flag for one in module.FLAGS.values()} | {one.off for one in module.FLAGS.values() if one.off}
    assert used <= known
    assert known >= module.OURS
    own = {word.partition("=")[0] for word in _plan(name, chat_template="x").argv if word.startswith("--")}
    assert own <= known


@BOTH
def test_how_many_at_once_is_what_its_config_says(name: str) -> None:
    it = engine(name)
    assert it.max_concurrency({}) is None
    assert it.max_concurrency({"max_batch_size": 8}) == 8
    assert it.max_concurrency({"max_batch_size": 8, "max_num_seqs": 4}) == 4


def test_vllm_knows_the_model_by_all_its_names() -> None:
    argv = engine("vllm").command(replace(REQUEST, other_names=("q", "qwen-small"))).argv
    first = argv.index("--served-model-name")
    assert argv[first + 1 : first + 4] == ("qwen", "q", "qwen-small")
    assert argv[first + 4].startswith("--")


@BOTH
@pytest.mark.parametrize("odd", ["-q", "--trust-remote-code", "a{folder}b"])
def test_a_name_that_would_mean_something_else_as_an_argument_is_refused(name: str, odd: str) -> None:
    for more in ({"model_name": odd}, {"other_names": ("q", odd)}):
        with pytest.raises(InvalidConfig, match="no name or alias may start with -"):
            engine(name).command(replace(REQUEST, **more))


def test_a_name_that_sglang_cannot_carry_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="adapter"):
        engine("sglang").command(replace(REQUEST, model_name="a:b"))
    with pytest.raises(InvalidConfig, match="starts with -"):
        engine("sglang").command(replace(REQUEST, engine_key="-key"))


@BOTH
def test_no_name_that_runs_code_or_reads_files_may_be_set_by_all(name: str) -> None:
    allowed = engine(name).user_env
    dangerous = "PLUGIN|PATH$|ENDPOINT|DEV_MODE|RUST|SERIALIZATION|_DIR$|_ROOT$|_HOME$|CONFIG"
    assert not [one for one in allowed if re.search(dangerous, one) or one.endswith("*")]
