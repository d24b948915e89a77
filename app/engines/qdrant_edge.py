"""Qdrant's own engine in a small server of ours: for tests and laptops, and the same REST API as far as it goes."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.domain.endpoints import Endpoint
from app.engines import stores
from app.engines.base import Command, Counters, EngineRequest, ExitCause, HttpCheck
from app.engines.dialects.base import Dialect
from app.engines.schema import check, refuse

_PROGRAM = Path(__file__).parent / "programs" / "qdrant_edge_server"


class QdrantEdge:
    """Demands the engine key, as ``api-key`` or bearer token, on all routes but its root and its health."""

    name = "qdrant-edge"
    summary = "Qdrant's engine in one process (qdrant-edge-py), a part of Qdrant's REST API, on disk; for small stores."
    admin_only = False
    needs_model_file = False
    takes_hub_model = False
    serves_models = False
    keeps_data = True
    spans_hosts = False
    program_setting = ""
    checks_key = True
    open_paths = frozenset({"/", "/healthz", "/readyz", "/livez"})
    user_env = frozenset({"TZ"})
    public_env = user_env
    config_schema: Mapping[str, Any] = {"type": "object", "properties": {}}

    def validate(self, config: Mapping[str, Any]) -> dict[str, list[str]]:
        return check(config, self.config_schema)

    def upstream(self, config: Mapping[str, Any]) -> Endpoint | None:
        return None

    def gpus_needed(self, config: Mapping[str, Any]) -> int | None:
        return 0

    def command(self, request: EngineRequest) -> Command:
        refuse(self.validate(request.config))
        storage = stores.storage_of(request)
        launch = {"host": request.host, "port": request.port, "name": request.model_name, "storage": storage}
        return Command(
            argv=stores.locked(storage, (sys.executable, "-I", "-S", str(_PROGRAM), "{folder}/qdrant-edge.json")),
            env={**request.environment, "HOSTLER_ENGINE_KEY": request.engine_key},
            files={"qdrant-edge.json": json.dumps(launch, indent=1)},
            secret_env=frozenset({"HOSTLER_ENGINE_KEY"}),
        )

    def readiness(self, config: Mapping[str, Any]) -> HttpCheck:
        return stores.READY

    def diagnostics(self, config: Mapping[str, Any]) -> tuple[HttpCheck, ...]:
        return (stores.READY, stores.COLLECTIONS)

    def deep_probe(self, config: Mapping[str, Any]) -> HttpCheck | None:
        return stores.COLLECTIONS

    def counters(self, config: Mapping[str, Any]) -> Counters | None:
        answers = ("rest_responses_total",)
        return Counters("/metrics", finished=answers, progress=answers, born_late=True)

    def cause_of_exit(self, log_tail: str) -> ExitCause | None:
        return stores.cause_of_exit(log_tail)

    def dialect(self, config: Mapping[str, Any]) -> Dialect | None:
        return None

    def max_concurrency(self, config: Mapping[str, Any]) -> int | None:
        return None
