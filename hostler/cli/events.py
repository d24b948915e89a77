"""``hostler events``: the history of everything."""

from __future__ import annotations

from typing import Any

import click

from hostler.cli.history import follow_events, show_events
from hostler.cli.names import pool_names, replica_ids
from hostler.cli.options import Session, Verb, pass_session
from hostler.cli.paging import paged, read_pages


@click.command("events", cls=Verb)
@click.option("-f", "--follow", is_flag=True, help="Go on as they happen, over restarts of the server.")
@click.option("--replica", "replica_id", metavar="ID", shell_complete=replica_ids, help="Only those of this replica.")
@click.option("--kind", metavar="KIND", help="Only those of this kind.")
@click.option("--pool", metavar="POOL", shell_complete=pool_names, help="Only those of this pool.")
@paged
@pass_session
def events(session: Session, follow: bool, page: dict[str, Any], **filters: str | None) -> None:
    """Show what happened, oldest first, with cause and actor."""
    if follow:
        from hostler.verbs import events_feed

        follow_events(session, events_feed(after=page.get("cursor"), **filters))
        return
    show_events(session, read_pages(session.client.list_events, "events", page, **filters))
