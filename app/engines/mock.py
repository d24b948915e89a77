"""The mock engine: a real HTTP server with OpenAI's routes, no model, and every fault on demand."""

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
from app.engines.dialects.openai import OpenAIDialect
from app.engines.schema import check, refuse

_PROGRAM = Path(__file__).parent / "programs" / "mock_server"


def _seconds(description: str) -> dict[str, Any]:
    return {"type": "number", "minimum": 0, "maximum": 86400, "description": description}


def _count(description: str, maximum: int = 2**31) -> dict[str, Any]:
    return {"type": "integer", "minimum": 0, "maximum": maximum, "description": description}


#: The knobs, all optional. "Requests" are completions, chats and embeddings.
KNOBS: dict[str, Any] = {
    "startup_s": _seconds("Before it is ready; until then connections are refused."),
    "startup_answers_503": {"type": "boolean", "description": "While starting it listens and answers 503."},
    "latency_ms": {**_seconds("Added to each request."), "maximum": 86400_000},
    "ttft_ms": {**_seconds("Before the first token."), "maximum": 86400_000},
    "tokens_per_s": {"type": "number", "minimum": 0, "description": "Rate of each stream; 0: as fast as it can."},
    "max_tokens": _count("Tokens of an answer when the request does not say.", 1_000_000),
    "slots": _count("Requests at once, the others wait; 0: no bound.", 100_000),
    "seed": _count("Same seed, same text and same faults.", 2**32 - 1),
    "error_rate": {"type": "number", "minimum": 0, "maximum": 1, "description": "Share of requests answered 500."},
    "hang": {"type": "boolean", "description": "Requests are never answered; /health stays 200."},
    "hang_after_n": _count("So many requests are answered, later ones never."),
    "busy_tokens_per_s": {
        "type": "number",
        "minimum": 0,
        "description": "As if others kept it busy: requests wait for ever, the token counter grows at this rate.",
    },
    "counters_stuck": {"type": "boolean", "description": "/metrics goes on telling what it told at the start."},
    "crash_after_n": _count("So many requests are answered, the next ends the process with exit_code."),
    "exit_on_start": _count("End at once with this code.", 255),
    "exit_after_s": _seconds("End with exit_code so long after the start, ready or not."),
    "exit_code": _count("Code of crash_after_n and exit_after_s; default 1.", 255),
    "health_fails_after_s": _seconds("From then on /health is 500."),
    "health_hangs_after_s": _seconds("From then on /health is never answered."),
    "ignore_sigterm": {"type": "boolean", "description": "Only SIGKILL ends it."},
    "stop_s": _seconds("Between SIGTERM and its end."),
    "log_lines": {
        "type": ["integer", "array"],
        "minimum": 0,
        "maximum": 10_000_000,
        "items": {"type": "string"},
        "description": "Lines to print at start: their number, or the lines.",
    },
}


class MockEngine:
    """Demands the engine key on all routes but ``/health``. Appends a line to ``{folder}/starts`` at each start."""

    name = "mock"
    summary = "Real HTTP, OpenAI routes, made-up text; delays and faults by replica_config.mock."
    admin_only = False
    needs_model_file = False
    takes_hub_model = False
    serves_models = True
    keeps_data = False
    spans_hosts = False
    program_setting = ""
    checks_key = True
    open_paths = frozenset({"/health", "/v1/health"})
    user_env = frozenset({"MOCK_*", "OMP_NUM_THREADS", "LOG_LEVEL", "HF_TOKEN", "TZ"})
    public_env = frozenset({"OMP_NUM_THREADS", "LOG_LEVEL", "TZ"})
    config_schema: Mapping[str, Any] = {
        "type": "object",
        # a knob with a typo would be a fault that never comes
        "properties": {
            "mock": {"type": "object", "additionalProperties": False, "properties": KNOBS, "description": "The knobs."}
        },
    }

    def validate(self, config: Mapping[str, Any]) -> dict[str, list[str]]:
        return check(config, self.config_schema)

    def upstream(self, config: Mapping[str, Any]) -> Endpoint | None:
        return None

    def gpus_needed(self, config: Mapping[str, Any]) -> int | None:
        return None

    def command(self, request: EngineRequest) -> Command:
        refuse(self.validate(request.config))
        launch = {
            "host": request.host,
            "port": request.port,
            "model": request.model_name,
            "knobs": dict(request.config.get("mock", {})),
        }
        return Command(
            argv=(sys.executable, "-I", "-S", str(_PROGRAM), "{folder}/mock.json"),
            env={**request.environment, "HOSTLER_ENGINE_KEY": request.engine_key},
            files={"mock.json": json.dumps(launch, indent=1)},
            secret_env=frozenset({"HOSTLER_ENGINE_KEY"}),
        )

    def readiness(self, config: Mapping[str, Any]) -> HttpCheck:
        return HttpCheck("health", "/health")

    def diagnostics(self, config: Mapping[str, Any]) -> tuple[HttpCheck, ...]:
        return openai.checks()

    def deep_probe(self, config: Mapping[str, Any]) -> HttpCheck | None:
        return openai.ONE_TOKEN

    def counters(self, config: Mapping[str, Any]) -> Counters | None:
        tokens, finished = "llamacpp:tokens_predicted_total", "mock:requests_finished_total"
        return Counters("/metrics", finished=(finished,), progress=(tokens, finished))

    def cause_of_exit(self, log_tail: str) -> ExitCause | None:
        return None

    def dialect(self, config: Mapping[str, Any]) -> Dialect | None:
        return OpenAIDialect(tells_ids=True)

    def max_concurrency(self, config: Mapping[str, Any]) -> int | None:
        slots = config.get("mock", {}).get("slots")
        return int(slots) if slots else None
