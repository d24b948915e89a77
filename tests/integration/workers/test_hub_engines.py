"""vLLM's stand-in and a missing SGLang, launched the whole way: leases, arguments, key, reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.errors import InvalidConfig
from app.usecases import models
from tests.support.crew import Crew
from workers.backends.options import DEFAULT_PATH


def _model(crew: Crew, name: str, engine: str, **more: Any) -> None:
    models.create(crew.ctx, crew.actor, {"name": name, "engine": engine, **more})


def test_vllm_shares_its_layers_over_the_gpus_that_it_is_leased(crew: Crew) -> None:
    _model(crew, "qwen", "vllm", source="Qwen/Qwen2.5-0.5B-Instruct", aliases=["q"], defaults={"max_num_seqs": 8})
    replica = crew.create("qwen", mode="replica", resources={"gpus": 2})
    row = crew.await_ready(replica, timeout_s=30)
    assert [check["name"] for check in row.diagnostics["checks"]] == ["health", "models", "completion", "stream"]
    (pid,) = crew.engines(replica)
    argv = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    assert "Qwen/Qwen2.5-0.5B-Instruct" in argv
    assert argv[argv.index("--tensor-parallel-size") + 1] == "2"
    assert argv[argv.index("--max-num-seqs") + 1] == "8"
    assert not [word for word in argv if crew.ctx.engine_key in word]
    names = argv.index("--served-model-name")
    assert argv[names + 1 : names + 3] == ["qwen", "q"]
    environ = dict(line.split("=", 1) for line in Path(f"/proc/{pid}/environ").read_text().split("\0") if line)
    leased = crew.leases(replica)["gpu"]
    assert environ["CUDA_VISIBLE_DEVICES"] == ",".join(map(str, leased))
    assert len(leased) == 2
    assert environ["PATH"].split(":")[1:] == DEFAULT_PATH.split(":")
    assert environ["XDG_CACHE_HOME"] == str(crew.settings.state_dir / "cache")
    crew.end(replica)


def test_gpus_and_parallel_sizes_that_differ_are_refused_before_anything_is_written(crew: Crew) -> None:
    _model(crew, "uneven", "vllm", source="Qwen/Qwen2.5-0.5B-Instruct")
    with pytest.raises(InvalidConfig) as refused:
        crew.create("uneven", mode="replica", resources={"gpus": 1}, replica_config={"tensor_parallel_size": 2})
    assert list(refused.value.errors) == ["resources.gpus"]


def test_an_engine_that_dies_at_its_start_says_what_was_wrong(crew: Crew) -> None:
    _model(crew, "wrong", "vllm", source="Qwen/Qwen2.5-0.5B-Instruct")
    replica = crew.create("wrong", mode="replica", replica_config={"extra_args": ["--no-such-flag=1"]})
    row = crew.await_state(replica, "failed")
    assert row.reason == "process_exited"
    assert "unrecognized arguments: --no-such-flag=1" in crew.attempt(replica).log_tail
    crew.await_released(replica)


def test_without_its_program_a_create_fails_and_says_what_to_do(crew: Crew) -> None:
    _model(crew, "missing", "sglang", source="Qwen/Qwen2.5-0.5B-Instruct")
    replica = crew.create("missing", mode="replica")
    row = crew.await_state(replica, "failed", timeout_s=30)
    assert row.reason == "launch_failed"
    assert "sglang not found" in row.message
    assert "HOSTLER_SGLANG_COMMAND" in row.message
    crew.await_released(replica)
