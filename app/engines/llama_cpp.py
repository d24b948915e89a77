"""llama.cpp's own HTTP server, from the ``xllamacpp`` wheel or one of the operator's: any GGUF file, CPU or GPU."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.domain.endpoints import Endpoint
from app.engines import openai
from app.engines.base import Command, Counters, EngineRequest, ExitCause, HttpCheck
from app.engines.dialects.base import Dialect
from app.engines.dialects.llama_cpp import LlamaCppDialect
from app.engines.llama_server import server_command
from app.engines.schema import check, refuse, whole
from app.errors import InvalidConfig

#: Sequences at once when nobody says how many; each costs a share of the KV cache.
DEFAULT_PARALLEL = 4
#: More than this only takes memory: the rest of a batch wish is queued by the server itself.
MAX_PARALLEL = 64

_PROGRAM = Path(__file__).parent / "programs" / "llama_cpp_server.py"
_COUNT = {"type": "integer", "minimum": 1, "maximum": 1024}


class LlamaCpp:
    """Binds the port it is given; demands the engine key on all routes but ``/health``."""

    name = "llama-cpp"
    summary = "llama.cpp server: any GGUF file, OpenAI routes, CPU or GPU."
    admin_only = False
    needs_model_file = True
    takes_hub_model = False
    serves_models = True
    keeps_data = False
    spans_hosts = False
    program_setting = "llama_command"
    checks_key = True
    open_paths = frozenset({"/health", "/v1/health"})
    #: exact names: GGML_BACKEND_PATH loads a library and LLAMA_SERVER_* turn the server into something else
    user_env = frozenset(
        {
            "OMP_NUM_THREADS",
            "OMP_PROC_BIND",
            "OMP_PLACES",
            "OMP_WAIT_POLICY",
            "GOMP_SPINCOUNT",
            "GOMP_CPU_AFFINITY",
            "GGML_CUDA_*",
            "GGML_NO_BACKTRACE",
            "GGML_SCHED_DEBUG",
            "LLAMA_GRAPH_REUSE_DISABLE",
            "LLAMA_TRACE",
            "HF_TOKEN",
            "TZ",
        }
    )
    public_env = user_env - {"HF_TOKEN"}
    config_schema: Mapping[str, Any] = {
        "type": "object",
        "properties": {
            "n_ctx": {
                "type": "integer",
                "minimum": 0,
                "maximum": 2**31 - 1,
                "description": "Tokens of context; 0: the model's.",
            },
            "n_parallel": {**_COUNT, "maximum": MAX_PARALLEL, "description": "Sequences decoded at once."},
            "max_batch_size": {**_COUNT, "description": f"As n_parallel, which wins; cut to {MAX_PARALLEL}."},
            "n_batch": {**_COUNT, "maximum": 65536, "description": "Tokens of one logical batch."},
            "n_ubatch": {**_COUNT, "maximum": 65536, "description": "Tokens of one physical batch."},
            "n_gpu_layers": {"type": "integer", "minimum": -1, "maximum": 9999, "description": "-1: as many as fit."},
            "n_predict": {
                "type": "integer",
                "minimum": -1,
                "maximum": 2**31 - 1,
                "description": "Most tokens of an answer; -1: no bound.",
            },
            "threads": {**_COUNT, "description": "Threads that compute; default: the machine's cores."},
            "seed": {"type": "integer", "minimum": 0, "maximum": 2**32 - 1, "description": "Default sampling seed."},
            "warmup": {"type": "boolean", "description": "Run the model once before it is ready; default true."},
            "embedding": {"type": "boolean", "description": "Serve /v1/embeddings instead of completions."},
            "pooling": {
                "type": "string",
                "enum": ["none", "mean", "cls", "last", "rank"],
                "description": "How embedding joins a text's vectors; default: the model's.",
            },
            "cache_ram_mib": {
                "type": "integer",
                "minimum": -1,
                "maximum": 2**24,
                "description": "Memory for the prompt cache.",
            },
            "chat_template": {
                "type": "string",
                "maxLength": 262144,
                "description": "Jinja template instead of the model's.",
            },
        },
    }

    def validate(self, config: Mapping[str, Any]) -> dict[str, list[str]]:
        return check(config, self.config_schema)

    def upstream(self, config: Mapping[str, Any]) -> Endpoint | None:
        return None

    def gpus_needed(self, config: Mapping[str, Any]) -> int | None:
        return None

    def command(self, request: EngineRequest) -> Command:
        if request.model_path is None:
            raise InvalidConfig(f"Model {request.model_name!r} has no file. See `hostler model list`.")
        refuse(self.validate(request.config))
        config = whole(request.config, self.config_schema)
        env = {**_patience(request.environment), **request.environment}
        if request.program:
            return server_command(request, config, self.max_concurrency(request.config) or 1, env)
        wanted = {name: config[name] for name in self.config_schema["properties"] if name in config}
        for name in ("n_parallel", "max_batch_size"):
            wanted.pop(name, None)
        launch = {
            "model": str(request.model_path),
            "alias": request.model_name,
            "host": request.host,
            "port": request.port,
            **wanted,
            "n_parallel": self.max_concurrency(request.config),
        }
        return Command(
            argv=(sys.executable, "-I", "-S", str(_PROGRAM), "{folder}/llama-cpp.json"),
            # environment, not argv: other users of the host can read argv
            env={**env, "HOSTLER_ENGINE_KEY": request.engine_key},
            files={"llama-cpp.json": json.dumps(launch, indent=1)},
            secret_env=frozenset({"HOSTLER_ENGINE_KEY"}),
        )

    def readiness(self, config: Mapping[str, Any]) -> HttpCheck:
        # 503 while the model loads, open without a key
        return HttpCheck("health", "/health")

    def diagnostics(self, config: Mapping[str, Any]) -> tuple[HttpCheck, ...]:
        everything = openai.checks()
        return everything[:2] if config.get("embedding") else everything

    def deep_probe(self, config: Mapping[str, Any]) -> HttpCheck | None:
        return openai.ONE_EMBEDDING if config.get("embedding") else openai.ONE_TOKEN

    def counters(self, config: Mapping[str, Any]) -> Counters | None:
        # tokens are added to the first only when their request has ended; calls of llama_decode as they are made
        predicted, read, calls = "tokens_predicted_total", "prompt_tokens_total", "n_decode_total"
        finished = read if config.get("embedding") else predicted
        return Counters(
            "/metrics",
            finished=(f"llamacpp:{finished}",),
            progress=tuple(f"llamacpp:{name}" for name in (predicted, read, calls)),
        )

    def cause_of_exit(self, log_tail: str) -> ExitCause | None:
        return None

    def dialect(self, config: Mapping[str, Any]) -> Dialect | None:
        return None if config.get("embedding") else LlamaCppDialect()

    def max_concurrency(self, config: Mapping[str, Any]) -> int | None:
        parallel = config.get("n_parallel", config.get("max_batch_size", DEFAULT_PARALLEL))
        return min(int(parallel), MAX_PARALLEL)


def _patience(environment: Mapping[str, str]) -> dict[str, str]:
    """How long an OpenMP thread spins before it sleeps, unless the user says.

    By default it spins for milliseconds, and engines that share cores starve each other: ten tiny ones started at once
    on four cores took 4.4 s, fifty more than 20 s; with this 0.2 s and 1 s. One engine alone decodes 5 to 15 % slower.
    """
    if "OMP_WAIT_POLICY" in environment:
        return {}
    return {"GOMP_SPINCOUNT": "1000"}
