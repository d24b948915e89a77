"""``python -m hostler.cli.reference > docs/cli.md``: every command and flag, from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator

import click

from hostler.cli import SECTIONS, cli
from hostler.errors import EXIT_CODES

HEAD = """# The command line

Made by `python -m hostler.cli.reference` from the commands themselves; a test fails when a command or flag is missing.

`hostler` speaks HTTP only (`up`, `down`, `status`, `doctor`, `gc`, `model make-tiny`, `recipe validate` and `recipe
schema` act on this host). Data goes to stdout, everything said to a person to stderr. Shell completion, with ids from
the server: `hostler completion bash`.

**Which server**: `--url`, else `HOSTLER_URL`, else the stack of the state dir (`--state-dir`, else `HOSTLER_STATE_DIR`,
else `$XDG_STATE_HOME/hostler`, else `~/.local/state/hostler`), else port `HOSTLER_PORT` (8080) of this host.
A given `--state-dir` goes before the environment.

**Which key**: `--key-file`, else `HOSTLER_API_KEY`, else the admin key of the state dir, which is sent to no other
address than that of its own stack. Never an argument: others can read a process's arguments.

**Forms of output**: `-o table` (for people; text from servers is cleaned of terminal control characters), `-o json`
(exactly the API's body), `-o yaml` (the same as YAML), `-o name` (an id per line, for scripts). The global options are
taken before and after the command's name.

**Durations**: `90`, `90s`, `5m`, `1h30m`, `2d`. **`K=V|JSON`**: `n_ctx=512`, `mock.delay_s=0.5` (nested), or a whole
object such as `'{"n_ctx": 512}'`; values are JSON where they parse, else text.

**Repeating**: every change carries an `Idempotency-Key`, so a request whose answer was lost is sent again without doing
anything twice. Waiting and following ride out a server that is being restarted.
"""


def markdown() -> str:
    """The whole page."""
    context = click.Context(cli, info_name="hostler")
    lines = [HEAD, "## Exit codes", "", "| code | means |", "| --- | --- |"]
    lines += [f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    lines += ["", "## Global options", "", *_options(cli, context)]
    for title, modules in SECTIONS.items():
        lines += ["", f"## {title}"]
        for name in modules:
            command = cli.get_command(context, name)
            if command is not None:
                lines += _described(command, context, name)
    return "\n".join(lines) + "\n"


def commands(
    command: click.Command, context: click.Context, name: str
) -> Iterator[tuple[str, click.Command, click.Context]]:
    """``command`` and everything below it, with full names."""
    inner = click.Context(command, info_name=name, parent=context)
    yield inner.command_path, command, inner
    if isinstance(command, click.Group):
        for below in command.list_commands(inner):
            found = command.get_command(inner, below)
            if found is not None:
                yield from commands(found, inner, below)


def _described(command: click.Command, context: click.Context, name: str) -> Iterator[str]:
    for path, found, inner in commands(command, context, name):
        yield from ("", f"### {path}", "", _paragraphs(found))
        if isinstance(found, click.Group):
            continue
        usage = " ".join(piece for piece in found.collect_usage_pieces(inner) if piece != "[OPTIONS]")
        options = _options(found, inner)
        yield from ("", f"`{path}{' [OPTIONS]' if options else ''}{' ' + usage if usage else ''}`")
        if options:
            yield from ("", *options)


def _options(command: click.Command, context: click.Context) -> list[str]:
    rows = []
    for param in command.params:
        record = param.get_help_record(context) if isinstance(param, click.Option) else None
        # a command's own copies of the global options are told once, above
        if record and (command is cli or param.expose_value):
            flags, text = record
            rows.append(f"| `{_in_cell(flags)}` | {_in_cell(text)} |")
    return ["| option | |", "| --- | --- |", *rows] if rows else []


def _paragraphs(command: click.Command) -> str:
    text = (command.help or "").replace("\b\n", "")
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n") if part.strip())


def _in_cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    print(markdown(), end="")
