"""Making replicas of one revision of a service, in the transaction that found them wanting."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from app.db.repos import service_revisions
from app.db.repos import services as repo
from app.domain.routing import SERVICE_LABEL
from app.domain.services import Create
from app.domain.tasks import TaskKind
from app.errors import UnknownPool
from app.usecases import creates
from app.usecases.context import Actor, Context
from app.usecases.plans import Plan as Resolved
from app.usecases.plans import resolve
from app.usecases.service_effects import HOSTLER, Effects
from app.usecases.service_revisions import body_of
from app.usecases.service_sight import Seen


class Maker:
    """Makes replicas of one revision."""

    def __init__(
        self,
        ctx: Context,
        connection: Connection,
        seen: Seen,
        revision: int,
        who: Actor | None,
        known: Resolved | None,
    ) -> None:
        self._ctx, self._connection, self._row = ctx, connection, seen.row
        found = service_revisions.get(connection, seen.row.id, revision)
        spec = found.spec
        self._body = body_of(ctx, found)
        if spec.get("all_or_nothing") and seen.row.good_revision is None:
            self._body["gang"] = seen.row.id
        self._labels = {**seen.row.labels, SERVICE_LABEL: seen.row.id}
        self._actor = owner_of(seen, who, role=spec.get("granted_role"))
        if known is None:
            self._refresh()
        else:
            self._hold(known)

    def make(self, wanted: Create, effects: Effects) -> dict[str, Any]:
        """Write one; returns its member's row. Raises QueueFull and what the request's own check raises."""
        outcome = creates.new_ids()
        if not self._insert(outcome, wanted.why):
            # the pool changed since it was looked at, or its queue is full
            self._refresh()
            if not self._insert(outcome, wanted.why):
                raise creates.queue_full(self._ctx, self._plan.pool)
        effects.made.append(outcome.replica_id)
        effects.rings.add((TaskKind.CREATE, self._plan.pool, None))
        effects.topics |= {"events", f"replica:{outcome.replica_id}"}
        return {
            "replica_id": outcome.replica_id,
            "service_id": self._row.id,
            "revision": wanted.revision,
            "ordinal": wanted.ordinal,
            "tries": wanted.tries,
            "replaces": wanted.replaces,
        }

    def _refresh(self) -> None:
        self._ctx.pools.clear()
        self._hold(resolve(self._ctx, self._connection, self._actor, self._body))

    def _hold(self, plan: Resolved) -> None:
        self._plan = plan
        if not repo.lock_pool(self._connection, self._plan.pool):
            raise UnknownPool(f"The pool {self._plan.pool!r} was deleted. See `hostler pool list`.")

    def _insert(self, outcome: creates.CreateOutcome, why: str) -> bool:
        return creates.insert(
            self._ctx, self._connection, self._actor, self._body, self._plan, outcome, labels=self._labels, cause=why
        )


def owner_of(seen: Seen, who: Actor | None, role: str | None = None) -> Actor:
    """Replicas of a service are its owner's, whoever scales it."""
    granted = role or seen.spec.get("granted_role") or "operate"
    return Actor(seen.row.owner, who.name if who else HOSTLER, granted, None, who.request_id if who else "")
