"""From a replica's row to what is run for it and what its engine is asked."""

from __future__ import annotations

from typing import Any

from app.domain.lifecycle import Reason
from app.domain.placeholders import PORT_LATER
from app.domain.routing import SERVICE_LABEL
from app.engines.base import Command, Engine
from app.engines.registry import ENGINES
from app.errors import Forbidden
from app.usecases import external
from app.usecases.context import Context
from app.usecases.plans import command_for
from app.usecases.reach import Address
from app.usecases.recipe_secrets import read_secrets
from workers.backends.base import Handle
from workers.probes.wire import ProbeTarget


def engine_of(row: Any) -> Engine:
    """The engine of a replica."""
    return ENGINES[row.engine]


def command_of(ctx: Context, row: Any, host: str, port: int | str, gpus: int) -> Command:
    """What one attempt runs. Raises InvalidConfig, or Forbidden: who may run it, and where an upstream's name leads by
    now, is checked where it is done.

    Secrets by reference are read here, where it is launched, and go nowhere but into its environment.
    """
    engine = engine_of(row)
    if engine.admin_only and row.spec.get("granted_role") != "admin":
        raise Forbidden(f"The engine {engine.name!r} needs a create by a key of role admin.")
    upstream = engine.upstream(row.spec["resolved"]["config"])
    addresses = external.look_up(ctx.settings, upstream) if upstream is not None else None
    secrets = row.spec["resolved"].get("secrets") or {}
    environment = {**read_secrets(ctx.settings, secrets), **ctx.unseal(row.environment)}
    return command_for(
        ctx,
        engine,
        row.model_name,
        row.spec["resolved"],
        host=host,
        port=port,
        gpus=gpus,
        environment=environment,
        # another host may know a name that this one does not
        addresses=(addresses or None) if port == PORT_LATER else addresses,
        keeper=data_keeper(row),
    )


def data_keeper(row: Any) -> str:
    """Whose data a replica opens: its service's, so that the one that replaces it finds them, or its own."""
    return str(row.labels.get(SERVICE_LABEL) or row.id)


def explained_exit(row: Any, reason: Reason | None, message: str, log_tail: str) -> tuple[Reason | None, str]:
    """The reason and message of an end before it was ready, in the engine's own words where its last lines tell."""
    cause = engine_of(row).cause_of_exit(log_tail) if reason is Reason.PROCESS_EXITED else None
    return (Reason(cause.kind), f"{cause.message} ({message})") if cause else (reason, message)


def readiness_target(row: Any, address: Address) -> ProbeTarget:
    """The probe that decides *ready* and *healthy*.

    Without the engine key: until it answered nobody knows whether the engine listens there or a stranger.
    """
    check = engine_of(row).readiness(row.spec["resolved"]["config"])
    return ProbeTarget(host=address.host, port=address.port, path=check.path)


def wants_diagnostics(row: Any) -> bool:
    """``run_diagnostics`` defaults to true."""
    return bool(row.spec.get("run_diagnostics", True))


def diagnostics_timeout_s(row: Any) -> float:
    """``timeouts.health_check_timeout_s``, default 120 s."""
    return float((row.spec.get("timeouts") or {}).get("health_check_timeout_s") or 120)


def handle_of(backend: str, name: str, ref: dict[str, Any] | None) -> Handle:
    """The stored handle; by its bare name when the launcher died before it could store one."""
    return Handle(backend, name, (ref or {}).get("ref", {}))


def to_json(handle: Handle) -> dict[str, Any]:
    """The handle as ``attempts.backend_ref`` keeps it."""
    return {"backend": handle.backend, "name": handle.name, "ref": dict(handle.ref)}
