"""The engines of the benchmarks: what the API is asked for, and the same command for a bare parent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.engines.base import EngineRequest
from app.engines.registry import engine
from app.engines.tiny_model import write_tiny_gguf
from benchmarks.floors.popen import Program
from benchmarks.stack import Api, Stack, free_port, wait_until

MODEL = "bench-tiny"
#: One thread each: fifty engines on few cores would only fight over them, on both sides.
LLAMA_CONFIG: dict[str, Any] = {"n_ctx": 256, "n_parallel": 1, "threads": 1}


def model_path(stack: Stack) -> Path:
    """The tiny model in the stack's models folder, made when missing."""
    path = stack.settings.models_dir / f"{MODEL}.gguf"
    return path if path.exists() else write_tiny_gguf(path)


def llama_wish() -> dict[str, Any]:
    return {"server_mode": "replica", "model_name": MODEL, "pool": "local", "replica_config": LLAMA_CONFIG}


def mock_wish(**knobs: Any) -> dict[str, Any]:
    wish = {"server_mode": "replica_mock", "model_name": "bench", "pool": "local"}
    return {**wish, "replica_config": {"mock": knobs}}


def llama_program(stack: Stack) -> Program:
    return _program("llama-cpp", MODEL, model_path(stack), LLAMA_CONFIG)


def mock_program(**knobs: Any) -> Program:
    return _program("mock", "bench", None, {"mock": knobs})


def forget(api: Api, ids: list[str], limit_s: float = 120) -> None:
    """Stop the replicas, wait until they were seen gone, and delete them: the next round starts from nothing."""
    for replica_id in ids:
        api.must((200, 202), "POST", f"/api/v1/replicas/{replica_id}/stop", {"force": True})
    left = list(ids)

    def all_gone() -> bool:
        while left and api.call("DELETE", f"/api/v1/replicas/{left[-1]}")[0] in (204, 404):
            left.pop()
        return not left

    wait_until(all_gone, limit_s, "the replicas of the round are gone", every_s=0.05)


def _program(name: str, model: str, path: Path | None, config: dict[str, Any]) -> Program:
    chosen, port = engine(name), free_port()
    request = EngineRequest(model, path, "127.0.0.1", port, config=config, engine_key="k" * 32)
    command = chosen.command(request)
    return Program(command.argv, command.env, command.files, port, chosen.readiness(config).path)
