"""Services of the mock mode without a recipe file, and replicas whose rows a test moves, as workers would."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from app.db.repos import replicas, tasks
from app.db.repos.replicas import Move
from app.domain.lifecycle import LAUNCHING, Reason, State
from app.domain.tasks import LIFECYCLE_KINDS, TaskState
from app.usecases import ends, reconciling
from app.usecases.context import Actor, Context, Idempotency
from app.usecases.ends import End
from app.usecases.rendering import Rendered
from app.usecases.service_creates import create_wanted
from app.usecases.service_revisions import Wanted, wanted_of
from app.usecases.service_updates import update_wanted
from app.usecases.services import ServiceOutcome

#: Nothing waits in a test that moves the clock itself.
QUICK_RESTART = {"tries": 3, "backoff_s": 10.0, "backoff_max_s": 40.0, "stable_s": 60.0}


def wanted(
    actor: Actor,
    count: int = 2,
    *,
    pool: str = "mock",
    body: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    all_or_nothing: bool = False,
    restart: Mapping[str, Any] | None = None,
    update: Mapping[str, Any] | None = None,
) -> Wanted:
    """A revision as a recipe would come to, whose replicas are mock ones."""
    replica = {
        "server_mode": "replica_mock", "model_name": "m", "pool": pool, "run_diagnostics": False, **(body or {})
    }  # fmt: skip
    rendered = Rendered(
        recipe="test/mock",
        version="1",
        body=replica,
        count=count,
        all_or_nothing=all_or_nothing,
        update=dict(update or {}),
        restart=dict(restart or QUICK_RESTART),
        successor_lead_s=None,
        asked=dict(config or {}),
        warnings=[],
    )
    return wanted_of(actor, rendered, config or {}, {})


def create(
    ctx: Context,
    actor: Actor,
    count: int = 2,
    *,
    name: str | None = None,
    idempotency: Idempotency | None = None,
    labels: Mapping[str, str] | None = None,
    **more: Any,
) -> ServiceOutcome:
    """A service of mock replicas, by the same way as every other."""
    body = {"name": name, "labels": labels}
    return create_wanted(ctx, actor, wanted(actor, count, **more), body, idempotency)


def change(ctx: Context, actor: Actor, ref: str, **more: Any) -> ServiceOutcome:
    """Another revision of it, by the same way as every other."""
    return update_wanted(ctx, actor, ref, wanted(actor, **more))


@dataclass
class Hands:
    """Does by hand what workers and agents do to replicas, each step as their use cases write it."""

    ctx: Context

    def replicas(self, service_id: str, *states: str) -> list[Any]:
        """Rows of the service's replicas with ordinal and revision, oldest first."""
        query = text(
            "SELECT r.*, m.ordinal, m.revision, m.tries, m.replaces FROM service_members m"
            " JOIN replicas r ON r.id = m.replica_id WHERE m.service_id = :id ORDER BY m.created_at, m.ordinal, r.id"
        )
        with self.ctx.database.read() as connection:
            rows = list(connection.execute(query, {"id": service_id}))
        return [row for row in rows if not states or row.state in states]

    def live(self, service_id: str) -> list[Any]:
        """Those that run, or are on their way, and shall."""
        return [
            row for row in self.replicas(service_id)
            if row.desired_state == "running" and row.state not in ("stopped", "failed")
        ]  # fmt: skip

    def make_ready(self, *replica_ids: str) -> None:
        """From wherever a launch is to ready; its task succeeds."""
        for replica_id in replica_ids:
            with self.ctx.database.begin() as connection:
                open_tasks = tasks.open_of(connection, replica_id, LIFECYCLE_KINDS)
                row = replicas.lock(connection, replica_id)
                assert row is not None
                order = (*LAUNCHING, State.READY)
                path = order[order.index(State(row.state)) :]
                move = Move(row.id, row.attempt, path, cause="answers its readiness probe")
                assert replicas.record_moves(connection, [move]) == {replica_id}
                tasks.finish(connection, [task.id for task in open_tasks], TaskState.SUCCEEDED)

    def fail(self, replica_id: str, reason: Reason = Reason.PROCESS_EXITED, *, gone: bool = True) -> None:
        """It ended by itself; ``gone``: and was seen gone."""
        row = self._read(replica_id)
        end = End(reason, "as the test wants", gone=gone)
        assert ends.record_failed(self.ctx, replica_id, row.attempt, State(row.state), end)

    def see_gone(self, *replica_ids: str) -> None:
        """Nothing is left of what was asked to stop, or failed."""
        for replica_id in replica_ids:
            ends.record_gone(self.ctx, replica_id, self._read(replica_id).attempt)

    def settle(self, service_id: str, rounds: int = 20) -> None:
        """Let launches get ready and stops end until nothing more follows."""
        for _ in range(rounds):
            reconciling.sweep(self.ctx)
            launching = [row.id for row in self.replicas(service_id, *LAUNCHING)]
            stopping = [row.id for row in self.replicas(service_id, "stopping")]
            # what ended at once left a hint
            if not launching and not stopping and not reconciling.sweep(self.ctx):
                return
            self.make_ready(*launching)
            self.see_gone(*stopping)
        raise AssertionError(f"service {service_id} does not come to rest")

    def pass_time(self, seconds: float) -> None:
        """Move the database's clock."""
        with self.ctx.database.begin() as connection:
            connection.execute(
                text("UPDATE clock SET shift = shift + make_interval(secs => :seconds)"), {"seconds": seconds}
            )

    def _read(self, replica_id: str) -> Any:
        with self.ctx.database.read() as connection:
            row = replicas.read(connection, replica_id)
        assert row is not None
        return row
