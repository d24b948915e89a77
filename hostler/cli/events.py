"""``hostler events``: the history of everything."""

from __future__ import annotations

from typing import Any

import click

from hostler.cli.history import follow_events, show_events
from hostler.cli.names import node_names, pool_names, replica_ids, task_ids
from hostler.cli.options import Session, Verb, pass_session
from hostler.cli.paging import paged, read_pages


@click.command("events", cls=Verb)
@click.option("-f", "--follow", is_flag=True, help="Go on as they happen, over restarts of the server.")
@click.option("--replica", "replica_id", metavar="ID", shell_complete=replica_ids, help="Only those of this replica.")
@click.option("--task", "task_id", metavar="ID", shell_complete=task_ids, help="Only those of this task.")
@click.option("--kind", metavar="KIND", help="Only those of this kind.")
@click.option("--to-state", metavar="STATE", help="Only entries into this state.")
@click.option("--pool", metavar="POOL", shell_complete=pool_names, help="Only those of this pool.")
@click.option("--node", metavar="NAME", shell_complete=node_names, help="Only those of this host.")
@click.option("--actor", metavar="NAME", help="Only what this key (or hostler) did.")
@click.option("--oldest-first", is_flag=True, help="From the beginning, or on from --cursor.")
@paged
@pass_session
def events(session: Session, follow: bool, oldest_first: bool, page: dict[str, Any], **filters: str | None) -> None:
    """Show what happened, the newest first, with cause and actor."""
    if follow:
        from hostler.verbs import events_feed

        follow_events(session, events_feed(after=page.get("cursor") or _newest(session), **filters))
        return
    order = "asc" if oldest_first else None
    show_events(session, read_pages(session.client.list_events, "events", page, order=order, **filters))


def _newest(session: Session) -> str | None:
    """The last event so far: with it, a connection that breaks before the first new event misses none."""
    found = session.client.list_events(limit=1).get("events") or []
    return str(found[0]["id"]) if found else None
