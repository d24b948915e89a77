"""``hostler status``: every process of the state dir's stack, engines too, and where each listens."""

from __future__ import annotations

from dataclasses import dataclass

from app.settings import Settings
from app.stack.layout import Layout
from app.stack.processes import Found, control_plane, engines, listens_on, parent
from app.stack.record import Record, read_record
from app.stack.roles import ENGINE, LISTENER, POSTGRES, REDIS, ROLES, SHIM, SUPERVISOR
from app.stack.supervisor import Supervisor, SupervisorGone

_ORDER = (SUPERVISOR, POSTGRES, REDIS, LISTENER, *(role.name for role in ROLES), ENGINE, SHIM)


@dataclass(frozen=True)
class Row:
    """One process; ``pid`` is None for a program that should run and does not. ``parent`` is who started it."""

    role: str
    pid: int | None
    listen: tuple[str, ...]
    replica_id: str | None = None
    state: str = "running"
    parent: int | None = None

    def body(self) -> dict[str, object]:
        found: dict[str, object] = {"role": self.role, "pid": self.pid, "listen": list(self.listen)}
        if self.replica_id:
            found["replica_id"] = self.replica_id
        if self.pid is None:
            found["state"] = self.state
        return found


@dataclass(frozen=True)
class Status:
    """What runs now. ``record`` is None when no start is known."""

    record: Record | None
    rows: tuple[Row, ...]

    @property
    def supervised(self) -> bool:
        return any(row.role == SUPERVISOR for row in self.rows)


def status(settings: Settings) -> Status:
    """Look at the processes themselves; nothing that was written down is believed."""
    layout = Layout(settings.state_dir)
    rows = [_row(one) for one in (*control_plane(layout), *engines(layout))]
    present = {row.role for row in rows}
    rows += [Row(name, None, (), state=state) for name, state in _missing(settings, present)]
    rows.sort(key=lambda row: (_ORDER.index(row.role) if row.role in _ORDER else len(_ORDER), row.pid or 0))
    return Status(read_record(settings), tuple(rows))


def leaders(rows: tuple[Row, ...]) -> list[tuple[Row, int]]:
    """For people: the leading process of each role and replica, where any of them listens, and how many there are."""
    grouped: dict[tuple[str, str | None], list[Row]] = {}
    for row in rows:
        grouped.setdefault((row.role, row.replica_id), []).append(row)
    shown = []
    for (role, replica_id), members in grouped.items():
        listen = tuple(sorted({address for row in members for address in row.listen}))
        # pids begin again at the top: a child's may be the smallest
        pids = {row.pid for row in members}
        first = min(members, key=lambda row: (row.parent in pids, row.pid or 0))
        shown.append((Row(role, first.pid, listen, replica_id, first.state), len(members)))
    return shown


def _row(found: Found) -> Row:
    listen = tuple(listens_on(found.process))
    return Row(found.role, found.process.pid, listen, found.replica_id, parent=parent(found.process))


def _missing(settings: Settings, present: set[str]) -> list[tuple[str, str]]:
    try:
        programs = Supervisor(settings).programs()
    except SupervisorGone:
        return []
    return [(one.name, one.state.lower()) for one in programs if one.name not in present]
