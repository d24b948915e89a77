"""The command line. Each command is loaded when it is named, so that ``hostler --help`` answers at once."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from hostler import __version__
from hostler.cli.failure import Failure, Interrupted
from hostler.cli.options import Session, global_options
from hostler.errors import EXIT_CODES, BadInput, HostlerError

STACK_COMMANDS = ("up", "worker", "down", "status", "doctor", "gc")
#: Section of the help, and in it each command with the module that holds it.
SECTIONS: dict[str, dict[str, str]] = {
    "This host's stack": {**dict.fromkeys(STACK_COMMANDS, "hostler.cli.stack"), "demo": "hostler.cli.demo"},
    "What runs": {
        "service": "hostler.cli.service",
        "apply": "hostler.cli.apply",
        "export": "hostler.cli.apply",
        "replica": "hostler.cli.replica",
        "task": "hostler.cli.task",
        "events": "hostler.cli.events",
        "health": "hostler.cli.health",
    },
    "Ask a model": {
        "generate": "hostler.cli.generate",
        "tokenize": "hostler.cli.tokenize",
    },
    "What there is": {
        "pool": "hostler.cli.pool",
        "model": "hostler.cli.model",
        "recipe": "hostler.cli.recipe",
        "node": "hostler.cli.node",
        "route": "hostler.cli.route",
        "gateway": "hostler.cli.gateway",
        "key": "hostler.cli.key",
    },
    "Servers of others": {
        "register": "hostler.cli.register",
        "registration": "hostler.cli.registration",
    },
    "The shell": {"completion": "hostler.cli.completion"},
}
_MODULES = {name: module for section in SECTIONS.values() for name, module in section.items()}


class Root(click.Group):
    """The commands of SECTIONS, loaded lazily; turns Hostler's errors into messages and exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _MODULES:
            return None
        try:
            module = importlib.import_module(_MODULES[cmd_name])
        except ModuleNotFoundError as error:
            if error.name != _MODULES[cmd_name]:
                raise
            # installed as a client alone, without what runs a stack
            return None
        if cmd_name in STACK_COMMANDS:
            return next((command for command in module.commands if command.name == cmd_name), None)
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(len(name) for name in _MODULES)
        for title, modules in SECTIONS.items():
            found = [(name, self.get_command(ctx, name)) for name in modules]
            rows = [(name.ljust(width), command.get_short_help_str(90)) for name, command in found if command]
            with formatter.section(title):
                formatter.write_dl(rows)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        # help is written in here
        with _told():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> object:
        with _told():
            return super().invoke(ctx)


@contextmanager
def _told() -> Iterator[None]:
    """What goes wrong leaves as a message with its exit code."""
    try:
        yield
    except HostlerError as error:
        raise Failure(error) from error
    except UnicodeEncodeError as error:
        # bytes of the command line that are no text arrive as halves of characters
        raise Failure(BadInput(f"{error.object!r} holds bytes that are no text; use UTF-8")) from error
    except OSError as error:
        if error.filename is not None or error.errno == errno.EPIPE:
            # click ends quietly when the reader of a pipe has gone
            raise
        # what is left of it would be tried once more at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise Failure(HostlerError(f"cannot write the output: {error.strerror}")) from error
    except KeyboardInterrupt as error:
        raise Interrupted from error


def _epilog() -> str:
    codes = "\n".join(f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES.items())
    return f"\b\nExit codes:\n{codes}\n\nData goes to stdout, talk to stderr. Every command: docs/cli.md"


@click.group(
    cls=Root,
    params=global_options(),
    epilog=_epilog(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="hostler", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Bring inference servers into service, keep them healthy, and put them away again.

    The server is found through --url or HOSTLER_URL, else through the state dir of this host's stack. The key is
    read from HOSTLER_API_KEY, --key-file or that state dir; never from the command line, which others can see.
    """
    session = ctx.ensure_object(Session)
    # the stack's commands take these themselves; what was given before the command's name holds for them too
    given = {"state_dir": session.state_dir, "output": session.output}
    defaults = {name: value for name, value in given.items() if value is not None}
    ctx.default_map = dict.fromkeys(STACK_COMMANDS, defaults)


def main() -> None:
    """The console script."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        # started with it closed, as some daemons do: nobody reads or writes there
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    cli(prog_name="hostler")
