"""``hostler generate``: ask a model to go on from a prompt."""

from __future__ import annotations

import sys
from typing import Any

import click

from hostler.cli.names import model_names
from hostler.cli.options import Session, Verb, pass_session
from hostler.cli.show import show_raw
from hostler.cli.text import clean_block

STRATEGIES = ("greedy", "top_k", "top_p")


def words(prompt: str) -> str:
    """What was typed, or all of stdin for ``-``."""
    return sys.stdin.read() if prompt == "-" else prompt


@click.command("generate", cls=Verb)
@click.argument("prompt", metavar="PROMPT")
@click.option("-m", "--model", metavar="NAME", shell_complete=model_names, help="Default: the server's default model.")
@click.option("--max-tokens", type=int, metavar="N", help="Most tokens to make.")
@click.option("--strategy", type=click.Choice(STRATEGIES), help="How the next token is picked.")
@click.option("--temperature", type=float, metavar="T", help="0 picks the likeliest token, as greedy.")
@click.option("--top-k", type=int, metavar="K", help="With --strategy top_k.")
@click.option("--top-p", type=float, metavar="P", help="With --strategy top_p.")
@click.option("--seed", type=int, metavar="N", help="The same seed gives the same text.")
@pass_session
def generate(session: Session, prompt: str, model: str | None, **sampling: Any) -> None:
    """Go on from PROMPT (- is stdin), shown as it is made; whole with -o json or yaml."""
    if session.output in ("json", "yaml"):
        show_raw(session, session.client.generate(words(prompt), model_id=model, **sampling))
        return
    try:
        for piece in session.client.stream_generate(words(prompt), model_id=model, **sampling):
            click.echo(clean_block(piece), nl=False)
    finally:
        # a message about what went wrong begins on a line of its own
        click.echo()
