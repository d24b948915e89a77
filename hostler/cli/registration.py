"""``hostler registration``: the servers that others keep registered."""

from __future__ import annotations

from typing import Any

import click

from hostler.cli.names import registration_ids
from hostler.cli.options import Noun, Session, pass_session
from hostler.cli.paging import paged, read_pages
from hostler.cli.show import Columns, show_gone, show_list, show_one
from hostler.cli.text import age

Json = dict[str, Any]
COLUMNS: Columns = {
    "ID": "replica_id",
    "STATE": "state",
    "HEALTH": "health",
    "ENDPOINT": "endpoint",
    "CAPABILITIES": lambda row: " ".join(_words(one) for one in row.get("capabilities") or []),
    "KEY": "owner_name",
    "AGE": lambda row: age(row.get("registered_at")),
}


@click.group(cls=Noun)
def registration() -> None:
    """Look at registered servers, and take them out. To add one: hostler register."""


@registration.command("list")
@click.option("--ended", is_flag=True, default=None, help="Show those too that ended within the last day.")
@paged
@pass_session
def list_registrations(session: Session, page: Json, **filters: Any) -> None:
    """List registrations, by id."""
    body = read_pages(session.client.list_registrations, "registrations", page, **filters)
    show_list(session, body, "registrations", COLUMNS, name="replica_id")


@registration.command("get")
@click.argument("replica_id", shell_complete=registration_ids)
@pass_session
def get(session: Session, replica_id: str) -> None:
    """Show one registration, ended or not: where it leads, who holds it, how it is."""
    show_one(session, session.client.get_registration(replica_id), name="replica_id")


@registration.command("delete")
@click.argument("replica_id", shell_complete=registration_ids)
@pass_session
def delete(session: Session, replica_id: str) -> None:
    """End a registration, whoever holds it."""
    session.client.delete_registration(replica_id)
    show_gone(session, replica_id)


def _words(capability: Json) -> str:
    return ",".join(f"{name}={_value(value)}" for name, value in capability.items())


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
