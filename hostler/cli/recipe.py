"""``hostler recipe``: how kinds of inference servers are brought into service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hostler.cli import parse
from hostler.cli.names import model_names, pool_names, recipe_names
from hostler.cli.options import Noun, Session, pass_session
from hostler.cli.paging import paged, read_pages
from hostler.cli.show import Columns, show_list, show_one, show_raw, talk
from hostler.errors import BadInput

Json = dict[str, Any]
COLUMNS: Columns = {
    "NAME": "recipe",
    "ENGINE": "engine",
    "VERSION": "version",
    "STATE": "state",
    "DESCRIPTION": lambda row: "; ".join(row.get("problems") or []) or row.get("description"),
}


@click.group(cls=Noun)
def recipe() -> None:
    """List, show, check and render recipes."""


@recipe.command("list")
@click.option("--path", metavar="CATEGORY", help="Only those of this category.")
@click.option("--name", metavar="NAME", help="Only those of this short name.")
@paged
@pass_session
def list_recipes(session: Session, page: Json, **filters: str | None) -> None:
    """List recipes, the built-in ones and yours; broken files are told of."""
    body = read_pages(session.client.list_recipes, "recipes", page, **filters)
    show_list(session, body, "recipes", COLUMNS, name="recipe")
    for problem in body.get("problems") or []:
        talk(f"warning: {problem}")


@recipe.command("show")
@click.argument("name", shell_complete=recipe_names)
@pass_session
def show(session: Session, name: str) -> None:
    """Show one recipe: its parameters and what it sets."""
    show_one(session, session.client.get_recipe(name), name="recipe")


@recipe.command("render")
@click.argument("name", shell_complete=recipe_names)
@click.option("--set", "sets", metavar="K=V|JSON", multiple=True, help="Laid over it; K may be dotted (repeatable).")
@click.option("-f", "--file", "path", metavar="FILE", help="The same as a file of JSON or YAML; - is stdin.")
@click.option("--replicas", type=click.IntRange(min=1), metavar="N", help="How many.")
@click.option("--pool", metavar="POOL", shell_complete=pool_names, help="Where to run it.")
@click.option("--model-name", metavar="NAME", shell_complete=model_names, help="The model to serve.")
@pass_session
def render(session: Session, name: str, sets: tuple[str, ...], path: str | None, **more: Any) -> None:
    """Show what a service or replica of a recipe would be. Nothing is changed; secrets are masked."""
    body: Json = {key: value for key, value in more.items() if value is not None}
    config = parse.merge(parse.read_body(path), parse.settings(sets, "--set"))
    answer = session.client.render_recipe(name, {**body, **({"config": config} if config else {})})
    for warning in answer.get("warnings") or []:
        talk(f"warning: {warning}")
    show_one(session, answer, name="recipe")


@recipe.command("validate")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@pass_session
def validate(session: Session, files: tuple[str, ...]) -> None:
    """Check files on this host, without a server. Exit code 2 when one cannot be served."""
    from app.usecases.recipe_files import problems_of

    found = [{"file": file, "problems": problems_of(Path(file))} for file in files]
    broken = [str(one["file"]) for one in found if one["problems"]]
    if session.output in ("json", "yaml"):
        show_raw(session, {"valid": not broken, "files": found})
    else:
        for one in found:
            for line in one["problems"] or ["ok"]:
                click.echo(f"{one['file']}: {line}")
    if broken:
        raise BadInput(f"{len(broken)} of {len(files)} cannot be served", hint="hostler recipe schema")


@recipe.command("schema")
@pass_session
def schema(session: Session) -> None:
    """Print the JSON Schema of recipes, for editors. The server, too, has it: /api/v1/schemas/recipe.json."""
    from app.domain.recipe_schema import RECIPE

    if session.output != "yaml":
        session.output = "json"
    show_raw(session, RECIPE)
