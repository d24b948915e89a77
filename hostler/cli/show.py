"""Answers on stdout, in the form that was asked for."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import click

from hostler.cli.options import Session
from hostler.cli.text import clean, clean_block, escape_json

Json = dict[str, Any]
#: Column header -> key of the row, or a function of it.
Columns = Mapping[str, str | Callable[[Json], object]]

_STYLES = {
    "ready": "green",
    "running": "green",
    "succeeded": "green",
    "healthy": "green",
    "active": "green",
    "failed": "red",
    "unhealthy": "yellow",
    "unreachable": "yellow",
    "draining": "yellow",
    "degraded": "yellow",
    "stopped": "dim",
    "cancelled": "dim",
}


def talk(text: str) -> None:
    """Say something to the person, on stderr."""
    click.echo(clean_block(text), err=True)


def show_list(session: Session, body: Json, key: str, columns: Columns, *, name: str) -> None:
    """A page of rows: ``body[key]``. ``name`` is the key of a row's name."""
    rows = [row for row in body.get(key) or [] if isinstance(row, dict)]
    if session.output == "name":
        for row in rows:
            click.echo(clean(row.get(name, "")))
    elif session.output == "table":
        if rows:
            _print_table(rows, columns)
        else:
            talk(f"no {key}")
        if body.get("next_cursor"):
            talk(f"there is more: --all, or --cursor {clean(body['next_cursor'])}")
    else:
        show_raw(session, body)


def show_one(session: Session, body: Json, *, name: str) -> None:
    """One thing, a line per field."""
    if session.output == "name":
        click.echo(clean(body.get(name, "")))
    elif session.output == "table":
        pairs = list(flat(body))
        width = max((len(key) for key, _ in pairs), default=0)
        for key, value in pairs:
            click.echo(f"{key.ljust(width)}  {value}")
    else:
        show_raw(session, body)


def show_gone(session: Session, name: str) -> None:
    """Something was removed: its name, or the body that the API has no more to say in."""
    if session.output in ("json", "yaml"):
        show_raw(session, {})
    else:
        click.echo(clean(name))


def show_raw(session: Session, body: Json) -> None:
    """The API's body as JSON or YAML."""
    if session.output == "yaml":
        import yaml

        click.echo(yaml.safe_dump(body, sort_keys=False), nl=False)
    else:
        click.echo(escape_json(json.dumps(body, indent=2, ensure_ascii=False)))


def flat(body: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names and values of every field that says something."""
    for key, value in body.items():
        path = f"{prefix}{clean(key)}"
        if isinstance(value, dict):
            yield from flat(value, f"{path}.")
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            for index, item in enumerate(value):
                yield from flat(item, f"{path}[{index}].") if isinstance(item, dict) else [(path, clean(item))]
        elif value is not None and value != "" and value != []:
            yield path, cell(value)


def cell(value: object) -> str:
    """One value as one line."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ",".join(f"{clean(key)}={cell(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ",".join(cell(item) for item in value)
    return clean(value)


def _print_table(rows: Sequence[Json], columns: Columns) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    wide = not sys.stdout.isatty()
    file = io.StringIO() if wide else sys.stdout
    table = Table(box=None, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    for index, header in enumerate(columns):
        table.add_column(header, no_wrap=wide or index == 0, overflow="fold" if index == 0 else "ellipsis")
    for row in rows:
        values = [cell(row.get(field) if isinstance(field, str) else field(row)) for field in columns.values()]
        # Text, because a str would be read as rich's markup, and this is a server's text
        table.add_row(*(Text(value, style=_STYLES.get(value, "")) for value in values))
    # in a pipe nothing may be cut to a width that nobody looks at
    Console(file=file, width=100_000 if wide else None, highlight=False).print(table)
    if isinstance(file, io.StringIO):
        for line in file.getvalue().splitlines():
            click.echo(line.rstrip())
