"""``hostler route``: what the gateway routes where."""

from __future__ import annotations

from typing import Any

import click

from hostler.cli.options import Noun, Session, pass_session
from hostler.cli.paging import paged, read_pages
from hostler.cli.show import Columns, show_list

Json = dict[str, Any]


def _replicas(row: Json) -> str:
    return f"{row.get('replicas_up')}/{len(row.get('replicas') or [])}"


def _members(row: Json) -> str:
    return " ".join(f"{one.get('replica_id')}={one.get('state')}" for one in row.get("replicas") or [])


COLUMNS: Columns = {
    "NAME": "name",
    "KIND": "kind",
    "STATE": "state",
    "UP": _replicas,
    "IN-FLIGHT": "in_flight",
    "QUEUED": "queued",
    "REPLICAS": _members,
}


@click.group(cls=Noun)
def route() -> None:
    """Show what the gateway routes where."""


@route.command("list")
@click.option("--kind", type=click.Choice(["model", "alias", "service"]), help="Only names of this kind.")
@click.option("--name", metavar="NAME", help="Only this name.")
@click.option("--model", metavar="NAME", help="Only names that lead to this model.")
@paged
@pass_session
def list_routes(session: Session, page: Json, **filters: Any) -> None:
    """List routes: replicas that are up, requests in flight and queued. -o json tells since when and why one is out."""
    show_list(
        session, read_pages(session.client.list_routes, "routes", page, **filters), "routes", COLUMNS, name="name"
    )
