"""llama.cpp's server as a program of the operator's: its own configuration as flags that the program knows."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from app.engines.base import Command, EngineRequest
from app.engines.llama_cpp import LlamaCpp
from app.engines.tiny_model import write_tiny_gguf
from tests.standins import LLAMA_SERVER, common
from tests.support.engines import running

#: What is said, and what the flags come to.
EVERYTHING: dict[str, Any] = {
    "n_ctx": 512,
    "n_parallel": 3,
    "n_batch": 64,
    "n_ubatch": 32,
    "n_gpu_layers": -1,
    "n_predict": -1,
    "threads": 2,
    "seed": 7,
    "warmup": False,
    "cache_ram_mib": 0,
    "chat_template": "{{ messages[0].content }}",
}


def command(**config: Any) -> Command:
    request = EngineRequest(
        "tiny", Path("/models/a model.gguf"), "127.0.0.1", 1234, config, {"TZ": "UTC"}, "the-key",
        program=("/opt/bin/llama-server", "--flash-attn", "on"),
    )  # fmt: skip
    return LlamaCpp().command(request)


def test_everything_that_can_be_set_is_a_flag_that_the_program_knows() -> None:
    made = command(**EVERYTHING)
    assert made.argv[:3] == ("/opt/bin/llama-server", "--flash-attn", "on")
    asked = vars(common.flags("llama-server").parse_args(made.argv[1:]))
    assert {name: asked[name] for name in ("model", "alias", "host", "port", "parallel", "ctx_size", "threads")} == {
        "model": "/models/a model.gguf", "alias": "tiny", "host": "127.0.0.1", "port": "1234", "parallel": "3",
        "ctx_size": "512", "threads": "2",
    }  # fmt: skip
    assert asked["metrics"]
    assert asked["no_warmup"]
    assert asked["kv_unified"]
    assert set(LlamaCpp.config_schema["properties"]) == {*EVERYTHING, "max_batch_size", "embedding", "pooling"}


def test_the_key_stands_in_no_argument() -> None:
    made = command()
    assert made.env["LLAMA_API_KEY"] == "the-key"
    assert made.secret_env == {"LLAMA_API_KEY"}
    assert "the-key" not in " ".join(made.argv)
    assert made.env["TZ"] == "UTC"


def test_one_at_a_time_needs_no_shared_context() -> None:
    assert "--kv-unified" not in command(n_parallel=1).argv


@pytest.mark.parametrize("config", [{}, {**EVERYTHING, "n_ctx": 256}, {"embedding": True, "pooling": "mean"}])
def test_the_stand_in_serves_under_them(tmp_path: Path, config: dict[str, Any]) -> None:
    model = tmp_path / "tiny.gguf"
    write_tiny_gguf(model)
    program = {"program": tuple(shlex.split(LLAMA_SERVER))}
    with running(LlamaCpp(), tmp_path / "attempt", model=model, request=program, **config) as it:
        it.wait_ready()


def test_the_stand_in_refuses_what_the_program_does_not_know(tmp_path: Path) -> None:
    program = {"program": (*shlex.split(LLAMA_SERVER), "--no-such-flag")}
    with running(LlamaCpp(), tmp_path / "attempt", model=tmp_path / "x.gguf", request=program) as it:
        assert it.wait_exit() == 2
        assert "--no-such-flag" in it.log
