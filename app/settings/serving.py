"""Settings of what is served: models and recipes, the chat, programs of engines, servers of others."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from app.domain.endpoints import parse_allowance
from app.domain.origins import parse_origins
from app.settings.declaring import POOL, command_line, llama_server, setting


@dataclass(frozen=True)
class Serving:
    models_dir: Path = setting(Path(), "Folder whose GGUF files are models; default: <state>/models.")
    recipes_dir: Path = setting(Path(), "Folder of your own recipes, <category>/<name>.yaml; default: <state>/recipes.")
    secrets_dir: Path = setting(
        Path(),
        "Folder of the files (0600) that recipes name as secrets, on each host that launches; default:"
        " <state>/recipe-secrets.",
    )
    default_pool: str = setting(
        "local",
        "Pool of a create that names none.",
        form=POOL,
        such_as="the name of a pool",
    )
    default_model: str = setting("", "Model of a request that names none.")
    chat_service: str = setting(
        "chat",
        "Service that answers /chat; while there is none, whatever serves the default model.",
        form=r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
        such_as="the name of a service",
    )
    chat_model_path: Path = setting(
        Path(),
        "GGUF file that the chat's workers load; without one and with chat_workers, the default model.",
        also="LLM_MODEL_PATH",
    )
    chat_workers: int = setting(
        0,
        "Workers of the service that `hostler up` keeps for the chat; 0: one with a chat_model_path, else none.",
        within=(0, 1000),
        also="LLM_WORKERS",
    )
    chat_key: str = setting(
        "",
        "Key of role infer that `hostler up` makes for the chat's callers (24+ characters).",
        secret=True,
        also="API_KEY",
    )
    chat_rate: float = setting(
        0.0,
        "Requests per second that each key may send to /chat; 0: any number. Below 1 it is one in several seconds.",
        within=(0, 1_000_000),
        also="RATE_LIMIT_QPS",
    )
    llama_command: str = setting(
        "",
        "A llama.cpp server of yours (llama-server), as one types it; default: the one in the wheel.",
        read_by=llama_server,
        also="LLM_BIN_PATH",
        also_read=shlex.quote,
    )
    cors_origins: str = setting(
        "",
        "Origins, between commas, whose pages may call the model API from a browser: https://app.example; *: any.",
        read_by=parse_origins,
    )
    ports: tuple[int, int] = setting((20000, 29999), "First and last port that engines may be given.")
    external_allow: str = setting(
        "",
        "Hosts (names, addresses, CIDRs) that engine openai-compatible may forward to; admins may name others.",
        read_by=parse_allowance,
    )
    external_ca: str = setting("", "PEM file of authorities for external servers, instead of the system's.")
    hf_endpoint: str = setting(
        "",
        "The hub that models are looked up on; default: huggingface_hub's own.",
        also="HF_ENDPOINT",
        form=r"https?://[^\s/@?#]+(/[^\s@?#]*)?",
        such_as="https://HOST without a name or password in it",
    )
    hf_token: str = setting(
        "",
        "Token for the hub, for models that it does not show to all; HF_TOKEN is read too.",
        secret=True,
        also="HF_TOKEN",
        form=r"[!-~]{1,512}",
        such_as="ASCII characters without a space",
    )
    vllm_command: str = setting(
        "vllm serve",
        "What starts vLLM, as one types it; found on the pool's PATH unless it is a path.",
        read_by=command_line,
    )
    sglang_command: str = setting(
        "python -m sglang.launch_server", "What starts SGLang, in the same way.", read_by=command_line
    )
    qdrant_command: str = setting("qdrant", "What starts Qdrant's server, in the same way.", read_by=command_line)
