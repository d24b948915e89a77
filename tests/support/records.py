"""What tests look at and wait for in a stack's database and on its host; says what happened when a wait was in vain."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import text

from app.settings import Settings
from app.usecases.context import Actor, Context
from tests.support.embedded import wait_until
from tests.support.marks import marked

#: The machine may be busy with other things; nothing waits longer than it must.
WAIT_S = 30.0


@dataclass
class Records:
    """Rows, folders and processes of one stack."""

    settings: Settings
    ctx: Context
    actor: Actor

    def logs(self, tail: int = 4000) -> str:
        """What the stack's processes wrote, for a failing assertion."""
        return ""

    def rows(self, query: str, **values: Any) -> list[Any]:
        with self.ctx.database.read() as connection:
            return list(connection.execute(text(query), values))

    def change(self, query: str, **values: Any) -> None:
        with self.ctx.database.begin() as connection:
            connection.execute(text(query), values)

    def replica(self, replica_id: str) -> Any:
        return self.rows("SELECT * FROM replicas WHERE id = :id", id=replica_id)[0]

    def attempt(self, replica_id: str, number: int = 1) -> Any:
        return self.rows("SELECT * FROM attempts WHERE replica_id = :id AND number = :n", id=replica_id, n=number)[0]

    def tasks(self, replica_id: str) -> list[Any]:
        return self.rows("SELECT * FROM tasks WHERE replica_id = :id ORDER BY seq", id=replica_id)

    def task(self, task_id: str | None) -> Any:
        return self.rows("SELECT * FROM tasks WHERE id = :id", id=task_id)[0]

    def events(self, replica_id: str, kind: str | None = None) -> list[Any]:
        found = self.rows("SELECT * FROM events WHERE replica_id = :id ORDER BY id", id=replica_id)
        return [row for row in found if kind in (None, row.kind)]

    def path(self, replica_id: str) -> list[str]:
        """The states it went through."""
        return [row.to_state for row in self.events(replica_id, "transition")]

    def leases(self, replica_id: str) -> dict[str, list[int]]:
        """What its attempts hold now."""
        found: dict[str, list[int]] = {}
        for row in self.rows(
            "SELECT l.kind, l.number FROM leases l JOIN attempts a ON a.id = l.attempt_id"
            " WHERE a.replica_id = :id AND l.released_at IS NULL ORDER BY l.kind, l.number",
            id=replica_id,
        ):
            found.setdefault(row.kind, []).append(row.number)
        return found

    def name(self, replica_id: str, attempt: int = 1) -> str:
        return f"hostler-{self.ctx.namespace}-{replica_id}-{attempt}"

    def attempt_folder(self, replica_id: str, attempt: int = 1) -> Path:
        return self.settings.state_dir / "attempts" / self.name(replica_id, attempt)

    def starts(self, replica_id: str, attempt: int = 1) -> int:
        """How often the mock engine of that attempt began to run."""
        path = self.attempt_folder(replica_id, attempt) / "starts"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def engines(self, replica_id: str) -> list[int]:
        """Pids of what lives under a mark of that replica."""
        prefix = f"hostler-{self.ctx.namespace}-{replica_id}-"
        return [pid for pid, mark in marked().items() if mark.startswith(prefix)]

    def await_state(self, replica_id: str, *wanted: str, timeout_s: float = WAIT_S) -> Any:
        """Its row in one of ``wanted``; says what happened instead."""

        def reached() -> Any:
            row = self.replica(replica_id)
            return row if row.state in wanted else None

        return self.await_that(reached, f"{replica_id} being {' or '.join(wanted)}", timeout_s, replica_id)

    def await_ready(self, replica_id: str, timeout_s: float = WAIT_S) -> Any:
        row = self.await_state(replica_id, "ready", "failed", "stopped", timeout_s=timeout_s)
        assert row.state == "ready", self.story(replica_id)
        return row

    def await_released(self, replica_id: str, timeout_s: float = WAIT_S) -> Any:
        """Ended, seen gone, and nothing held."""

        def released() -> Any:
            row = self.replica(replica_id)
            return row if row.released_at is not None else None

        row = self.await_that(released, f"{replica_id} being seen gone", timeout_s, replica_id)
        assert self.leases(replica_id) == {}, self.story(replica_id)
        return row

    def await_task(self, task_id: str | None, timeout_s: float = WAIT_S) -> Any:
        def ended() -> Any:
            row = self.task(task_id)
            return row if row.finished_at is not None else None

        return self.await_that(ended, f"task {task_id} having ended", timeout_s)

    def await_that(self, condition: Any, what: str, timeout_s: float = WAIT_S, replica_id: str | None = None) -> Any:
        try:
            return wait_until(condition, timeout_s, what)
        except AssertionError as error:
            story = self.story(replica_id) if replica_id else ""
            raise AssertionError(f"{error}\n{story}\n{self.database_at_work()}\n{self.logs()}") from None

    def database_at_work(self) -> str:
        """Who holds or waits for what, for a failing assertion."""
        busy = self.rows(
            "SELECT application_name, pid, state, wait_event, pg_blocking_pids(pid) AS blocked_by, now() - xact_start,"
            " left(query, 300) FROM pg_stat_activity"
            " WHERE datname = current_database() AND state <> 'idle' AND pid <> pg_backend_pid()"
        )
        return "\n".join(["== database", *(str(tuple(row)) for row in busy)])

    def story(self, replica_id: str) -> str:
        """Everything that is known of it, for a failing assertion."""
        row = self.replica(replica_id)
        lines = [f"replica {replica_id}: {row.state} {row.reason} {row.message!r} released={row.released_at}"]
        lines += [
            f"  {event.at:%S.%f} {event.kind} {event.from_state}->{event.to_state} {event.cause} {event.message!r}"
            for event in self.events(replica_id)
        ]
        lines += [
            f"  task {task.kind} {task.state}/{task.phase} claims={task.claims} by={task.claimed_by} {task.message!r}"
            for task in self.tasks(replica_id)
        ]
        return "\n".join(lines)
