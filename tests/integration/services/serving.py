"""What these tests do with services, and what they look at on the host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.usecases import services
from app.usecases.services import ServiceOutcome
from tests.support.crew import Crew
from tests.support.services import Hands

#: What fails is tried again at once.
RESTART = {"tries": 3, "backoff_s": 0.1, "backoff_max_s": 0.2}
WAIT_S = 60.0


@dataclass
class Serving:
    """A crew, and services on it."""

    crew: Crew

    def create(self, recipe: str = "inference/mock", **body: Any) -> ServiceOutcome:
        body = {"recipe_name": recipe, "restart": RESTART, **body}
        return services.create(self.crew.ctx, self.crew.actor, body)

    def get(self, service: str) -> dict[str, Any]:
        return services.get(self.crew.ctx, service)

    def members(self, service: str, *states: str) -> list[Any]:
        """Rows of replicas with ordinal, revision and replaces, oldest first."""
        return Hands(self.crew.ctx).replicas(service, *states)

    def ids(self, service: str, *states: str) -> list[str]:
        return [row.id for row in self.members(service, *states)]

    def await_task(self, outcome: ServiceOutcome, state: str = "succeeded") -> Any:
        task = self.crew.await_task(outcome.task_id, WAIT_S)
        assert task.state == state, f"{task.state} {task.reason} {task.message}\n{self.told(outcome.service_id)}"
        return task

    def await_settled(self, service: str, count: int) -> list[str]:
        """So many are ready and nothing else lives; their ids."""

        def settled() -> list[str] | None:
            alive = [row for row in self.members(service) if row.state not in ("stopped", "failed")]
            return (
                self.ids(service, "ready") if len(alive) == count and all(r.state == "ready" for r in alive) else None
            )

        return list(self.crew.await_that(settled, f"{count} ready\n{self.told(service)}", WAIT_S) or [])

    def end(self, *ids: str) -> None:
        """Cancel them and wait until nothing is left."""
        for service in ids:
            services.cancel(self.crew.ctx, self.crew.actor, service)
        for service in ids:
            self.crew.await_that(
                lambda service=service: self.get(service)["ended_at"], f"the end\n{self.told(service)}", WAIT_S
            )

    def told(self, service: str) -> str:
        rows = self.crew.rows(
            "SELECT kind, replica_id, to_state, cause, reason, message FROM events WHERE data->>'service_id' = :id"
            " OR replica_id IN (SELECT replica_id FROM service_members WHERE service_id = :id) ORDER BY xid, id",
            id=service,
        )
        return "\n".join(str(tuple(row)) for row in rows)

    def environ(self, replica: str) -> dict[str, str]:
        """What the engine of a replica sees, by the host's own word."""
        (pid,) = self.crew.engines(replica)
        lines = Path(f"/proc/{pid}/environ").read_text().split("\0")
        return dict(line.split("=", 1) for line in lines if line)

    def devices(self, service: str) -> dict[str, list[str]]:
        """replica -> GPUs that its process sees."""
        ready = self.ids(service, "ready")
        return {one: [part for part in self.environ(one)["CUDA_VISIBLE_DEVICES"].split(",") if part] for one in ready}
