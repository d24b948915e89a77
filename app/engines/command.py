"""Any command line that serves HTTP on the port it is given. It runs what its user says, so only an admin may."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.domain.endpoints import Endpoint
from app.engines import openai
from app.engines.base import Command, Counters, EngineRequest, ExitCause, HttpCheck
from app.engines.dialects.base import Dialect
from app.engines.dialects.openai import OpenAIDialect
from app.engines.schema import check, refuse


class CommandEngine:
    """Substitutes ``{port} {host} {folder} {model} {model_name}`` in argv and in the values of the environment.

    Other braces stay as they are, so JSON can be an argument. The command finds the engine key, which it may
    demand from callers, in ``HOSTLER_ENGINE_KEY``.
    """

    name = "command"
    summary = "Any command that serves HTTP on {port}; admin only."
    admin_only = True
    needs_model_file = False
    takes_hub_model = False
    serves_models = True
    keeps_data = False
    spans_hosts = True
    program_setting = ""
    checks_key = False
    open_paths: frozenset[str] = frozenset()
    user_env: frozenset[str] = frozenset()
    public_env: frozenset[str] = frozenset()
    config_schema: Mapping[str, Any] = {
        "type": "object",
        "required": ["command"],
        "properties": {
            "command": {
                "type": "array",
                "minItems": 1,
                "items": {"type": "string"},
                "description": "The argv; {port}, {host}, {folder}, {model} and {model_name} are filled in.",
            },
            "readiness_path": {"type": "string", "minLength": 1, "description": "GET answers 2xx; default /health."},
            "diagnostics": {
                "type": "string",
                "enum": ["readiness", "openai"],
                "description": "What run_diagnostics asks: only the readiness path, or OpenAI's routes too.",
            },
        },
    }

    def validate(self, config: Mapping[str, Any]) -> dict[str, list[str]]:
        errors = check(config, self.config_schema)
        if errors:
            return errors
        if not config["command"][0].strip():
            errors["command.0"] = ["must name a program"]
        if any("\0" in word for word in config["command"]):
            errors["command"] = ["must not hold NUL"]
        path = config.get("readiness_path", "/")
        if not path.startswith("/") or any(letter <= " " or letter > "~" for letter in path):
            errors["readiness_path"] = ["must be a path that starts with / and holds no spaces"]
        return errors

    def upstream(self, config: Mapping[str, Any]) -> Endpoint | None:
        return None

    def gpus_needed(self, config: Mapping[str, Any]) -> int | None:
        return None

    def command(self, request: EngineRequest) -> Command:
        refuse(self.validate(request.config))
        words = {
            "{port}": str(request.port),
            "{host}": request.host,
            "{model}": str(request.model_path or request.model_name),
            "{model_name}": request.model_name,
        }
        own = {name: _substitute(value, words) for name, value in request.environment.items()}
        return Command(
            argv=tuple(_substitute(word, words) for word in request.config["command"]),
            env={**own, "HOSTLER_ENGINE_KEY": request.engine_key},
            # nobody can tell which of them are secret, so all are
            secret_env=frozenset({*own, "HOSTLER_ENGINE_KEY"}),
        )

    def readiness(self, config: Mapping[str, Any]) -> HttpCheck:
        return HttpCheck("health", config.get("readiness_path", "/health"))

    def diagnostics(self, config: Mapping[str, Any]) -> tuple[HttpCheck, ...]:
        ready = self.readiness(config)
        return openai.checks(ready.path) if config.get("diagnostics") == "openai" else (ready,)

    def deep_probe(self, config: Mapping[str, Any]) -> HttpCheck | None:
        return openai.ONE_TOKEN if config.get("diagnostics") == "openai" else None

    def counters(self, config: Mapping[str, Any]) -> Counters | None:
        # it may have some, and only its user knows what they mean
        return None

    def cause_of_exit(self, log_tail: str) -> ExitCause | None:
        return None

    def dialect(self, config: Mapping[str, Any]) -> Dialect | None:
        return OpenAIDialect(tells_ids=False) if config.get("diagnostics") == "openai" else None

    def max_concurrency(self, config: Mapping[str, Any]) -> int | None:
        return None


def _substitute(text: str, words: Mapping[str, str]) -> str:
    """Not str.format: a value may hold braces of its own. ``{folder}`` is left for the backend."""
    for word, value in words.items():
        text = text.replace(word, value)
    return text
