"""``hostler model``: what can be served."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any

import click

from hostler.cli import parse
from hostler.cli.names import model_names
from hostler.cli.options import Noun, Session, pass_session
from hostler.cli.paging import paged, read_pages
from hostler.cli.show import Columns, show_gone, show_list, show_one, show_raw, talk
from hostler.connection import find_models_dir
from hostler.errors import BadInput, HostlerError

Json = dict[str, Any]
COLUMNS: Columns = {
    "NAME": "name",
    "ENGINE": "engine",
    "FORMAT": "format",
    "SOURCE": "source",
    "ALIASES": "aliases",
    "PROBLEM": "problem",
}
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@click.group(cls=Noun)
def model() -> None:
    """List and register models, and make a tiny one to try things with."""


@model.command("list")
@click.option("--engine", metavar="NAME", help="Only those of this engine.")
@paged
@pass_session
def list_models(session: Session, page: Json, **filters: str | None) -> None:
    """List the catalogue: registered models and the GGUF files of the models folder."""
    body = read_pages(session.client.list_models, "models", page, **filters)
    show_list(session, body, "models", COLUMNS, name="name")


@model.command("get")
@click.argument("name", shell_complete=model_names)
@pass_session
def get(session: Session, name: str) -> None:
    """Show one model."""
    show_one(session, session.client.get_model(name), name="name")


@model.command("create")
@click.argument("name", required=False)
@click.option("--engine", metavar="NAME", help="What serves it: llama-cpp, vllm, sglang or another.")
@click.option("--source", metavar="PATH|ID", help="A path on the workers' hosts, or a hub id.")
@click.option("--format", "format_", metavar="FORMAT", help="Form of its files, such as gguf.")
@click.option("--default", metavar="K=V|JSON", multiple=True, help="Default of its replicas' config (repeatable).")
@click.option("--alias", metavar="NAME", multiple=True, help="Another name for it (repeatable).")
@click.option("-f", "--file", "path", metavar="FILE", help="The request as JSON or YAML; - is stdin.")
@pass_session
def create(
    session: Session,
    name: str | None,
    engine: str | None,
    source: str | None,
    format_: str | None,
    default: tuple[str, ...],
    alias: tuple[str, ...],
    path: str | None,
) -> None:
    """Register a model."""
    flags: Json = {
        "name": name,
        "engine": engine,
        "source": source,
        "format": format_,
        "defaults": parse.settings(default, "--default"),
        "aliases": list(alias),
    }
    body = parse.merge(parse.read_body(path), {key: value for key, value in flags.items() if value})
    if not body.get("name"):
        raise BadInput("a model needs a name", hint="hostler model create NAME --engine llama-cpp --source PATH")
    show_one(session, session.client.create_model(body), name="name")


@model.command("delete")
@click.argument("name", shell_complete=model_names)
@pass_session
def delete(session: Session, name: str) -> None:
    """Take a model out of the catalogue. Its files and its replicas stay."""
    session.client.delete_model(name)
    show_gone(session, name)


@model.command("make-tiny")
@click.argument("name", default="tiny")
@click.option(
    "--models-dir", metavar="DIR", help="Where to write it [env: HOSTLER_MODELS_DIR, default: <state>/models]."
)
@pass_session
def make_tiny(session: Session, name: str, models_dir: str | None) -> None:
    """Write a tiny GGUF model with random weights on this host. It answers nonsense, quickly."""
    folder = Path(models_dir) if models_dir else find_models_dir(session.folder, os.environ)
    path = write_tiny(folder, name)
    if session.output in ("json", "yaml"):
        show_raw(session, {"name": path.stem, "path": str(path)})
    else:
        click.echo(path.stem if session.output == "name" else str(path))
    talk(f"random weights; serve it: hostler replica create --model-name {name} --wait")


def write_tiny(folder: Path, name: str) -> Path:
    """Write ``<folder>/<name>.gguf`` in one step, owned as the folder is. Returns its path."""
    from app.engines.tiny_model import write_tiny_gguf

    if not _FILE_NAME.fullmatch(name):
        raise BadInput(f"{name!r} is no name for a model file: letters, digits, '.', '_', '-'")
    target = folder / f"{name.removesuffix('.gguf')}.gguf"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        owner = folder.stat()
        with tempfile.TemporaryDirectory(dir=folder, prefix=".making-") as made:
            draft = Path(made) / "model"
            write_tiny_gguf(draft)
            draft.chmod(0o600)
            if os.geteuid() == 0:
                # the state dir may belong to the user that the stack runs as
                os.chown(draft, owner.st_uid, owner.st_gid)
            os.replace(draft, target)
    except OSError as error:
        raise HostlerError(f"cannot write {target}: {error.strerror or error}") from error
    return target
