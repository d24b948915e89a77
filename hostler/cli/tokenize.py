"""``hostler tokenize``: how a model reads a text."""

from __future__ import annotations

import click

from hostler.cli.generate import words
from hostler.cli.names import model_names
from hostler.cli.options import Session, Verb, pass_session
from hostler.cli.show import show_raw


@click.command("tokenize", cls=Verb)
@click.argument("text", metavar="TEXT")
@click.option("-m", "--model", metavar="NAME", shell_complete=model_names, help="Default: the server's default model.")
@pass_session
def tokenize(session: Session, text: str, model: str | None) -> None:
    """Cut TEXT (- is stdin) into tokens and show their ids."""
    body = session.client.tokenize(words(text), model_id=model)
    if session.output in ("json", "yaml"):
        show_raw(session, body)
    else:
        click.echo(" ".join(str(int(one)) for one in body.get("token_ids") or []))
