"""What every start needs: whether one is up already, the end of what an earlier one left, the record."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from app.settings import Settings
from app.stack.control import end_control_plane
from app.stack.environment import allow_open_files, supervised_environment
from app.stack.errors import BadState, PartFailed
from app.stack.layout import Layout
from app.stack.ports import url_of
from app.stack.postgres import clear_stale_pid
from app.stack.prepare import disk_errors
from app.stack.processes import control_plane, start_ticks
from app.stack.record import Record, read_record, remove_record, supervisor_of, write_record
from app.stack.redis import clear_stale_socket
from app.stack.roles import STACK, WORKER_HOST
from app.stack.runas import RunAs
from app.stack.secrets import STARTED_WITH, read_secret
from app.stack.supervisor import Supervisor, start_supervisor
from app.stack.supervisor_config import write_config

Say = Callable[[str], None]


@dataclass(frozen=True)
class Started:
    """What `up` found or made. ``new_key`` is the admin key, told only when it was made just now."""

    url: str
    supervisor: psutil.Process
    already: bool = False
    new_key: str = ""


def running(settings: Settings, kind: str) -> Started | None:
    """The start of that kind that is up in the state dir. Raises BadState when one of another kind is."""
    record = read_record(settings)
    supervisor = supervisor_of(record)
    if record is None or supervisor is None or not Supervisor(settings).answers():
        return None
    if record.kind != kind:
        raise BadState(
            f"a {record.kind} is up in {settings.state_dir}, and this would be a {kind}: use another --state-dir, or"
            " end that one with `hostler down` first"
        )
    return Started(record.url, supervisor, already=True)


def end_leftovers(settings: Settings, say: Say) -> None:
    """End what an earlier supervisord left behind when it was killed. Engines are never touched: they are adopted."""
    layout = Layout(settings.state_dir)
    left = control_plane(layout)
    if left:
        say(f"ending {len(left)} processes that an earlier start left behind")
        end_control_plane(settings)
    remove_record(settings)
    if layout.postgres_data.is_dir():
        clear_stale_pid(layout)
    clear_stale_socket(layout)


@contextmanager
def supervised(
    settings: Settings, chosen: RunAs, kind: str, environ: Mapping[str, str], say: Say
) -> Iterator[psutil.Process]:
    """A supervisor, which starts nothing by itself but the embedded parts. What was started is ended again when the
    body raises. Raises StackError."""
    with disk_errors(settings.state_dir):
        config = write_config(settings, chosen.rest, kind)
    allow_open_files()
    environment = supervised_environment(settings, chosen.rest, environ)
    supervisor = start_supervisor(settings, chosen.rest, config, environment)
    try:
        _record_start(settings, chosen, supervisor, kind)
        yield supervisor
    except BaseException:
        # Ctrl-C too: half of it helps nobody
        say("stopping what was started")
        end_control_plane(settings)
        remove_record(settings)
        raise


def _record_start(settings: Settings, chosen: RunAs, supervisor: psutil.Process, kind: str) -> None:
    """Write down who was started. Raises PartFailed when it has ended already."""
    # the version number is told in one place, the distribution's package
    from hostler import __version__

    start = start_ticks(supervisor.pid)
    if start is None:
        raise PartFailed("supervisor ended right after its start; see logs/supervisor.log in the state dir")
    record = Record(
        url=url_of(settings) if kind == STACK else "",
        host=settings.host if kind == STACK else "",
        port=settings.port if kind == STACK else 0,
        flower_port=settings.flower_port,
        supervisor_pid=supervisor.pid,
        supervisor_start=start,
        version=__version__,
        postgres_user=chosen.postgres.name,
        user=chosen.rest.name,
        note=chosen.note,
        certificate=settings.tls_certificate,
        kind=kind,
    )
    write_record(settings, record)


def as_started(settings: Settings, environ: Mapping[str, str]) -> Settings:
    """On a worker host the settings with which it was started, under what ``environ`` says now; elsewhere unchanged.

    Its database and its name stand in no folder of its own, and whoever ends it may not have them in his environment.
    """
    record = read_record(settings)
    stored = read_secret(settings.state_dir, STARTED_WITH) if record is not None else None
    if record is None or record.kind != WORKER_HOST or stored is None:
        return settings
    given = {name: value for name, value in environ.items() if value}
    return Settings.load({**json.loads(stored), **given}, state_dir=settings.state_dir)
