"""The options that every command takes, and the session they make."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hostler.connection import find_connection, find_state_dir

if TYPE_CHECKING:
    from hostler.client import Client

OUTPUTS = ("table", "json", "yaml", "name")


@dataclass
class Session:
    """What one command line is about: which server, which key, which form of output."""

    url: str | None = None
    key_file: str | None = None
    state_dir: str | None = None
    output: str = "table"
    #: caps the wait for any single answer; shell completion must not keep a typing person waiting
    timeout_s: float | None = None

    @cached_property
    def client(self) -> Client:
        """The client, connected when first used."""
        # the HTTP library costs more than the rest together; help and usage errors do not need it
        from hostler.client import Client

        connection = find_connection(self.url, key_file=self.key_file, state_dir=self.state_dir)
        return Client(connection=connection, timeout_s=self.timeout_s)

    def reconnect(self) -> None:
        """Look for the server anew: a stack was just started."""
        self.__dict__.pop("client", None)

    @property
    def folder(self) -> Path:
        """The state dir of this host's stack, whether or not it exists."""
        return Path(os.path.abspath(self.state_dir)) if self.state_dir else find_state_dir(os.environ)


pass_session = click.make_pass_decorator(Session, ensure=True)


def global_options(*, hidden: bool = False) -> list[click.Parameter]:
    """The options of ``hostler`` itself. ``hidden`` gives those of a subcommand, where only -o is worth a line."""
    return [
        _option("url", "--url", metavar="URL", hidden=hidden, help="Address of the server [env: HOSTLER_URL]."),
        _option(
            "key_file",
            "--key-file",
            metavar="FILE",
            hidden=hidden,
            help="File that holds the API key and nothing else.",
        ),
        _option(
            "state_dir",
            "--state-dir",
            metavar="DIR",
            hidden=hidden,
            help="State dir of this host's stack [env: HOSTLER_STATE_DIR].",
        ),
        _option(
            "output",
            "-o",
            "--output",
            type=click.Choice(OUTPUTS),
            help="Form of the data on stdout [default: table]. json is exactly the API's body.",
        ),
    ]


class Verb(click.Command):
    """A command that takes the global options after its name too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += global_options(hidden=True)


class Noun(click.Group):
    """A group of Verbs. A name that is none of them is answered with those there are."""

    command_class = Verb

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            names = ", ".join(self.list_commands(ctx))
            raise click.UsageError(f"{error.message} There are: {names}.", ctx) from error


def _option(name: str, *flags: str, **attributes: Any) -> click.Option:
    def keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value is not None:
            setattr(ctx.find_root().ensure_object(Session), name, value)

    return click.Option([name, *flags], expose_value=False, callback=keep, **attributes)
