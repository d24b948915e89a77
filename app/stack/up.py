"""``hostler up``: from a state dir in whatever condition to a stack whose /health is 200."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from app.settings import BadSetting, Settings
from app.stack import chat, secrets
from app.stack.address import with_node_address
from app.stack.layout import Layout
from app.stack.lock import locked
from app.stack.ports import check_address, check_free, url_of
from app.stack.prepare import disk_errors, make_state_dir, prepare
from app.stack.roles import STACK
from app.stack.runas import RunAs
from app.stack.started import Say, Started, end_leftovers, running, supervised
from app.stack.starting import migrate, wait_for_database, wait_for_health, wait_for_parts
from app.stack.supervisor import Supervisor

#: From the first step to /health 200.
UP_S = 60.0
SHORTEST_KEY = 24


def up(settings: Settings, say: Say, *, run_as: str | None = None, environ: Mapping[str, str] | None = None) -> Started:
    """Bring the stack up, or find it up. Raises StackError or BadSetting; what was started is stopped again then."""
    check_address(settings)
    settings = with_node_address(settings)
    if settings.api_key and len(settings.api_key) < SHORTEST_KEY:
        raise BadSetting(f"HOSTLER_API_KEY is shorter than {SHORTEST_KEY} characters; use a longer one")
    chat.check_chat(settings)
    make_state_dir(settings.state_dir)
    with locked(settings.state_dir, say):
        found = running(settings, STACK)
        if found is not None:
            if settings.api_key and settings.api_key != secrets.read_secret(settings.state_dir, secrets.ADMIN_KEY):
                say("HOSTLER_API_KEY is not the key of the stack that runs; it counts from the next start")
            chat.keep_key(settings)
            _keep_workers(settings, found.url, say)
            return found
        return _start(settings, say, run_as, os.environ if environ is None else environ)


def _start(settings: Settings, say: Say, run_as: str | None, environ: Mapping[str, str]) -> Started:
    deadline = time.monotonic() + UP_S
    end_leftovers(settings, say)
    check_free(settings.host, settings.port)
    chosen = prepare(settings, run_as=run_as)
    if chosen.note:
        say(f"all but Postgres runs as root: {chosen.note}")
    with disk_errors(settings.state_dir):
        new_key = _make_admin_key(settings, chosen)
    with supervised(settings, chosen, STACK, environ, say) as supervisor:
        _bring_up(settings, chosen, say, deadline)
    return Started(url_of(settings), supervisor, new_key=new_key)


def _bring_up(settings: Settings, chosen: RunAs, say: Say, deadline: float) -> None:
    for name, where in wait_for_parts(settings, deadline):
        say(f"{name:<15} {where}")
    wait_for_database(settings, deadline)
    note = migrate(settings)
    if note:
        say(note)
    _keep_admin_key(settings, chosen)
    chat.keep_key(settings)
    supervisor = Supervisor(settings)
    supervisor.start_roles()
    programs, problems = wait_for_health(settings, deadline)
    for program in programs:
        say(f"{program.name:<15} pid {program.pid}")
    for problem in problems:
        say(f"degraded: {problem}")
    _keep_workers(settings, url_of(settings), say)


def _keep_workers(settings: Settings, url: str, say: Say) -> None:
    chat.keep_workers(settings, url, secrets.read_secret(settings.state_dir, secrets.ADMIN_KEY) or "", say)


def _make_admin_key(settings: Settings, chosen: RunAs) -> str:
    """Store an admin key where none is set or stored; the key itself when it was made just now, else empty."""
    if settings.api_key or secrets.read_secret(settings.state_dir, secrets.ADMIN_KEY) is not None:
        return ""
    made = secrets.ensure_secret(settings.state_dir, secrets.ADMIN_KEY, secrets.make_admin_key)
    _give_admin_key(settings, chosen)
    return made


def _keep_admin_key(settings: Settings, chosen: RunAs) -> None:
    """Store the key that was set, now that the database took it: a refused one must not cost the one before."""
    if settings.api_key:
        secrets.store_secret(settings.state_dir, secrets.ADMIN_KEY, settings.api_key)
        _give_admin_key(settings, chosen)


def _give_admin_key(settings: Settings, chosen: RunAs) -> None:
    if not chosen.rest.is_caller:
        os.chown(Layout(settings.state_dir).secrets / secrets.ADMIN_KEY, chosen.rest.uid, chosen.rest.gid)
