"""Mode picks the engine (what runs); the pool picks the backend (where it runs). This is the visible table."""

from __future__ import annotations

from enum import StrEnum


class ServerMode(StrEnum):
    REPLICA = "replica"
    REPLICA_MOCK = "replica_mock"
    API_GATEWAY = "api_gateway"
    API_GATEWAY_MOCK = "api_gateway_mock"
    PLATFORM_WORKLOAD = "platform_workload"
    PLATFORM_WORKLOAD_MOCK = "platform_workload_mock"


#: Engine by mode; None means the engine that the model's catalogue entry names.
ENGINE_BY_MODE: dict[ServerMode, str | None] = {
    ServerMode.REPLICA: None,
    ServerMode.REPLICA_MOCK: "mock",
    ServerMode.API_GATEWAY: None,
    ServerMode.API_GATEWAY_MOCK: "mock",
    ServerMode.PLATFORM_WORKLOAD: None,
    ServerMode.PLATFORM_WORKLOAD_MOCK: "mock",
}


def engine_for(mode: ServerMode, model_engine: str | None, platform_config: dict | None = None) -> str | None:
    """The engine's name, or None when the mode takes it from a model and there is none.

    ``platform_config.command`` (an argv) makes a platform workload run the ``command`` engine.
    """
    fixed = ENGINE_BY_MODE[mode]
    if fixed is not None:
        return fixed
    if mode is ServerMode.PLATFORM_WORKLOAD and (platform_config or {}).get("command"):
        return "command"
    return model_engine


def accepts_any_model(mode: ServerMode) -> bool:
    """The mocks serve whatever name they are asked for; no catalogue entry is needed."""
    return ENGINE_BY_MODE[mode] == "mock"
