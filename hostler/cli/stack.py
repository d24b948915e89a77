"""``hostler up``, ``worker``, ``down``, ``status``, ``doctor``, ``gc``: app.stack does it, and is loaded when used."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hostler.cli.options import OUTPUTS

if TYPE_CHECKING:
    from app.settings import Settings
    from app.stack.started import Started

T = TypeVar("T")

_STATE_DIR = click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of everything the stack keeps [env: HOSTLER_STATE_DIR; default: $XDG_STATE_HOME/hostler].",
)
_OUTPUT = click.option("-o", "--output", type=click.Choice(OUTPUTS), default="table", show_default=True)


@click.command("up")
@click.option("-d", "--detach", is_flag=True, help="Return when the stack is healthy, and leave it running.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the API [env: HOSTLER_PORT; default: 8080].")
@click.option("--host", help="Address of the API [env: HOSTLER_HOST; default: 127.0.0.1].")
@click.option("--run-as", metavar="USER", help="As root: the user that runs Postgres, and the rest where it can.")
@_STATE_DIR
def up(detach: bool, port: int | None, host: str | None, run_as: str | None, state_dir: Path | None) -> None:
    """Start the stack; without -d stay in the foreground, where Ctrl-C stops it, its replicas too."""
    settings = _settings(state_dir=state_dir, port=port, host=host)
    _interrupt_on_signals()
    from app.stack.up import up as bring_up

    started = _guarded(lambda: bring_up(settings, _talk, run_as=run_as))
    if detach or started.already:
        _announce(settings, started)
    else:
        _stay(settings, started)


@click.command("worker")
@click.option("-d", "--detach", is_flag=True, help="Return when it is at work, and leave it running.")
@click.option(
    "--pool", "pools", metavar="POOL", multiple=True, help="A pool to serve [env: HOSTLER_NODE_POOLS; default: all]."
)
@click.option(
    "--address",
    help="Address of this host on which engines listen and at which gateways reach them [env: HOSTLER_NODE_ADDRESS;"
    " default: where this host's connections to the database come from].",
)
@click.option("--run-as", metavar="USER", help="As root: the user that runs all of it, engines too, where it can.")
@_STATE_DIR
def worker(
    detach: bool, pools: tuple[str, ...], address: str | None, run_as: str | None, state_dir: Path | None
) -> None:
    """Run engines on this host for a stack whose database, broker and gateway are elsewhere.

    HOSTLER_DATABASE_URL and HOSTLER_BROKER_URL name them; the keys that all hosts share are read from files. See
    docs/other-hosts.md. Without -d it stays in the foreground, where Ctrl-C stops it and this host's replicas.
    """
    settings = _settings(state_dir=state_dir, node_pools=",".join(pools) or None, node_address=address)
    _interrupt_on_signals()
    from app.stack.worker import join

    find_address = address is None and not os.environ.get("HOSTLER_NODE_ADDRESS")
    started = _guarded(lambda: join(settings, _talk, find_address=find_address, run_as=run_as))
    if started.already:
        _talk(f"a worker host is up already in {settings.state_dir}")
    elif not detach:
        _stay(settings, started)


@click.command("down")
@click.option("--keep-replicas", is_flag=True, help="Leave the engines serving; the next up adopts them.")
@_STATE_DIR
def down(keep_replicas: bool, state_dir: Path | None) -> None:
    """Stop this host's replicas and those on no host of ours, after listing them, and then the control plane."""
    settings = _as_started(state_dir)
    hurry = _hurry_on_signals()
    from app.stack.down import down as take_down

    if _guarded(lambda: take_down(settings, _talk, keep_replicas=keep_replicas, hurry=hurry)):
        _talk("everything is stopped" if not keep_replicas else "the control plane is stopped")
    else:
        _talk(f"nothing runs in {settings.state_dir}")


@click.command("status")
@_OUTPUT
@_STATE_DIR
def status(output: str, state_dir: Path | None) -> None:
    """Show every process of the stack, engines too: role, pid, where it listens."""
    settings = _settings(state_dir=state_dir)
    from app.stack.status import leaders
    from app.stack.status import status as look

    found = _guarded(lambda: look(settings))
    if output != "table":
        _print(output, [row.body() for row in found.rows], "role")
        return
    rows = [
        (f"{row.role} {row.replica_id or ''}".strip(), str(row.pid or row.state), str(count), "\n".join(row.listen))
        for row, count in leaders(found.rows)
    ]
    _table(("role", "pid", "processes", "listens on"), rows)
    if not found.rows:
        _talk(f"nothing runs in {settings.state_dir}; next: hostler up -d --state-dir {settings.state_dir}")
    elif not found.supervised:
        again = "worker" if found.record is not None and not found.record.url else "up"
        _talk(f"supervisor is gone, nothing is started again; next: hostler {again} -d")
    elif found.record is not None and found.record.url:
        _talk(f"the API is at {found.record.url}")


