"""SGLang's server (``sglang.launch_server``): models of the hub or of a folder. Not shipped: the operator installs it.

Flags, counters and rules were read in SGLang 0.5.23.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from app.domain.endpoints import Endpoint
from app.engines import openai
from app.engines.base import Command, Counters, EngineRequest, ExitCause, HttpCheck
from app.engines.dialects.base import Dialect
from app.engines.dialects.openai import OpenAIDialect
from app.engines.flags import (
    ADMIN_FLAGS,
    REVISION,
    TEMPLATE,
    WORD,
    Flag,
    argv_of,
    count,
    one_of,
    own_flags,
    schema_of,
    share,
    yes_no,
)
from app.engines.hub import HUB_ENV, gpus_needed, hub_model, out_of_memory, served_names, settled, surroundings
from app.engines.schema import check, refuse, whole
from app.errors import InvalidConfig

MISSING = (
    "sglang not found: install SGLang (https://docs.sglang.io) in an environment of its own and set"
    " HOSTLER_SGLANG_COMMAND, for example to `/opt/sglang/bin/python -m sglang.launch_server`"
)
_CONFIG, _TEMPLATE = "sglang.yaml", "chat-template.jinja"

FLAGS: dict[str, Flag] = {
    "tensor_parallel_size": Flag(
        "--tensor-parallel-size", count("GPUs that share each layer; default: all it is given.", 1024)
    ),
    "pipeline_parallel_size": Flag("--pipeline-parallel-size", count("Stages of layers, each on its own GPUs.", 1024)),
    "data_parallel_size": Flag("--data-parallel-size", count("Copies of the model behind one address.", 1024)),
    "max_model_len": Flag("--context-length", count("Tokens of context; default: the model's.")),
    "max_num_seqs": Flag("--max-running-requests", count("Requests worked on at once.", 65536)),
    "max_queued_requests": Flag("--max-queued-requests", count("Requests that may wait inside of it.", 10**6)),
    "gpu_memory_utilization": Flag(
        "--mem-fraction-static", share("Share of each GPU's memory for weights and KV cache (mem_fraction_static).")
    ),
    "chunked_prefill_size": Flag(
        "--chunked-prefill-size", count("Tokens of one piece of a prompt; -1: whole.", 2**24, -1)
    ),
    "max_prefill_tokens": Flag("--max-prefill-tokens", count("Tokens of prompts in one step.", 2**24)),
    "kv_cache_dtype": Flag("--kv-cache-dtype", {**WORD, "description": "Type of the KV cache; default auto."}),
    "dtype": Flag("--dtype", one_of("Type of weights.", "auto", "half", "float16", "bfloat16", "float", "float32")),
    "quantization": Flag("--quantization", {**WORD, "description": "How weights are quantized; default: as they say."}),
    "load_format": Flag(
        "--load-format", one_of("How weights are stored.", "auto", "safetensors", "pt", "dummy", "bitsandbytes", "gguf")
    ),
    "revision": Flag("--revision", REVISION),
    "schedule_policy": Flag("--schedule-policy", {**WORD, "description": "Which request is next, as lpm or fcfs."}),
    "attention_backend": Flag("--attention-backend", {**WORD, "description": "Kernels of attention."}),
    "grammar_backend": Flag("--grammar-backend", {**WORD, "description": "What keeps answers to a grammar."}),
    "seed": Flag("--random-seed", count("Default seed.", 2**31 - 1, 0)),
    "disable_radix_cache": Flag("--disable-radix-cache", yes_no("Do not keep what prompts have in common.")),
    "enable_deterministic_inference": Flag(
        "--enable-deterministic-inference", yes_no("The same seed, the same text, whatever else is worked on.")
    ),
    "is_embedding": Flag("--is-embedding", yes_no("Serve embeddings instead of text.")),
    "tool_call_parser": Flag("--tool-call-parser", {**WORD, "description": "How it writes calls of tools."}),
    "reasoning_parser": Flag("--reasoning-parser", {**WORD, "description": "How it writes its thoughts."}),
    "log_level": Flag("--log-level", one_of("What it logs.", "critical", "error", "warning", "info", "debug")),
    "trust_remote_code": Flag(
        "--trust-remote-code", {**yes_no("Run code that comes with the model; admin only."), "x-admin": True}
    ),
}
#: What would take it off its port, off its key, off its counters, or away from what the model is called.
OURS = frozenset(
    {
        "--host",
        "--port",
        "--api-key",
        "--admin-api-key",
        "--served-model-name",
        "--model-path",
        "--model",
        "--config",
        "--enable-metrics",
        "--fastapi-root-path",
        "--grpc-mode",
        "--smg-grpc-mode",
        "--ssl-keyfile",
        "--ssl-certfile",
        "--ssl-ca-certs",
        "--tensor-parallel-size",
        "--tp-size",
    }
)


class Sglang:
    """Demands the engine key on every route but its health, readiness and counters, which it opens to all.

    It takes the key as an argument only, or out of a configuration file: the file it is. At its start it writes all
    its arguments into its log, the key with them: readers of logs are shown a mask in its place.
    """

    name = "sglang"
    summary = "SGLang: models of the hub or of a folder, on GPUs; installed by the operator (HOSTLER_SGLANG_COMMAND)."
    admin_only = False
    needs_model_file = False
    takes_hub_model = True
    serves_models = True
    keeps_data = False
    spans_hosts = False
    program_setting = "sglang_command"
    checks_key = True
    open_paths = frozenset({"/health", "/health_generate", "/ready", "/metrics"})
    user_env = HUB_ENV | {"SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN"}
    public_env = user_env - {"HF_TOKEN"}
    config_schema: Mapping[str, Any] = schema_of(
        FLAGS,
        max_batch_size=count("As max_num_seqs, which wins.", 65536),
        chat_template={**TEMPLATE, "description": "Jinja template instead of the model's."},
        extra_args={**ADMIN_FLAGS, "description": "More arguments of the server, one word each; admin only."},
    )

    def validate(self, config: Mapping[str, Any]) -> dict[str, list[str]]:
        errors = check(config, self.config_schema)
        return errors or own_flags(config.get("extra_args") or (), OURS, "extra_args")

    def upstream(self, config: Mapping[str, Any]) -> Endpoint | None:
        return None

    def gpus_needed(self, config: Mapping[str, Any]) -> int | None:
        return gpus_needed(config)

    def command(self, request: EngineRequest) -> Command:
        refuse(self.validate(request.config))
        config = settled(whole(request.config, self.config_schema), request.gpus)
        _check_names(request)
        # a file of YAML, which any JSON is
        files = {_CONFIG: json.dumps({"api-key": request.engine_key})}
        argv = [
            *request.program,
            "--config",
            f"{{folder}}/{_CONFIG}",
            "--model-path",
            hub_model(request),
            *(config.get("extra_args") or ()),
            *argv_of(FLAGS, config),
            "--served-model-name",
            request.model_name,
            "--host",
            request.host,
            "--port",
            str(request.port),
            "--enable-metrics",
        ]
        if config.get("chat_template"):
            files[_TEMPLATE] = config["chat_template"]
            argv += ["--chat-template", f"{{folder}}/{_TEMPLATE}"]
        env = {
            # else each health probe makes a token; the deep probe does that, and less often
            "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "false",
            **surroundings(request),
            **request.environment,
        }
        return Command(tuple(argv), env, files, frozenset({"HF_TOKEN"}), MISSING)

    def readiness(self, config: Mapping[str, Any]) -> HttpCheck:
        # 503 until its own warm-up request was answered
        return HttpCheck("health", "/health")

    def diagnostics(self, config: Mapping[str, Any]) -> tuple[HttpCheck, ...]:
        everything = openai.checks()
        return (*everything[:2], openai.ONE_EMBEDDING) if config.get("is_embedding") else everything

    def deep_probe(self, config: Mapping[str, Any]) -> HttpCheck | None:
        return openai.ONE_EMBEDDING if config.get("is_embedding") else openai.ONE_TOKEN

    def counters(self, config: Mapping[str, Any]) -> Counters | None:
        # the first two of progress grow when a request ends, the third while it is worked on
        finished = "sglang:num_requests_total"
        grows = ("sglang:prompt_tokens_total", "sglang:generation_tokens_total", "sglang:realtime_tokens_total")
        return Counters("/metrics", finished=(finished,), progress=(finished, *grows), born_late=True)

    def cause_of_exit(self, log_tail: str) -> ExitCause | None:
        if "No module named 'sglang'" in log_tail or "No module named sglang" in log_tail:
            return ExitCause("launch_failed", MISSING)
        return out_of_memory(log_tail)

    def dialect(self, config: Mapping[str, Any]) -> Dialect | None:
        return None if config.get("is_embedding") else OpenAIDialect(tells_ids=True)

    def max_concurrency(self, config: Mapping[str, Any]) -> int | None:
        requests = config.get("max_num_seqs", config.get("max_batch_size"))
        return int(requests) if requests else None


def _check_names(request: EngineRequest) -> None:
    """What SGLang's own arguments cannot carry."""
    if any(":" in name for name in served_names(request)):
        told = "SGLang takes what follows a colon for an adapter; give the model a name and aliases without one."
        raise InvalidConfig(f"model_name: {told}", errors={"model_name": [told]})
    if request.engine_key.startswith("-"):
        raise InvalidConfig("SGLang takes an engine key that starts with - for a flag; set another HOSTLER_ENGINE_KEY.")
