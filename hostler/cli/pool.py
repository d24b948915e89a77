"""``hostler pool``: where replicas run."""

from __future__ import annotations

from typing import Any

import click

from hostler.cli import parse
from hostler.cli.names import pool_names
from hostler.cli.options import Noun, Session, pass_session
from hostler.cli.paging import paged, read_pages
from hostler.cli.show import Columns, show_gone, show_list, show_one
from hostler.errors import BadInput

Json = dict[str, Any]
COLUMNS: Columns = {
    "NAME": "name",
    "STATE": "state",
    "BACKEND": "backend",
    "SLOTS": lambda row: f"{row.get('slots_used', '?')}/{row.get('slots')}",
    "QUEUED": "queued",
    "GPUS": "gpus",
    "LABELS": "labels",
}


@click.group(cls=Noun)
def pool() -> None:
    """List, make, change, drain and resume pools."""


@pool.command("list")
@click.option("--backend", metavar="NAME", help="Only those of this backend.")
@click.option("--state", metavar="STATE", help="Only active or draining ones.")
@paged
@pass_session
def list_pools(session: Session, page: Json, **filters: str | None) -> None:
    """List pools."""
    show_list(session, read_pages(session.client.list_pools, "pools", page, **filters), "pools", COLUMNS, name="name")


@pool.command("get")
@click.argument("name", shell_complete=pool_names)
@pass_session
def get(session: Session, name: str) -> None:
    """Show one pool."""
    show_one(session, session.client.get_pool(name), name="name")


def _described(command: Any) -> Any:
    """The options that say what a pool is, for create and update."""
    for option in (
        click.option("-f", "--file", "path", metavar="FILE", help="The request as JSON or YAML; - is stdin."),
        click.option("--default", metavar="K=V|JSON", multiple=True, help="Default of creates in it (repeatable)."),
        click.option("--label", metavar="K=V", multiple=True, help="Label (repeatable)."),
        click.option(
            "--option",
            metavar="K=V|JSON",
            multiple=True,
            help="Option of the backend (repeatable; an update replaces all of them).",
        ),
        click.option("--gpus", type=click.IntRange(min=0), help="GPUs its replicas may hold together."),
        click.option("--slots", type=click.IntRange(min=0), help="Replicas it holds at once."),
    ):
        command = option(command)
    return command


@pool.command("create")
@click.argument("name", required=False)
@click.option("--backend", metavar="NAME", help="What runs its replicas: process, ssh, slurm, docker, mock.")
@_described
@pass_session
def create(session: Session, name: str | None, path: str | None, **flags: Any) -> None:
    """Make a pool. Workers serve it within seconds."""
    body = parse.merge(parse.read_body(path), _from_flags(name=name, **flags))
    if not body.get("name") or not body.get("backend"):
        raise BadInput("a pool needs a name and a backend", hint="hostler pool create NAME --backend process --slots 4")
    show_one(session, session.client.create_pool(body), name="name")


@pool.command("update")
@click.argument("name", shell_complete=pool_names)
@_described
@pass_session
def update(session: Session, name: str, path: str | None, **flags: Any) -> None:
    """Change a pool. What runs in it goes on."""
    changes = parse.merge(parse.read_body(path), _from_flags(**flags))
    if not changes:
        raise BadInput("nothing to change was given", hint="hostler pool update --help")
    show_one(session, session.client.update_pool(name, changes), name="name")


@pool.command("delete")
@click.argument("name", shell_complete=pool_names)
@pass_session
def delete(session: Session, name: str) -> None:
    """Remove a pool that holds nothing."""
    session.client.delete_pool(name)
    show_gone(session, name)


@pool.command("drain")
@click.argument("name", shell_complete=pool_names)
@pass_session
def drain(session: Session, name: str) -> None:
    """Start nothing more in a pool; what runs goes on, what is queued waits."""
    show_one(session, session.client.drain_pool(name), name="name")


@pool.command("resume")
@click.argument("name", shell_complete=pool_names)
@pass_session
def resume(session: Session, name: str) -> None:
    """Let a drained pool start replicas again."""
    show_one(session, session.client.resume_pool(name), name="name")


def _from_flags(option: tuple[str, ...], label: tuple[str, ...], default: tuple[str, ...], **plain: Any) -> Json:
    body: Json = {
        **plain,
        "options": parse.settings(option, "--option"),
        "labels": parse.pairs(label, "--label"),
        "defaults": parse.settings(default, "--default"),
    }
    return {name: value for name, value in body.items() if value is not None and value != {}}
