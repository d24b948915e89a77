"""``hostler register``: keep a server in the capability registry for as long as this command runs."""

from __future__ import annotations

import signal
import sys
from typing import Any

import click

from hostler.cli import parse
from hostler.cli.options import Session, Verb, pass_session
from hostler.cli.progress import Progress
from hostler.cli.show import show_raw, talk
from hostler.cli.text import clean, fine


@click.command("register", cls=Verb)
@click.option("--endpoint", metavar="HOST:PORT", required=True, help="Where the server listens.")
@click.option(
    "--capability",
    "capabilities",
    metavar="K=V[,K=V...]|JSON",
    multiple=True,
    required=True,
    help="What it can do (repeatable): model=qwen2, or model=llama,type=chat. Bare 2 and true are a number and a"
    ' boolean, "2" in quotes is text.',
)
@click.option("--replica-id", metavar="ID", help="Its name in the registry [default: a new one].")
@pass_session
def register(session: Session, endpoint: str, capabilities: tuple[str, ...], replica_id: str | None) -> None:
    """Register a server, and keep it registered until Ctrl-C or SIGTERM.

    Its registration ends with this command, at once. Over restarts of Hostler and broken networks it comes back by
    itself. Prints the id once it is registered. Needs a key of role register.
    """
    from hostler.verbs import registration_feed

    abilities = [parse.capability(text, "--capability") for text in capabilities]
    client = session.client
    _interrupt_on_signals()
    try:
        with Progress(f"{clean(endpoint)}") as progress:

            def on_break(cause: str, delay_s: float) -> None:
                progress.step(f"not registered: {cause}; next try in {fine(delay_s)}", None)

            feed = registration_feed(endpoint, abilities, replica_id=replica_id, on_break=on_break)
            printed = False
            for item in client.follow(feed):
                progress.step(f"registered as {feed.replica_id}", None)
                if not printed:
                    printed = True
                    _print(session, item.json(), feed.replica_id)
    except KeyboardInterrupt:
        # the end that was asked for: nothing more may cut it short
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        client.close()
        talk(f"{clean(endpoint)}: the registration has ended with this command")


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _interrupt_on_signals() -> None:
    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    for number in _SIGNALS:
        # under nohup it is to outlive its terminal
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, interrupt)


def _print(session: Session, body: dict[str, Any], replica_id: str) -> None:
    if session.output in ("json", "yaml"):
        show_raw(session, body)
    elif not (sys.stdout.isatty() and sys.stderr.isatty()):
        # who looks at a terminal has just read it there
        click.echo(replica_id)
