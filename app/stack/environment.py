"""The environment of every process of a stack: the settings it was started with, and nothing that could change code."""

from __future__ import annotations

import os
import resource
import shlex
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from app.settings import Settings, env_name
from app.stack.layout import Layout
from app.stack.processes import ENGINE_MARK, ROLE_MARK
from app.stack.roles import SUPERVISOR
from app.stack.runas import INSTALL_ROOT, Account
from app.stack.urls import embeds_postgres

#: Files that one process may hold open: each stream of the API is one.
OPEN_FILES = 65_536
#: Only `up` itself needs it; the API knows its hash.
_NOT_PASSED = ("api_key", "chat_key", "url")


def supervised_environment(settings: Settings, account: Account, base: Mapping[str, str]) -> dict[str, str]:
    """Environment of supervisord, inherited by all it starts. ``base`` is the caller's."""
    environ = {name: value for name, value in base.items() if not _is_dropped(name, settings)}
    environ |= settings_environment(settings)
    if not account.is_caller:
        environ |= {"HOME": account.home, "USER": account.name, "LOGNAME": account.name}
        environ.pop("XDG_RUNTIME_DIR", None)
    return environ | {
        # the code that `up` runs, not what lies in somebody's current folder
        "PYTHONSAFEPATH": "1",
        "PYTHONPATH": str(INSTALL_ROOT),
        "PYTHONUNBUFFERED": "1",
        ROLE_MARK: SUPERVISOR,
        # supervisor's config names these instead of paths, which could hold what it takes for syntax
        "HOSTLER_PYTHON": shlex.quote(sys.executable),
        "HOSTLER_INSTALL_ROOT": str(INSTALL_ROOT),
        "HOSTLER_RUN": str(Layout(settings.state_dir).run),
    }


def settings_environment(settings: Settings) -> dict[str, str]:
    """``settings`` as variables that ``Settings.load`` turns into the same settings."""
    environ = {}
    for item in fields(settings):
        value = getattr(settings, item.name)
        if value != item.default and item.name not in _NOT_PASSED:
            environ[env_name(item.name)] = _text(value)
    return environ


def allow_open_files() -> None:
    """Raise the soft limit, which is 1,024 on most hosts, as far as the hard one allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _is_dropped(name: str, settings: Settings) -> bool:
    if name.startswith(("PYTHON", "SUPERVISOR_", "GUNICORN_", "CELERY_", "FLOWER_UNAUTH")):
        return True
    # libpq's variables are for the user's own Postgres, not for ours
    if name.startswith("PG") and embeds_postgres(settings):
        return True
    ours = {env_name(item.name) for item in fields(settings)} | {item.metadata["also"] for item in fields(settings)}
    return name in ours | {ROLE_MARK, ENGINE_MARK, "OLDPWD", "PWD", "_"}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, tuple):
        return "-".join(str(part) for part in value)
    return os.fspath(value) if isinstance(value, Path) else str(value)
