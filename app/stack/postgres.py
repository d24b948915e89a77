"""The embedded Postgres: only the binaries of the wheel are used, on a Unix socket, with a made password."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from app.settings import Settings
from app.stack.binaries import MAJOR, link_binaries
from app.stack.errors import BadState, DiskFull, PartFailed
from app.stack.layout import POSTGRES_PORT, Layout
from app.stack.runas import Account, as_user
from app.stack.secrets import POSTGRES_PASSWORD, postgres_password, read_secret
from app.stack.urls import DATABASE, ROLE

_INIT_S = 120
#: Tests lose nothing in a power cut.
_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
_SERVER = {
    "unix_socket_permissions": "0600",
    "max_connections": "200",
    "shared_buffers": "64MB",
    # no replica will ever read this log
    "wal_level": "minimal",
    "max_wal_senders": "0",
    # the planner's guesses make short queries slower than they save
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "cluster_name": "hostler",
    # the detail of a failed row may hold what a user stored
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
}


def prepare_postgres(settings: Settings, account: Account, *, fast: bool = False) -> None:
    """Make the database cluster when there is none. The folder of ``app.stack.places`` must exist.

    It appears by a rename, so an interrupted start leaves nothing half made behind. Raises BadState, DiskFull or
    PartFailed.
    """
    layout = Layout(settings.state_dir)
    link_binaries(layout, account)
    data = layout.postgres_data
    if data.exists():
        _check_data(settings, layout)
        return
    for left in layout.postgres.glob("data.new.*"):
        shutil.rmtree(left)
    draft = Path(tempfile.mkdtemp(prefix="data.new.", dir=layout.postgres))
    os.chown(draft, account.uid, account.gid)
    try:
        _init(layout, account, draft, fast)
        _make_role(settings, layout, account, draft, fast)
        draft.rename(data)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def postgres_argv(settings: Settings, *, fast: bool = False) -> list[str]:
    """The server in the foreground. SIGINT stops it fast and cleanly."""
    layout = Layout(settings.state_dir)
    argv = [str(_program(layout, "postgres")), "-D", str(layout.postgres_data), "-h", ""]
    argv += ["-k", str(layout.postgres_sockets), "-p", str(POSTGRES_PORT)]
    for name, value in {**_SERVER, **(_FAST if fast else {})}.items():
        argv += ["-c", f"{name}={value}"]
    return argv


def postgres_env() -> dict[str, str]:
    """Complete: PG* variables of the caller would change what the server does, secrets are none of its business."""
    return {"PATH": os.defpath, "LANG": "C.UTF-8", "TZ": "UTC"}


def clear_stale_pid(layout: Layout) -> None:
    """Remove ``postmaster.pid`` of a server that is gone, when its pid now belongs to something else.

    Postgres copes with a dead pid by itself, but takes any live process of the same user for its twin. The caller
    has made sure that no process works in the data folder.
    """
    (layout.postgres_data / "postmaster.pid").unlink(missing_ok=True)
    for name in (f".s.PGSQL.{POSTGRES_PORT}", f".s.PGSQL.{POSTGRES_PORT}.lock"):
        (layout.postgres_sockets / name).unlink(missing_ok=True)


def _check_data(settings: Settings, layout: Layout) -> None:
    data = layout.postgres_data
    again = f"move {settings.state_dir} away to start anew"
    try:
        major = (data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        raise BadState(f"{data} is no database (PG_VERSION is missing); put it back from a copy, or {again}") from None
    if major != MAJOR:
        raise BadState(f"{data} is of Postgres {major}; start it with the Hostler that made it, dump it, and {again}")
    if read_secret(settings.state_dir, POSTGRES_PASSWORD) is None:
        raise BadState(f"{layout.secrets / POSTGRES_PASSWORD} is missing; put it back from a copy, or {again}")


def _init(layout: Layout, account: Account, draft: Path, fast: bool) -> None:
    # the superuser's password is forgotten at once: nobody logs in as it
    with tempfile.NamedTemporaryFile("w", dir=layout.postgres, prefix="pw.") as file:
        file.write(os.urandom(24).hex() + "\n")
        file.flush()
        os.chown(file.name, account.uid, account.gid)
        argv = [str(_program(layout, "initdb")), "-D", str(draft), "--username=postgres", f"--pwfile={file.name}"]
        argv += ["--auth-local=scram-sha-256", "--auth-host=reject", "--encoding=UTF8", "--no-instructions"]
        # sorting must not change with the host's libc
        argv += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        _run_once([*argv, *(["--no-sync"] if fast else [])], account, draft)


def _make_role(settings: Settings, layout: Layout, account: Account, draft: Path, fast: bool) -> None:
    """The role we log in as is no superuser: SQL that goes wrong cannot read files or run programs."""
    password = postgres_password(settings)
    if not all(character.isalnum() or character in "-_" for character in password):
        raise BadState(f"{layout.secrets / POSTGRES_PASSWORD} was changed; delete it and start again")
    statements = (
        f"CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD '{password}'",
        f"CREATE DATABASE {DATABASE} OWNER {ROLE}",
    )
    argv = [str(_program(layout, "postgres")), "--single", "-D", str(draft)]
    argv += ["-c", "log_min_error_statement=panic", *(["-F"] if fast else []), "postgres"]
    out = _run_once(argv, account, draft, "\n".join(statements) + "\n")
    if "ERROR" in out:
        raise PartFailed(f"Postgres refused its first statements: {out.replace(password, '...')[-500:]}")


def _program(layout: Layout, name: str) -> Path:
    return layout.postgres / "bin" / name


def _run_once(argv: list[str], account: Account, cwd: Path, stdin: str = "") -> str:
    done = subprocess.run(
        argv,
        cwd=cwd,
        env=postgres_env(),
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        umask=0o077,
        timeout=_INIT_S,
        check=False,
        **as_user(account),
    )
    if done.returncode != 0:
        tail = done.stdout.strip()[-800:]
        if "No space left on device" in tail:
            raise DiskFull(f"the disk of {cwd.parent} is full; make room and try again")
        raise PartFailed(f"{Path(argv[0]).name} failed: {tail}")
    return done.stdout
