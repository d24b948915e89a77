"""vLLM's server (``vllm serve``): models of the hub or of a folder, on GPUs. Not shipped: the operator installs it.

Flags, counters and rules were read in vLLM 0.11.0 and 0.33.0; only what both have is used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
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

MISSING = (
    "vllm not found: install vLLM (https://docs.vllm.ai) in an environment of its own and set HOSTLER_VLLM_COMMAND,"
    " for example to `/opt/vllm/bin/vllm serve`"
)
#: The guard below, as the program finds it: a module of the attempt's folder.
_GUARD = Path(__file__).parent / "programs" / "vllm_guard.py"
_TEMPLATE = "chat-template.jinja"

FLAGS: dict[str, Flag] = {
    "tensor_parallel_size": Flag(
        "--tensor-parallel-size", count("GPUs that share each layer; default: all it is given.", 1024)
    ),
    "pipeline_parallel_size": Flag("--pipeline-parallel-size", count("Stages of layers, each on its own GPUs.", 1024)),
    "data_parallel_size": Flag("--data-parallel-size", count("Copies of the model behind one address.", 1024)),
    "enable_expert_parallel": Flag(
        "--enable-expert-parallel",
        yes_no("Spread experts, and not each expert, over GPUs."),
        "--no-enable-expert-parallel",
    ),
    "max_model_len": Flag("--max-model-len", count("Tokens of context; default: the model's.")),
    "max_num_seqs": Flag("--max-num-seqs", count("Sequences decoded at once.", 65536)),
    "max_num_batched_tokens": Flag("--max-num-batched-tokens", count("Tokens of one step.", 2**24)),
    "gpu_memory_utilization": Flag("--gpu-memory-utilization", share("Share of each GPU's memory; default 0.9.")),
    "cpu_offload_gb": Flag(
        "--cpu-offload-gb",
        {"type": "number", "minimum": 0, "maximum": 65536, "description": "Weights kept in host memory, GiB per GPU."},
    ),
    "block_size": Flag("--block-size", count("Tokens of one block of the KV cache.", 4096)),
    "kv_cache_dtype": Flag("--kv-cache-dtype", {**WORD, "description": "Type of the KV cache, as fp8; default auto."}),
    "dtype": Flag("--dtype", one_of("Type of weights.", "auto", "half", "float16", "bfloat16", "float", "float32")),
    "quantization": Flag("--quantization", {**WORD, "description": "How weights are quantized; default: as they say."}),
    "load_format": Flag(
        "--load-format",
        one_of("How weights are stored.", "auto", "safetensors", "pt", "dummy", "bitsandbytes", "gguf", "mistral"),
    ),
    "revision": Flag("--revision", REVISION),
    "tokenizer_mode": Flag("--tokenizer-mode", one_of("Which tokenizer.", "auto", "slow", "mistral")),
    "seed": Flag("--seed", count("Default seed.", 2**32 - 1, 0)),
    "enforce_eager": Flag("--enforce-eager", yes_no("No CUDA graphs."), "--no-enforce-eager"),
    "enable_prefix_caching": Flag(
        "--enable-prefix-caching", yes_no("Keep what prompts have in common."), "--no-enable-prefix-caching"
    ),
    "enable_chunked_prefill": Flag(
        "--enable-chunked-prefill", yes_no("Read long prompts in pieces."), "--no-enable-chunked-prefill"
    ),
    "runner": Flag("--runner", one_of("pooling serves embeddings instead of text.", "auto", "generate", "pooling")),
    "generation_config": Flag(
        "--generation-config", one_of("auto: the model's sampling defaults; vllm: none.", "auto", "vllm")
    ),
    "max_logprobs": Flag("--max-logprobs", count("Most logprobs of a token.", 1000, 0)),
    "enable_auto_tool_choice": Flag(
        "--enable-auto-tool-choice", yes_no("The model may call tools."), "--no-enable-auto-tool-choice"
    ),
    "tool_call_parser": Flag("--tool-call-parser", {**WORD, "description": "How it writes calls of tools."}),
    "reasoning_parser": Flag("--reasoning-parser", {**WORD, "description": "How it writes its thoughts."}),
    "limit_mm_per_prompt": Flag(
        "--limit-mm-per-prompt",
        {
            "type": "object",
            "additionalProperties": {"type": "integer", "minimum": 0, "maximum": 10000},
            "description": "Most images, videos, ... of a prompt.",
        },
    ),
    "uvicorn_log_level": Flag(
        "--uvicorn-log-level",
        one_of("Of its HTTP side.", "critical", "error", "warning", "info", "debug", "trace"),
    ),
    "trust_remote_code": Flag(
        "--trust-remote-code",
        {**yes_no("Run code that comes with the model; admin only."), "x-admin": True},
        "--no-trust-remote-code",
    ),
}
#: What would take it off its port, off its key, or away from what the model is called.
OURS = frozenset(
    {
        "--host",
        "--port",
        "--uds",
        "--api-key",
        "--served-model-name",
        "--model",
        "--config",
        "--headless",
        "--grpc",
        "--root-path",
        "--ssl-keyfile",
        "--ssl-certfile",
        "--ssl-ca-certs",
        "--disable-log-stats",
        "--tensor-parallel-size",
    }
)


class Vllm:
    """Demands the engine key on every route but ``/health``.

    vLLM itself asks for its key below ``/v1`` only, and answers ``/tokenize``, ``/invocations`` (which generates) and
    others to whoever reaches the port. A small middleware of ours, which vLLM is told to load, asks for it everywhere.
    """

    name = "vllm"
    summary = "vLLM: models of the hub or of a folder, on GPUs; installed by the operator (HOSTLER_VLLM_COMMAND)."
    admin_only = False
    needs_model_file = False
    takes_hub_model = True
    serves_models = True
    keeps_data = False
    spans_hosts = False
    program_setting = "vllm_command"
    checks_key = True
    open_paths = frozenset({"/health"})
    #: exact names: VLLM_PLUGINS, VLLM_RUST_FRONTEND_PATH and others run code, VLLM_SERVER_DEV_MODE opens routes
    user_env = HUB_ENV | {
        "VLLM_LOGGING_LEVEL",
        "VLLM_ALLOW_LONG_MAX_MODEL_LEN",
        "VLLM_CPU_KVCACHE_SPACE",
        "VLLM_CPU_OMP_THREADS_BIND",
        "VLLM_ENGINE_ITERATION_TIMEOUT_S",
        "VLLM_ENGINE_READY_TIMEOUT_S",
        "VLLM_WORKER_MULTIPROC_METHOD",
    }
    public_env = user_env - {"HF_TOKEN"}
    config_schema: Mapping[str, Any] = schema_of(
        FLAGS,
        max_batch_size=count("As max_num_seqs, which wins.", 65536),
        chat_template={**TEMPLATE, "description": "Jinja template instead of the model's."},
        extra_args={**ADMIN_FLAGS, "description": "More arguments of `vllm serve`, one word each; admin only."},
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
        files = {_GUARD.name: _GUARD.read_text(encoding="utf-8")}
        argv = [
            *request.program,
            hub_model(request),
            *(config.get("extra_args") or ()),
            *argv_of(FLAGS, config),
            "--served-model-name",
            *served_names(request),
            "--host",
            request.host,
            "--port",
            str(request.port),
            "--middleware",
            f"{_GUARD.stem}.Guard",
        ]
        if config.get("chat_template"):
            files[_TEMPLATE] = config["chat_template"]
            argv += ["--chat-template", f"{{folder}}/{_TEMPLATE}"]
        own_path = request.environment.get("PYTHONPATH", "")
        env = {
            "VLLM_NO_USAGE_STATS": "1",
            **surroundings(request),
            **request.environment,
            "PYTHONPATH": os.pathsep.join(part for part in ("{folder}", own_path) if part),
            "VLLM_API_KEY": request.engine_key,
        }
        return Command(tuple(argv), env, files, frozenset({"VLLM_API_KEY", "HF_TOKEN"}), MISSING)

    def readiness(self, config: Mapping[str, Any]) -> HttpCheck:
        # it listens only once the model is loaded
        return HttpCheck("health", "/health")

    def diagnostics(self, config: Mapping[str, Any]) -> tuple[HttpCheck, ...]:
        everything = openai.checks()
        return (*everything[:2], openai.ONE_EMBEDDING) if config.get("runner") == "pooling" else everything

    def deep_probe(self, config: Mapping[str, Any]) -> HttpCheck | None:
        return openai.ONE_EMBEDDING if config.get("runner") == "pooling" else openai.ONE_TOKEN

    def counters(self, config: Mapping[str, Any]) -> Counters | None:
        # tokens are added in every step of the scheduler, requests when they end
        finished, made, read = (
            f"vllm:{name}_total" for name in ("request_success", "generation_tokens", "prompt_tokens")
        )
        return Counters("/metrics", finished=(finished,), progress=(finished, made, read), born_late=True)

    def cause_of_exit(self, log_tail: str) -> ExitCause | None:
        if "No module named 'vllm'" in log_tail or "No module named vllm" in log_tail:
            return ExitCause("launch_failed", MISSING)
        return out_of_memory(log_tail)

    def dialect(self, config: Mapping[str, Any]) -> Dialect | None:
        return None if config.get("runner") == "pooling" else OpenAIDialect(tells_ids=True)

    def max_concurrency(self, config: Mapping[str, Any]) -> int | None:
        sequences = config.get("max_num_seqs", config.get("max_batch_size"))
        return int(sequences * (config.get("data_parallel_size") or 1)) if sequences else None
