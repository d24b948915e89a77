"""``hostler task``: what workers carry out."""

from __future__ import annotations

from typing import Any

import click

from hostler.cli.history import follow_events
from hostler.cli.names import pool_names, replica_ids, task_ids
from hostler.cli.options import Noun, Session, pass_session
from hostler.cli.paging import paged, read_pages
from hostler.cli.parse import Duration
from hostler.cli.show import Columns, show_list, show_one
from hostler.cli.text import age
from hostler.errors import HostlerError, ReplicaFailed

COLUMNS: Columns = {
    "ID": "id",
    "KIND": "kind",
    "STATE": "state",
    "PHASE": "phase",
    "OF": lambda row: row.get("replica_id") or row.get("service_id"),
    "REASON": "reason",
    "MESSAGE": "message",
    "AGE": lambda row: age(row.get("created_at")),
}


@click.group(cls=Noun)
def task() -> None:
    """List, follow and cancel tasks."""


@task.command("list")
@click.option("--state", metavar="STATE", help="Only those in this state.")
@click.option("--kind", metavar="KIND", help="Only create, stop, restart, health, diagnose, or service_create, ...")
@click.option("--replica", "replica_id", metavar="ID", shell_complete=replica_ids, help="Only those of this replica.")
@click.option("--service", "service_id", metavar="ID", help="Only those of this service.")
@click.option("--pool", metavar="POOL", shell_complete=pool_names, help="Only those of this pool.")
@paged
@pass_session
def list_tasks(session: Session, page: dict[str, Any], **filters: Any) -> None:
    """List tasks, the newest first."""
    show_list(session, read_pages(session.client.list_tasks, "tasks", page, **filters), "tasks", COLUMNS, name="id")


@task.command("get")
@click.argument("task_id", shell_complete=task_ids)
@pass_session
def get(session: Session, task_id: str) -> None:
    """Show one task."""
    show_one(session, session.client.get_task(task_id), name="id")


@task.command("wait")
@click.argument("task_id", shell_complete=task_ids)
@click.option("--timeout", type=Duration(), help="Give up (exit 7) after so long.")
@pass_session
def wait(session: Session, task_id: str, timeout: float | None) -> None:
    """Wait until a task has ended. Exit code 6 when it failed, 1 when it was cancelled."""
    body = session.client.wait_task(task_id, timeout_s=timeout)
    show_one(session, body, name="id")
    if body.get("state") == "succeeded":
        return
    why = body.get("message") or body.get("reason") or "no reason was given"
    if body.get("state") == "cancelled":
        raise HostlerError(f"task {task_id} was cancelled: {why}")
    replica_id = str(body.get("replica_id") or "")
    hint = (
        f"hostler replica explain {replica_id}" if replica_id else f"hostler service explain {body.get('service_id')}"
    )
    raise ReplicaFailed(f"task {task_id} failed: {why}", replica_id=replica_id, hint=hint)


@task.command("cancel")
@click.argument("task_id", shell_complete=task_ids)
@pass_session
def cancel(session: Session, task_id: str) -> None:
    """Cancel a task that has not ended."""
    show_one(session, session.client.cancel_task(task_id), name="id")


@task.command("events")
@click.argument("task_id", shell_complete=task_ids)
@pass_session
def events(session: Session, task_id: str) -> None:
    """Show what happens in a task, until it has ended."""
    from hostler.verbs import task_events_feed

    follow_events(session, task_events_feed(task_id))
