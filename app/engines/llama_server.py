"""A llama.cpp server that the operator installed: the same configuration as flags of ``llama-server``.

Only flags that servers of the last years know are sent where nothing asks for more; the key goes by the environment,
because other users of the host can read argv.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.engines.base import Command, EngineRequest

MISSING = (
    "There is no such llama.cpp server. Set HOSTLER_LLAMA_COMMAND (or LLM_BIN_PATH) to llama-server, or unset it: the"
    " wheel has one."
)
#: What the server is told by flags that take a value.
_VALUES = {
    "n_ctx": "--ctx-size",
    "n_batch": "--batch-size",
    "n_ubatch": "--ubatch-size",
    "n_gpu_layers": "--n-gpu-layers",
    "n_predict": "--n-predict",
    "threads": "--threads",
    "seed": "--seed",
    "pooling": "--pooling",
    "cache_ram_mib": "--cache-ram",
}
_TEMPLATE = "chat-template.jinja"


def server_command(request: EngineRequest, config: Mapping[str, Any], parallel: int, env: Mapping[str, str]) -> Command:
    """The plan; ``config`` is checked, ``parallel`` are its sequences at once, ``env`` is what the engine is given."""
    argv = [
        *request.program,
        *("--model", str(request.model_path), "--alias", request.model_name),
        *("--host", request.host, "--port", str(request.port)),
        *("--parallel", str(parallel), "--metrics"),
    ]
    if parallel > 1:
        # any one request may use the whole context, as it would with a single sequence
        argv.append("--kv-unified")
    for name, flag in _VALUES.items():
        if name in config:
            argv += [flag, str(config[name])]
    if config.get("warmup") is False:
        argv.append("--no-warmup")
    if config.get("embedding"):
        argv.append("--embedding")
    files = {}
    if config.get("chat_template"):
        files[_TEMPLATE] = config["chat_template"]
        argv += ["--jinja", "--chat-template-file", f"{{folder}}/{_TEMPLATE}"]
    key = "LLAMA_API_KEY"
    return Command(tuple(argv), {**env, key: request.engine_key}, files, frozenset({key}), MISSING)
