"""``hostler gateway``: the hosts whose HAProxy is the front door."""

from __future__ import annotations

from typing import Any

import click

from hostler.cli.names import gateway_ids
from hostler.cli.options import Noun, Session, pass_session
from hostler.cli.paging import paged, read_pages
from hostler.cli.show import Columns, show_gone, show_list
from hostler.cli.text import age

Json = dict[str, Any]
COLUMNS: Columns = {
    "ID": "id",
    "STATE": "state",
    "HAPROXY": lambda row: "up" if row.get("haproxy_up") else "away",
    "NODE": "node",
    "REPLICAS": "servers",
    "HEARTBEAT": lambda row: f"{age(row.get('heartbeat_at'))} ago",
    "VERSION": "version",
}


@click.group(cls=Noun)
def gateway() -> None:
    """Look at gateways, and forget those that will not come back."""


@gateway.command("list")
@paged
@pass_session
def list_gateways(session: Session, page: Json) -> None:
    """List gateways: whether agent and HAProxy are up, and how many replicas each may be routing to."""
    show_list(session, read_pages(session.client.list_gateways, "gateways", page), "gateways", COLUMNS, name="id")


@gateway.command("forget")
@click.argument("gateway_id", shell_complete=gateway_ids)
@pass_session
def forget(session: Session, gateway_id: str) -> None:
    """Declare a gateway gone. Its HAProxy must not run any more: ports that it routes to are given to others."""
    session.client.forget_gateway(gateway_id)
    show_gone(session, gateway_id)
