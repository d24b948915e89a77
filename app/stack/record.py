"""``stack.json``: where the stack answers and who supervises it, for `status`, `down` and the command line."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields

import psutil

from app.settings import Settings
from app.stack.layout import Layout
from app.stack.processes import start_ticks
from app.stack.roles import STACK


@dataclass(frozen=True)
class Record:
    """One start. ``supervisor_start`` tells a later holder of the pid apart (clock ticks since boot)."""

    url: str
    host: str
    port: int
    flower_port: int
    supervisor_pid: int
    supervisor_start: int
    version: str
    postgres_user: str
    user: str
    #: why ``user`` is root, where it is
    note: str = ""
    #: what this host trusts when the API speaks TLS
    certificate: str = ""
    #: of a host that only runs engines the API is elsewhere: it has no ``url``, ``host`` and ``port``
    kind: str = STACK


def write_record(settings: Settings, record: Record) -> None:
    """Replace the record by a rename, so that a reader never sees half of it."""
    path = Layout(settings.state_dir).record
    draft = path.with_suffix(".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(record), file, indent=1)
        file.write("\n")
    owner = os.stat(settings.state_dir)
    if os.geteuid() == 0:
        os.chown(draft, owner.st_uid, owner.st_gid)
    draft.rename(path)


def read_record(settings: Settings) -> Record | None:
    """The last start that was not followed by a `down`; None when there is none or it cannot be understood."""
    try:
        known = json.loads(Layout(settings.state_dir).record.read_text())
        # one of an older version says less
        return Record(**{item.name: known[item.name] for item in fields(Record) if item.name in known})
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return None


def remove_record(settings: Settings) -> None:
    Layout(settings.state_dir).record.unlink(missing_ok=True)


def supervisor_of(record: Record | None) -> psutil.Process | None:
    """The supervisord of that start, if it lives."""
    if record is None or start_ticks(record.supervisor_pid) != record.supervisor_start:
        return None
    try:
        process = psutil.Process(record.supervisor_pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process
    except psutil.NoSuchProcess:
        return None
