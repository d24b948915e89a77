"""Qdrant's server: the vector database itself. Not shipped: the operator installs it.

Names of its settings, the order in which it reads them, its routes and its rules about keys were read in its source;
tests run a stand-in that takes these settings and no others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from app.domain.endpoints import Endpoint
from app.engines import stores
from app.engines.base import Command, Counters, EngineRequest, ExitCause, HttpCheck
from app.engines.dialects.base import Dialect
from app.engines.flags import count, one_of, yes_no
from app.engines.schema import check, refuse, whole

MISSING = (
    "qdrant not found: install Qdrant's server (https://qdrant.tech/documentation/installation) and set"
    " HOSTLER_QDRANT_COMMAND, for example to `/opt/qdrant/qdrant`; for a small store take the engine qdrant-edge"
)
_CONFIG = "qdrant.yaml"

#: Members of the config, and the setting of Qdrant that each becomes.
_SETTINGS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "log_level": ("LOG_LEVEL", one_of("What it logs.", "ERROR", "WARN", "INFO", "DEBUG")),
    "max_workers": ("SERVICE__MAX_WORKERS", count("Threads that answer requests; default one per core.", 1024)),
    "max_request_size_mb": ("SERVICE__MAX_REQUEST_SIZE_MB", count("Largest body; default 32.", 1024)),
    "on_disk_payload": ("STORAGE__ON_DISK_PAYLOAD", yes_no("Keep payloads on disk; default true.")),
    "max_search_threads": (
        "STORAGE__PERFORMANCE__MAX_SEARCH_THREADS",
        count("Threads that search; default by the number of cores.", 1024),
    ),
    "optimizer_cpu_budget": (
        "STORAGE__PERFORMANCE__OPTIMIZER_CPU_BUDGET",
        count("Cores that build indexes; default all but one or more.", 1024),
    ),
}


class Qdrant:
    """Demands the engine key, as ``api-key`` or bearer token, on all routes but its root and its health.

    Its gRPC and cluster ports stay closed: they are the same for every Qdrant of a host, and nothing routes to them.
    """

    name = "qdrant"
    summary = "Qdrant's server, a vector database; installed by the operator (HOSTLER_QDRANT_COMMAND)."
    admin_only = False
    needs_model_file = False
    takes_hub_model = False
    serves_models = False
    keeps_data = True
    spans_hosts = False
    program_setting = "qdrant_command"
    checks_key = True
    open_paths = frozenset({"/", "/healthz", "/readyz", "/livez"})
    user_env = frozenset({"TZ", "MALLOC_CONF"})
    public_env = user_env
    config_schema: Mapping[str, Any] = {
        "type": "object",
        "properties": {name: dict(schema) for name, (_, schema) in _SETTINGS.items()},
    }

    def validate(self, config: Mapping[str, Any]) -> dict[str, list[str]]:
        return check(config, self.config_schema)

    def upstream(self, config: Mapping[str, Any]) -> Endpoint | None:
        return None

    def gpus_needed(self, config: Mapping[str, Any]) -> int | None:
        return 0

    def command(self, request: EngineRequest) -> Command:
        refuse(self.validate(request.config))
        config = whole(request.config, self.config_schema)
        storage = stores.storage_of(request)
        chosen = {
            f"QDRANT__{setting}": _word(config[name])
            for name, (setting, _) in _SETTINGS.items()
            if config.get(name) is not None
        }
        env = {
            **request.environment,
            **chosen,
            "QDRANT__SERVICE__HOST": request.host,
            "QDRANT__SERVICE__HTTP_PORT": str(request.port),
            "QDRANT__SERVICE__API_KEY": request.engine_key,
            # whoever may call it holds the key; no browser has business here
            "QDRANT__SERVICE__ENABLE_CORS": "false",
            "QDRANT__STORAGE__STORAGE_PATH": f"{storage}/storage",
            "QDRANT__STORAGE__SNAPSHOTS_PATH": f"{storage}/snapshots",
            "QDRANT__CLUSTER__ENABLED": "false",
            "QDRANT__TELEMETRY_DISABLED": "true",
        }
        # a null cannot be said by environment; any JSON is YAML
        files = {_CONFIG: json.dumps({"service": {"grpc_port": None}})}
        argv = (*request.program, "--config-path", f"{{folder}}/{_CONFIG}")
        return Command(stores.locked(storage, argv), env, files, frozenset({"QDRANT__SERVICE__API_KEY"}), MISSING)

    def readiness(self, config: Mapping[str, Any]) -> HttpCheck:
        return stores.READY

    def diagnostics(self, config: Mapping[str, Any]) -> tuple[HttpCheck, ...]:
        return (stores.READY, stores.COLLECTIONS)

    def deep_probe(self, config: Mapping[str, Any]) -> HttpCheck | None:
        return stores.COLLECTIONS

    def counters(self, config: Mapping[str, Any]) -> Counters | None:
        # it counts only requests to a collection's points, and which collections there are is its users' business
        return None

    def cause_of_exit(self, log_tail: str) -> ExitCause | None:
        return stores.cause_of_exit(log_tail, MISSING)

    def dialect(self, config: Mapping[str, Any]) -> Dialect | None:
        return None

    def max_concurrency(self, config: Mapping[str, Any]) -> int | None:
        return None


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
