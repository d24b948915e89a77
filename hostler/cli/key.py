"""``hostler key``: who may do what."""

from __future__ import annotations

from typing import Any

import click

from hostler.cli import parse
from hostler.cli.names import key_ids, model_names
from hostler.cli.options import Noun, Session, pass_session
from hostler.cli.paging import paged, read_pages
from hostler.cli.show import Columns, show_gone, show_list, show_one, talk
from hostler.cli.text import age
from hostler.errors import BadInput

Json = dict[str, Any]
ROLES = ("read", "infer", "register", "operate", "admin")
COLUMNS: Columns = {
    "ID": "id",
    "NAME": "name",
    "ROLE": "role",
    "PREFIX": "prefix",
    "MODELS": "models",
    "EXPIRES": "expires_at",
    "USED": lambda row: f"{age(row['last_used_at'])} ago" if row.get("last_used_at") else "",
    "AGE": lambda row: age(row.get("created_at")),
}


@click.group(cls=Noun)
def key() -> None:
    """List, make and revoke API keys."""


@key.command("list")
@click.option("--role", type=click.Choice(ROLES), help="Only those of this role.")
@click.option("--revoked", is_flag=True, default=None, help="Show revoked ones too.")
@paged
@pass_session
def list_keys(session: Session, page: Json, **filters: Any) -> None:
    """List keys. Their text is stored nowhere."""
    show_list(session, read_pages(session.client.list_keys, "keys", page, **filters), "keys", COLUMNS, name="id")


@key.command("get")
@click.argument("key_id", shell_complete=key_ids)
@pass_session
def get(session: Session, key_id: str) -> None:
    """Show one key, without its text."""
    show_one(session, session.client.get_key(key_id), name="id")


@key.command("create")
@click.argument("name", required=False)
@click.option("--role", type=click.Choice(ROLES), help="What it may do.")
@click.option(
    "--model", metavar="NAME", multiple=True, shell_complete=model_names, help="Only this model (repeatable)."
)
@click.option("--expires-at", metavar="TIME", help="When it ends, as 2027-01-31T12:00:00Z.")
@click.option("--limit", metavar="K=V|JSON", multiple=True, help="A limit (repeatable).")
@click.option(
    "--backend-option",
    metavar="BACKEND.K=V|JSON",
    multiple=True,
    help="An option that its launches carry, as slurm.account=team-a (repeatable).",
)
@click.option("-f", "--file", "path", metavar="FILE", help="The request as JSON or YAML; - is stdin.")
@pass_session
def create(
    session: Session,
    name: str | None,
    role: str | None,
    model: tuple[str, ...],
    expires_at: str | None,
    limit: tuple[str, ...],
    backend_option: tuple[str, ...],
    path: str | None,
) -> None:
    """Make a key. It is shown this once."""
    flags: Json = {
        "name": name,
        "role": role,
        "models": list(model),
        "expires_at": expires_at,
        "limits": parse.settings(limit, "--limit"),
        "backend_options": parse.settings(backend_option, "--backend-option"),
    }
    body = parse.merge(parse.read_body(path), {field: value for field, value in flags.items() if value})
    if not body.get("name") or not body.get("role"):
        raise BadInput("a key needs a name and a role", hint="hostler key create NAME --role operate")
    made = session.client.create_key(body)
    show_one(session, made, name="id")
    if made.get("key"):
        talk("keep the key now: it is not shown again")
    else:
        # the answer with the key was lost on the way, and the request asked again
        talk(f"the key's text was lost on the way: hostler key delete {made.get('id')}, then make another")


@key.command("delete")
@click.argument("key_id", shell_complete=key_ids)
@pass_session
def delete(session: Session, key_id: str) -> None:
    """Revoke a key at once."""
    session.client.delete_key(key_id)
    show_gone(session, key_id)
