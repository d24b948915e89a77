"""``hostler pool``: where replicas run."""

from __future__ import annotations

from typing import Any

import click

from hostler.cli import parse
from hostler.cli.names import pool_names
from hostler.cli.options import Noun, Session, pass_session
from hostler.cli.paging import paged, read_pages
from hostler.cli.show import Columns, show_gone, show_list, show_one
from hostler.cli.text import age
from hostler.errors import BadInput

Json = dict[str, Any]


def _answers(row: Json) -> str:
    """Whether its place answers the hosts that serve it: ``yes``, ``no, 5m``, ``1/2``, ``-`` when nobody asked."""
    places = row.get("places") or []
    away = [place for place in places if not place.get("answers")]
    if not away:
        return "yes" if places else "-"
    if len(away) < len(places):
        return f"{len(places) - len(away)}/{len(places)}"
    return f"no, {age(min(str(place.get('since')) for place in away))}"


COLUMNS: Columns = {
    "NAME": "name",
    "STATE": "state",
    "BACKEND": "backend",
    "SLOTS": lambda row: f"{row.get('slots_used', '?')}/{row.get('slots')}",
    "QUEUED": "queued",
    "GPUS": "gpus",
    "ANSWERS": _answers,
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


def _described(changes: bool) -> Any:
    """The options that say what a pool is; or, of an existing one, what is to change."""
    several = "; NAME- removes one (repeatable)." if changes else " (repeatable)."
    file = "The request as JSON or YAML; - is stdin." + (" What it names is replaced whole." if changes else "")
    options = (
        click.option("-f", "--file", "path", metavar="FILE", help=file),
        click.option("--default", metavar="K=V|JSON", multiple=True, help=f"Default of creates in it{several}"),
        click.option("--label", metavar="K=V", multiple=True, help=f"Label{several}"),
        click.option("--option", metavar="K=V|JSON", multiple=True, help=f"Option of the backend{several}"),
        click.option("--gpus", type=click.IntRange(min=0), help="GPUs its replicas may hold together."),
        click.option("--slots", type=click.IntRange(min=0), help="Replicas it holds at once."),
    )

    def describe(command: Any) -> Any:
        for option in options:
            command = option(command)
        return command

    return describe


@pool.command("create")
@click.argument("name", required=False)
@click.option("--backend", metavar="NAME", help="What runs its replicas: process, ssh, slurm, docker, mock.")
@_described(changes=False)
@pass_session
def create(session: Session, name: str | None, path: str | None, **flags: Any) -> None:
    """Make a pool. Workers serve it within seconds."""
    body = parse.merge(parse.read_body(path), _from_flags(name=name, **flags))
    if not body.get("name") or not body.get("backend"):
        raise BadInput("a pool needs a name and a backend", hint="hostler pool create NAME --backend process --slots 4")
    show_one(session, session.client.create_pool(body), name="name")


@pool.command("update")
@click.argument("name", shell_complete=pool_names)
@_described(changes=True)
@pass_session
def update(session: Session, name: str, path: str | None, **flags: Any) -> None:
    """Change a pool: what is named, and nothing else. What runs in it goes on.

    For example --option qos=high --option ssh.host=login2 --option account- sets two options and removes one.
    """
    body, changes = parse.read_body(path), _changes(**flags)
    twice = sorted(body.keys() & changes.get("merge", {}).keys())
    if twice:
        told = f"{'stdin' if path == '-' else path} replaces {', '.join(twice)} whole"
        raise BadInput(told, hint="name them there or by flags, not both")
    changes = parse.merge(body, changes)
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


def _changes(option: tuple[str, ...], label: tuple[str, ...], default: tuple[str, ...], **plain: Any) -> Json:
    parts = {
        "options": parse.changes(option, "--option", parse.settings),
        "labels": parse.changes(label, "--label", parse.pairs),
        "defaults": parse.changes(default, "--default", parse.settings),
    }
    body: Json = {**plain, "merge": {name: value for name, value in parts.items() if value}}
    return {name: value for name, value in body.items() if value is not None and value != {}}
