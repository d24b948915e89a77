"""Ending the control plane of one state dir, with or without a supervisord that still answers."""

from __future__ import annotations

from signal import SIGINT, SIGKILL, SIGQUIT

import psutil

from app.settings import Settings
from app.stack.layout import Layout
from app.stack.processes import Found, control_plane, end, wait_ended
from app.stack.record import read_record, supervisor_of
from app.stack.roles import POSTGRES, REDIS, ROLES, SUPERVISOR
from app.stack.supervisor import Supervisor, SupervisorGone

#: The slowest role, then Redis, then Postgres's last checkpoint.
_SHUTDOWN_S = max(role.stop_wait_s for role in ROLES) + 30.0
_ROLES_S = 10.0
_PARTS_S = 20.0


def end_control_plane(settings: Settings) -> list[Found]:
    """Stop everything but the engines. Returns what had to be killed. Safe to call twice."""
    layout = Layout(settings.state_dir)
    supervisor = supervisor_of(read_record(settings))
    if supervisor is not None:
        try:
            Supervisor(settings).shutdown()
            wait_ended([supervisor], _SHUTDOWN_S)
        except SupervisorGone:
            # what it watched is ended below
            pass
    return _end_rest(layout)


def _end_rest(layout: Layout) -> list[Found]:
    """End by pid what supervisord left: itself first, or it would start the others again; Postgres last."""
    killed = end([one for one in control_plane(layout) if one.role == SUPERVISOR], wait_s=0)
    at_once = {role.name for role in ROLES if role.stop_signal is SIGKILL}
    killed += end([one for one in control_plane(layout) if one.role in at_once], wait_s=5, number=SIGKILL)
    roles = _roles(layout)
    pids = {one.process.pid for one in roles}
    # children end with their parent, and some take a signal of their own badly
    killed += end([one for one in roles if _parent(one) not in pids], wait_s=_ROLES_S)
    killed += end(_roles(layout), wait_s=1)
    killed += end([one for one in control_plane(layout) if one.role == REDIS], wait_s=_PARTS_S)
    master = _postmaster(layout)
    # the others of its processes end with it; told to end on their own, some would do harm
    killed += end([one for one in control_plane(layout) if one.process.pid == master], wait_s=_PARTS_S, number=SIGINT)
    return killed + end(control_plane(layout), wait_s=2, number=SIGQUIT)


def _roles(layout: Layout) -> list[Found]:
    return [one for one in control_plane(layout) if one.role not in (POSTGRES, REDIS)]


def _parent(found: Found) -> int:
    try:
        return found.process.ppid()
    except psutil.NoSuchProcess:
        return 0


def _postmaster(layout: Layout) -> int:
    try:
        return int((layout.postgres_data / "postmaster.pid").read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return 0
