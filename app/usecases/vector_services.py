"""Services that are vector databases: which there are, and whom a request to one may reach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.db.repos import models as catalogue
from app.db.repos import service_members, service_revisions
from app.domain.services import Status
from app.engines.registry import STORES
from app.errors import Conflict, ModelForbidden, NoReadyReplica
from app.usecases import service_refs, services
from app.usecases.context import Actor, Context
from app.usecases.served import visible_names

#: Until a store that starts may be ready.
_STARTING_RETRY_S = 5
_OUT_RETRY_S = 2


@dataclass(frozen=True)
class VectorService:
    """A vector database that can be asked: its replica that answers is the store."""

    service_id: str
    name: str
    members: tuple[Mapping[str, Any], ...]


def page(ctx: Context, limit: int, cursor: str | None) -> tuple[list[dict[str, Any]], int, str | None]:
    """Vector databases that were not cancelled, newest first: (as ``services.get``, total, next cursor)."""
    return services.page(ctx, {"engines": list(STORES), "desired_state": "running"}, limit, cursor)


def find(ctx: Context, actor: Actor, ref: str) -> VectorService:
    """The vector database of id or name ``ref``.

    Raises NotFound; Conflict for one that is cancelled or a service of another kind; ModelForbidden for a key that is
    limited to other models; NoReadyReplica while its replica does not answer.
    """
    with ctx.database.read() as connection:
        row = service_refs.read(connection, ref)
        members = service_members.ready(connection, row.id)
        revision = service_revisions.read(connection, row.id, row.revision)
        replica = revision.spec["replica"] if revision is not None else {}
        called = {member.model_name for member in members} or {replica.get("model_name") or ""}
        known = [catalogue.find(connection, one) for one in called]
    for name, model in zip(called, known, strict=True):
        if not visible_names(actor, model.name if model is not None else name, [name]):
            raise ModelForbidden(
                "Your key is not allowed this vector database: a key that is limited to models needs its name among"
                " them. Ask an admin for one."
            )
    engine = (replica.get("run") or {}).get("engine") or ""
    if not {member.engine for member in members} | ({engine} if not members else set()) <= set(STORES):
        raise Conflict(
            f"Service {row.name} is no vector database, it runs {engine or 'something else'}."
            " `GET /api/v1/vector-db/services` lists those that are.",
            errors={"service_id": ["Is no vector database."]},
        )
    if row.desired_state != "running":
        raise service_refs.cancelled(row)
    listening = tuple(dict(member._mapping) for member in members if member.port is not None)
    if not listening:
        raise _nobody(ctx, row)
    return VectorService(row.id, row.name, listening)


def _nobody(ctx: Context, row: Any) -> NoReadyReplica:
    """Why it does not answer, and when another try may pay."""
    service = services.get(ctx, row.id)
    why = next((one["message"] for one in service["replicas"] if one["message"]), None) or service["message"]
    told = f" Its replica said last: {why}" if why else ""
    starting = service["status"] in (Status.PENDING, Status.CONFIGURING)
    how = (
        f"is starting. Try again, or wait with `hostler service status {row.name}`."
        if starting and row.count
        else f"was scaled to 0 replicas. `hostler service scale {row.name} 1` starts it again."
        if not row.count
        else f"is not ready ({service['overall_status']}). See `hostler service status {row.name}`."
    )
    return NoReadyReplica(
        f"Service {row.name} {how}{told}",
        retry_after_s=_STARTING_RETRY_S if starting else _OUT_RETRY_S,
        extra={"service_status": service["status"]},
    )