@click.command("doctor")
@_OUTPUT
@_STATE_DIR
def doctor(output: str, state_dir: Path | None) -> None:
    """Check processes, database, broker, queues, clock and permissions, whether work, sweeps and hosts are as they
    should be, whether this host reaches the place of each pool that it serves, and the tunnels; each finding with what
    to type next. Exit code 1 when something is wrong."""
    settings = _as_started(state_dir)
    from app.stack.doctor import doctor as examine
    from app.stack.findings import FAIL

    found = _guarded(lambda: examine(settings))
    if output != "table":
        _print(output, [one.body() for one in found], "check")
    else:
        _table(
            ("check", "result", "what", "type next"), [(one.check, one.result, one.detail, one.fix) for one in found]
        )
    if any(one.result == FAIL for one in found):
        sys.exit(1)


@click.command("gc")
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_OUTPUT
@_STATE_DIR
def gc(dry_run: bool, yes: bool, output: str, state_dir: Path | None) -> None:
    """Remove what leaked: processes and folders of no open attempt, leases without owner, rows past their time,
    sockets and pid files of what is gone. Safe while everything works; of other stacks nothing is touched. Exit code 1
    when something could not be removed."""
    settings = _as_started(state_dir)
    from app.stack.gc import find, remove

    told: list[str] = []

    def say(line: str) -> None:
        told.append(line)
        _talk(line)

    found = _guarded(lambda: find(settings, say))
    ask = bool(found) and not dry_run and not yes and sys.stdin.isatty()
    if output == "table" and (dry_run or ask):
        _table(("kind", "name", "why"), [(one.kind, one.name, one.why) for one in found])
    elif ask:
        _talk("\n".join(f"{one.kind} {one.name}: {one.why}" for one in found))
    if ask and not click.confirm(f"remove these {len(found)}?", err=True):
        raise click.Abort
    if not dry_run and found:
        leaked = found
        found = _guarded(lambda: remove(settings, leaked, say))
        if output == "table":
            came = [(one.kind, one.name, "removed" if one.removed else one.error) for one in found]
            _table(("kind", "name", "outcome"), came)
    if output != "table":
        _print(output, [one.body() for one in found], "name")
    if not found:
        # what could not be looked at was told
        _talk("nothing else is known to have leaked" if told else "nothing has leaked")
    if any(one.removed is False for one in found):
        sys.exit(1)


#: What the root group registers.
commands: list[click.Command] = [up, worker, down, status, doctor, gc]


def _settings(**overrides: Any) -> Settings:
    from app.settings import BadSetting, Settings

    try:
        return Settings.load(**overrides)
    except BadSetting as error:
        raise click.UsageError(str(error)) from error


def _as_started(state_dir: Path | None) -> Settings:
    """The settings of what runs in the state dir, as far as they are needed to look at it or end it."""
    settings = _settings(state_dir=state_dir)
    from app.stack.started import as_started

    return _guarded(lambda: as_started(settings, os.environ))


def _guarded(act: Callable[[], T]) -> T:
    """What ``act`` returns; our errors become messages with exit code 1, bad settings exit code 2."""
    from app.settings import BadSetting
    from app.stack.errors import StackError

    try:
        return act()
    except BadSetting as error:
        raise click.UsageError(str(error)) from error
    except StackError as error:
        raise click.ClickException(str(error)) from error
    except PermissionError as error:
        raise click.ClickException(f"{error.filename}: not ours; run as the user that owns the state dir") from error


def _announce(settings: Settings, started: Started) -> None:
    if started.already:
        _talk(f"a stack is up already in {settings.state_dir}")
    click.echo(started.url)
    if started.new_key:
        click.echo(f"admin key: {started.new_key}")
        _talk(
            f"it is shown this once and kept in {settings.state_dir / 'secrets' / 'admin-key'}, where hostler finds it"
        )


def _stay(settings: Settings, started: Started) -> None:
    """Say that it is up, wait for Ctrl-C or SIGTERM, then take everything down."""
    from app.stack.record import read_record

    try:
        # whoever was told that it is up may end it from that moment on
        if started.url:
            _announce(settings, started)
            _talk("Ctrl-C stops the stack and its replicas")
        else:
            _talk("Ctrl-C stops this host's replicas and all of it")
        started.supervisor.wait()
    except KeyboardInterrupt:
        hurry = _hurry_on_signals()
        from app.stack.down import down as take_down

        _guarded(lambda: take_down(settings, _talk, hurry=hurry))
        _talk("everything is stopped")
        return
    if read_record(settings) is None:
        _talk("it was stopped by hostler down")
        return
    again = "up" if started.url else "worker"
    raise click.ClickException(f"supervisor ended, and nothing is started again; next: hostler {again}")


def _interrupt_on_signals() -> None:
    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, interrupt)


def _hurry_on_signals() -> threading.Event:
    """From now on a signal does not stop the stopping: it ends the patience with engines."""
    hurry = threading.Event()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: hurry.set())
    return hurry


def _print(output: str, rows: list[dict[str, Any]], name: str) -> None:
    if output == "json":
        click.echo(json.dumps(rows, indent=2))
    elif output == "yaml":
        import yaml

        click.echo(yaml.safe_dump(rows, sort_keys=False), nl=False)
    else:
        click.echo("".join(f"{row[name]}\n" for row in rows), nl=False)


def _table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*titles, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        # a pipe has no width: nothing is cut
        console = Console(width=400)
    console.print(table, markup=False)


def _talk(line: str) -> None:
    click.echo(line, err=True)
