"""``hostler node``: the hosts that workers run on."""

from __future__ import annotations

from typing import Any

import click

from hostler.cli.names import node_names
from hostler.cli.options import Noun, Session, pass_session
from hostler.cli.paging import paged, read_pages
from hostler.cli.show import Columns, show_list, show_one
from hostler.cli.text import age

Json = dict[str, Any]


def _gpus(row: Json) -> object:
    gpus = row.get("gpus")
    return len(gpus) if isinstance(gpus, list) else gpus


COLUMNS: Columns = {
    "NAME": "name",
    "STATE": "state",
    "ADDRESS": "address",
    "POOLS": lambda row: ",".join(row.get("pools") or ["all"]),
    "CPUS": "cpus",
    "GPUS": _gpus,
    "HEARTBEAT": lambda row: f"{age(row.get('heartbeat_at'))} ago",
    "VERSION": "version",
}


@click.group(cls=Noun)
def node() -> None:
    """List worker hosts: heartbeat, GPUs, CPUs, memory, leases."""


@node.command("list")
@paged
@pass_session
def list_nodes(session: Session, page: Json) -> None:
    """List worker hosts."""
    show_list(session, read_pages(session.client.list_nodes, "nodes", page), "nodes", COLUMNS, name="name")


@node.command("get")
@click.argument("name", shell_complete=node_names)
@pass_session
def get(session: Session, name: str) -> None:
    """Show one host."""
    show_one(session, session.client.get_node(name), name="name")
