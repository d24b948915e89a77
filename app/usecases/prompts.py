"""Prompts to a service: which model it serves, to whom, and what its replicas understand."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from app.db.repos import models as catalogue
from app.db.repos import replicas, service_members, service_revisions
from app.db.repos import services as repo
from app.domain.services import Status
from app.engines.dialects.openai import OpenAIDialect
from app.engines.registry import ENGINES
from app.engines.vllm import Vllm
from app.errors import Conflict, ModelForbidden, ModelNotFound, NoReadyReplica
from app.usecases import service_refs, services
from app.usecases.context import Actor, Context
from app.usecases.plans import near
from app.usecases.served import Target, visible_names

#: What all of them speak; a prompt asks for nothing else.
_DIALECT = OpenAIDialect(tells_ids=False)
#: Until a replica that starts may be ready.
_STARTING_RETRY_S = 5
_OUT_RETRY_S = 2


@dataclass(frozen=True)
class Prompted:
    """A service that can be asked; ``total`` of its replicas are wanted.

    ``replicas`` has (where it was routed, the model's own name, port) of those that answer, by id.
    """

    service_id: str
    revision: int
    total: int
    target: Target
    replicas: Mapping[str, tuple[str, str, int]]

    @property
    def group_id(self) -> str | None:
        return self.service_id if self.total > 1 else None


def find(ctx: Context, actor: Actor, ref: str, asked: str | None = None) -> Prompted:
    """The service of id or name ``ref``, for a request that names the model ``asked`` or none.

    Raises NotFound; Conflict for one that is cancelled or makes no text; ModelForbidden; ModelNotFound for a model that
    it does not serve; NoReadyReplica while none of its replicas answers.
    """
    row, members, names = _read(ctx, actor, ref)
    model = _chosen(row, names, asked)
    if row.desired_state != "running":
        raise service_refs.cancelled(row)
    listening = [member for member in members if member.port is not None]
    if members and not listening:
        raise Conflict(f"Service {row.name} runs in a pool where nothing listens: nobody is there to be asked.")
    if not listening:
        raise _nobody(ctx, row)
    return Prompted(
        row.id,
        row.revision,
        row.count,
        _target(row.id, names[model][0], model if asked else None, listening),
        {
            member.replica_id: (
                _routed(member.job_id or member.replica_id, member.port),
                names[member.model_name][0],
                member.port,
            )
            for member in listening
        },
    )


def _target(service_id: str, name: str, asked: str | None, listening: Sequence[Any]) -> Target:
    """The service, or while an update changes its model one of the replicas that have the one that was asked for."""
    fitting = [member.replica_id for member in listening if member.model_name == asked]
    if fitting and len(fitting) < len(listening):
        return Target(name, asked or "", _DIALECT, ready=True, replica_id=random.choice(fitting))
    sent = asked or ("" if all(map(_takes_no_name, listening)) else listening[0].model_name)
    return Target(name, sent, _DIALECT, ready=True, service_id=service_id)


def _takes_no_name(member: Any) -> bool:
    """Whether it takes a request that names no model for its own: so a model that is just being changed is no matter.

    Servers of others need a name.
    """
    return ENGINES[member.engine].upstream(member.config or {}) is None


def members(ctx: Context, actor: Actor, ref: str) -> tuple[str, list[dict[str, Any]]]:
    """(the service's id, its replicas that answer: ``replica_id, port``). Raises as ``find`` does."""
    prompted = find(ctx, actor, ref)
    return prompted.service_id, [{"replica_id": one, "port": port} for one, (_, _, port) in prompted.replicas.items()]


def page(ctx: Context, limit: int, cursor: str | None) -> tuple[list[dict[str, Any]], int, str | None]:
    """Services that run vLLM and were not cancelled, newest first: (as ``services.get``, total, next cursor)."""
    return services.page(ctx, {"engines": [Vllm.name], "desired_state": "running"}, limit, cursor)


def answered(ctx: Context, prompted: Prompted, replica_id: str) -> tuple[str, str]:
    """(``JOB:PORT`` or ``REPLICA:PORT``, the model's own name) of the replica that answered: one that came or went
    meanwhile too."""
    if replica_id in prompted.replicas:
        return prompted.replicas[replica_id][:2]
    with ctx.database.read() as connection:
        row = replicas.read(connection, replica_id)
        if row is None:
            return replica_id, prompted.target.name
        return _routed(replica_id, row.port), _names(connection, row.model_name)[0]


def _routed(who: str, port: int | None) -> str:
    return f"{who}:{port}" if port is not None else who


def _read(ctx: Context, actor: Actor, ref: str) -> tuple[Any, list[Any], dict[str, tuple[str, ...]]]:
    """The service's row, its members that answer, and the models it serves: every name of each, by what is sent.

    Raises NotFound, ModelForbidden, Conflict for one that makes no text.
    """
    with ctx.database.read() as connection:
        row = _row(connection, ref)
        members = service_members.ready(connection, row.id)
        revision = service_revisions.read(connection, row.id, row.revision)
        replica = revision.spec["replica"] if revision is not None else {}
        sent = [member.model_name for member in members] or [replica.get("model_name") or ""]
        names = {one: _names(connection, one) for one in dict.fromkeys(sent)}
    _check_allowed(actor, names)
    _check_speaks(row, members, replica)
    return row, members, names


def _row(connection: Connection, ref: str) -> Any:
    """By its id, which is the common case and the cheap one, else by its name. Raises NotFound."""
    if not repo.is_there(connection):
        raise service_refs.unknown(ref)
    return repo.read(connection, ref) or service_refs.read(connection, ref)


def _names(connection: Connection, name: str) -> tuple[str, ...]:
    """The model's own name, then its others."""
    row = catalogue.find(connection, name)
    return (row.name, *row.aliases) if row is not None else (name,)


def _check_allowed(actor: Actor, names: Mapping[str, Sequence[str]]) -> None:
    """Every model behind it, before any is named: which of them answers, only the gateway knows."""
    for sent, known in names.items():
        if not visible_names(actor, known[0], [sent]):
            raise ModelForbidden(
                "Your key is not allowed the model of this service. `GET /models` lists what it is allowed."
            )


def _check_speaks(row: Any, members: Sequence[Any], replica: Mapping[str, Any]) -> None:
    run = replica.get("run") or {}
    kinds = [(member.engine, member.config or {}) for member in members]
    for name, config in kinds or [(run.get("engine") or "", replica.get("replica_config") or {})]:
        engine = ENGINES.get(name)
        if engine is None or engine.dialect(config) is None:
            raise Conflict(
                f"Service {row.name} runs {name or 'nothing yet'}, which answers no prompts."
                " `GET /api/v1/vllm/services` lists services that do.",
                errors={"service_id": ["Answers no prompts."]},
            )


def _chosen(row: Any, names: Mapping[str, Sequence[str]], asked: str | None) -> str:
    """The name under which the replicas know the model that was asked for."""
    if asked is None:
        return next(iter(names))
    for sent, known in names.items():
        if asked == sent or asked in known:
            return sent
    served = sorted({known[0] for known in names.values()})
    raise ModelNotFound(
        f"Service {row.name} does not serve {asked[:200]!r}. It serves {', '.join(served)}: send that, or no model.",
        errors={"model": [f"Not served here.{near(asked, served)}"]},
        extra={"models": served},
    )


def _nobody(ctx: Context, row: Any) -> NoReadyReplica:
    """Why none of its replicas answers, and when another try may pay."""
    if not row.count:
        told = f"Service {row.name} was scaled to 0 replicas. `hostler service scale {row.name} 1` starts one."
        return NoReadyReplica(told, retry_after_s=_STARTING_RETRY_S, extra={"service_status": Status.PENDING})
    service = services.get(ctx, row.id)
    why = next((one["message"] for one in service["replicas"] if one["message"]), None) or service["message"]
    if service["status"] in (Status.PENDING, Status.CONFIGURING):
        return NoReadyReplica(
            f"Service {row.name} is starting: none of its {row.count} replicas is ready yet. Try again, or wait with"
            f" `hostler service status {row.name}`.",
            retry_after_s=_STARTING_RETRY_S,
            extra={"service_status": service["status"]},
        )
    told = f" The last one said: {why}" if why else ""
    return NoReadyReplica(
        f"None of the {row.count} replicas of service {row.name} is ready ({service['overall_status']}). See"
        f" `hostler service status {row.name}`.{told}",
        retry_after_s=_OUT_RETRY_S,
        extra={"service_status": service["status"]},
    )
