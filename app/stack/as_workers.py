"""How a module of ``workers`` is run beside a stack: as the user whose attempts they are, with the stack's settings."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from typing import Any

from app.settings import Settings
from app.stack.environment import settings_environment
from app.stack.layout import Layout
from app.stack.runas import INSTALL_ROOT, Account, as_user


def as_workers(settings: Settings, base: Mapping[str, str]) -> dict[str, Any]:
    """Arguments of ``subprocess``. ``base`` is the environment that the stack's settings are laid over."""
    account = _account(settings)
    environ = {name: value for name, value in base.items() if not name.startswith(("HOSTLER_", "PYTHON"))}
    environ |= settings_environment(settings) | {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(INSTALL_ROOT)}
    return {"cwd": "/", "env": environ, **(as_user(account) if account is not None else {})}


def _account(settings: Settings) -> Account | None:
    """Whose attempts they are, when root asks; None for the caller."""
    attempts = Layout(settings.state_dir).attempts
    if os.geteuid() != 0 or not attempts.is_dir() or os.stat(attempts).st_uid == 0:
        return None
    entry = pwd.getpwuid(os.stat(attempts).st_uid)
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir)
