"""The config of supervisord: which programs, in which order, tried how often. It holds no paths and no secrets."""

from __future__ import annotations

import os
from pathlib import Path

from app.settings import Settings
from app.stack.layout import Layout
from app.stack.processes import ROLE_MARK
from app.stack.roles import GROUP, LISTENER, POSTGRES, REDIS, STACK, roles_of
from app.stack.runas import Account
from app.stack.urls import embeds_postgres, embeds_redis

#: A program that ends sooner than this after its start failed to start.
STARTED_S = 1
#: Tries in a row, 1, 2, 3 ... seconds apart; then supervisor gives up, and the listener starts it anew every 10 s.
TRIES = 6
LOG_BYTES = 10 * 1024 * 1024
LOG_COPIES = 2
_PYTHON = "%(ENV_HOSTLER_PYTHON)s"


def config_text(settings: Settings, *, as_root: bool = False, kind: str = STACK) -> str:
    """The config. ``%(ENV_...)s`` is filled in by supervisor after parsing, so no path can break its syntax.

    Relative paths are seen from supervisord's own working folder, which is the state dir.
    """
    user = "user=root\n" if as_root else ""
    parts = [
        "[supervisord]\nnodaemon=true\nsilent=true\nnocleanup=true\nlogfile=logs/supervisor.log\n"
        f"logfile_maxbytes={LOG_BYTES}\nlogfile_backups={LOG_COPIES}\npidfile=supervisor.pid\nchildlogdir=logs\n",
        "[unix_http_server]\nfile=%(ENV_HOSTLER_RUN)s/supervisor.sock\nchmod=0600\n",
        "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n",
        _section("eventlistener", LISTENER, f"{_PYTHON} -m app.stack.listener", priority=1, stop_wait_s=5)
        + "events=PROCESS_STATE,TICK_5\nbuffer_size=1000\nautostart=false\nstderr_logfile=logs/listener.log\n"
        f"stderr_logfile_maxbytes={LOG_BYTES}\nstderr_logfile_backups={LOG_COPIES}\nstdout_logfile=NONE\n",
    ]
    for name, embedded, signal, priority in (
        (POSTGRES, embeds_postgres(settings), "INT", 10),
        (REDIS, embeds_redis(settings), "TERM", 20),
    ):
        if embedded:
            command = f"{_PYTHON} -m app.stack.part {name}"
            parts.append(
                _section("program", name, command, priority=priority, stop_wait_s=30)
                + f"autostart=true\nstopsignal={signal}\n"
                + _log(name)
            )
    grouped = ",".join(role.name for role in roles_of(kind) if not role.is_door)
    parts.append(f"[group:{GROUP}]\nprograms={grouped}\npriority=100\n")
    for role in roles_of(kind):
        command = " ".join((_PYTHON, *role.arguments))
        parts.append(
            _section("program", role.name, command, priority=50 if role.is_door else 100, stop_wait_s=role.stop_wait_s)
            + f"autostart=false\nstopsignal={role.stop_signal.name.removeprefix('SIG')}\n"
            + _log(role.name)
        )
    return "\n".join(parts).replace("[supervisord]\n", f"[supervisord]\n{user}", 1)


def write_config(settings: Settings, account: Account, kind: str = STACK) -> Path:
    """Write the config (0600, for ``account``) by rename and return its path."""
    path = Layout(settings.state_dir).supervisor_config
    draft = path.with_suffix(".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(config_text(settings, as_root=account.uid == 0, kind=kind))
    if not account.is_caller:
        os.chown(draft, account.uid, account.gid)
    draft.rename(path)
    return path


def _section(kind: str, name: str, command: str, *, priority: int, stop_wait_s: int) -> str:
    return (
        f'[{kind}:{name}]\ncommand={command}\nenvironment={ROLE_MARK}="{name}"\n'
        f"directory=%(ENV_HOSTLER_INSTALL_ROOT)s\numask=077\npriority={priority}\nautorestart=true\n"
        f"startsecs={STARTED_S}\nstartretries={TRIES}\nstopwaitsecs={stop_wait_s}\n"
        # what a program started must not be signalled with it: workers start what outlives them
        "stopasgroup=false\nkillasgroup=false\n"
    )


def _log(name: str) -> str:
    return (
        f"redirect_stderr=true\nstdout_logfile=logs/{name}.log\n"
        f"stdout_logfile_maxbytes={LOG_BYTES}\nstdout_logfile_backups={LOG_COPIES}\n"
    )
