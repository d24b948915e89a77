"""What all requests about services share: found and locked, done in one transaction, told after it, and asked once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from app.db.repos import models as catalogue
from app.db.repos import service_revisions, service_tasks
from app.domain.lifecycle import Reason
from app.domain.tasks import Phase, TaskKind, TaskState
from app.errors import Conflict, InvalidConfig, ModelForbidden
from app.usecases import idempotency as remembered
from app.usecases import reconciling, service_refs
from app.usecases.context import Actor, Context, Idempotency
from app.usecases.served import visible_names
from app.usecases.service_effects import Effects, finish
from app.usecases.service_revisions import Wanted

#: Most replicas of one service.
MOST_REPLICAS = 10_000


@dataclass(frozen=True)
class ServiceOutcome:
    """What a request came to.

    ``task_id`` is the task to wait for; None when nothing is to be waited for (``already``, pause). ``already``: it was
    so before. ``replayed``: an Idempotency-Key asked for it before. ``replicas``: how many were made or asked to end.
    """

    service_id: str
    task_id: str | None
    already: bool = False
    replayed: bool = False
    warnings: tuple[str, ...] = ()
    replicas: int = 0


def changed(ctx: Context, act: Callable[[Connection], tuple[ServiceOutcome, Effects]]) -> ServiceOutcome:
    """Carry out a change in a transaction of its own, begun anew when another got in its way, and tell of it."""
    outcome, effects = ctx.database.change(act)
    effects.topics |= {"services"} if not outcome.replayed else set()
    effects.tell(ctx)
    return outcome


def reconciled(
    ctx: Context,
    connection: Connection,
    actor: Actor,
    service_id: str,
    task_id: str | None,
    idempotency: Idempotency | None,
    effects: Effects,
    loads: Mapping[str, int],
) -> tuple[ServiceOutcome, Effects]:
    """The end of a change: its first steps are taken, and what the Idempotency-Key asked for is remembered."""
    effects.add(reconciling.reconcile(ctx, connection, service_id, who=actor, loads=loads))
    remember(connection, actor, idempotency, service_id, task_id)
    return ServiceOutcome(service_id, task_id, replicas=len(effects.made) + len(effects.stopped)), effects


def lock_running(connection: Connection, actor: Actor, ref: str, verb: str) -> Any:
    """The row of a service that was not cancelled, locked until the transaction ends; ``verb`` is what is asked of it.
    Raises NotFound, ModelForbidden, Conflict."""
    row = service_refs.lock(connection, ref)
    check_models(connection, actor, row, row.revision, row.good_revision)
    return _running(row, verb)


def find_running(connection: Connection, actor: Actor, ref: str, verb: str) -> Any:
    """The row of a service that is not cancelled. Raises NotFound, ModelForbidden, Conflict."""
    row = service_refs.read(connection, ref)
    check_models(connection, actor, row, row.revision, row.good_revision)
    return _running(row, verb)


def check_models(connection: Connection, actor: Actor, row: Any, *revisions: int | None) -> None:
    """That the key may have the model of each of these revisions run. Raises ModelForbidden."""
    if actor.models is None:
        return
    numbers = [(row.id, number) for number in revisions if number is not None]
    for spec in service_revisions.specs(connection, numbers).values():
        name = spec["replica"].get("model_name") or ""
        found = catalogue.find(connection, name)
        own, others = (found.name, found.aliases) if found is not None else (name, ())
        if not visible_names(actor, own, [name, *others]):
            raise ModelForbidden(
                f"Your key is not allowed the model of service {row.name}. `GET /models` lists what it is allowed.",
                errors={"service_id": ["Runs a model that is not allowed with this key."]},
            )


def _running(row: Any, verb: str) -> Any:
    if row.desired_state != "running":
        raise Conflict(
            f"Service {row.id} ({row.name}) was cancelled; it cannot be {verb}. Make a new one:"
            f" `hostler service create {row.recipe}`."
        )
    return row


def write_revision(
    ctx: Context, connection: Connection, actor: Actor, service_id: str, number: int, wanted: Wanted, cause: str
) -> None:
    """Add a revision; what of it is secret is encrypted."""
    sealed = ctx.seal(wanted.secret)
    service_revisions.insert(connection, service_id, number, wanted.spec, sealed, actor=actor.name, cause=cause)


def begin_task(
    connection: Connection,
    actor: Actor,
    row: Any,
    kind: TaskKind,
    task_id: str,
    *,
    phase: Phase = Phase.LAUNCHING,
    from_: int | None = None,
    **arguments: Any,
) -> None:
    """Write the task that is waited for; ``from_`` is what is wanted again when it is cancelled."""
    before = {} if from_ is None else {"from": from_}
    service_tasks.insert(
        connection,
        task_id=task_id,
        kind=kind,
        phase=phase,
        pool=row.pool,
        owner=actor.key_id,
        request_id=actor.request_id,
        arguments={"service_id": row.id, **arguments, **before},
    )


def supersede(
    connection: Connection, row: Any, kinds: tuple[TaskKind, ...], message: str, actor: Actor, effects: Effects
) -> None:
    """End open tasks of these kinds: a newer wish took their place."""
    overtaken = [task for task in service_tasks.open_of(connection, [row.id]) if task.kind in kinds]
    finish(
        connection, overtaken, TaskState.CANCELLED, effects, reason=Reason.CANCELLED,
        message=f"superseded: {message}", actor=actor.name,
    )  # fmt: skip


def forgiven(rollout: Mapping[str, Any]) -> dict[str, Any]:
    """A new wish begins with a new budget."""
    return {name: value for name, value in rollout.items() if name not in ("given_up", "refused")}


def checked_count(count: int) -> int:
    """The count, if a service may have so many. Raises InvalidConfig."""
    if not 0 <= count <= MOST_REPLICAS:
        raise InvalidConfig(
            f"replicas: must be between 0 and {MOST_REPLICAS}.",
            errors={"replicas": [f"Must be between 0 and {MOST_REPLICAS}."]},
        )
    return count


def with_warnings(outcome: ServiceOutcome, warnings: tuple[str, ...]) -> ServiceOutcome:
    """The outcome with what the recipe said about wishes that are not granted."""
    return ServiceOutcome(
        outcome.service_id, outcome.task_id, outcome.already, outcome.replayed, warnings, outcome.replicas
    )


def before_of(connection: Connection, actor: Actor, idempotency: Idempotency | None) -> ServiceOutcome | None:
    """What the same request came to before, in its transaction; None when it is new. Raises InFlight, KeyReused."""
    found = remembered.claim(connection, actor, idempotency)
    if found is None:
        return None
    task_id = found.get("task_id")
    # without a task nothing was to be waited for, then as now
    return ServiceOutcome(found["service_id"], task_id, already=task_id is None, replayed=True)


def replayed_of(ctx: Context, actor: Actor, idempotency: Idempotency | None) -> ServiceOutcome | None:
    """What the same request did before: that counts more than why it would be refused now."""
    if idempotency is None:
        return None
    with ctx.database.begin() as connection:
        return before_of(connection, actor, idempotency)


def remember(
    connection: Connection, actor: Actor, idempotency: Idempotency | None, service_id: str, task_id: str | None
) -> None:
    """Keep what the Idempotency-Key asked for, in its transaction."""
    remembered.remember(connection, actor, idempotency, {"service_id": service_id, "task_id": task_id})
