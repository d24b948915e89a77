"""As whom the processes run. Root is given up where it can be: Postgres refuses it, the rest does not need it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.stack.errors import NoAccount

SYSTEM_USER = "hostler"
#: The folder above ``app``: where the code is, and the working folder of every process.
INSTALL_ROOT = Path(__file__).resolve().parents[2]
#: Where root keeps what its system user must reach.
SYSTEM_DIR = Path("/var/lib/hostler")
_TRY_S = 30


@dataclass(frozen=True)
class Account:
    """One user of this host."""

    name: str
    uid: int
    gid: int
    home: str

    @property
    def is_caller(self) -> bool:
        return self.uid == os.geteuid()


@dataclass(frozen=True)
class RunAs:
    """Who runs what. ``note`` says why ``rest`` is still root, and is empty when it is not."""

    postgres: Account
    rest: Account
    reaches_state: bool = True
    note: str = ""

    @property
    def state_owner(self) -> Account:
        """Who owns the state dir: Postgres's user where it can reach it at all."""
        return self.postgres if self.reaches_state else self.rest


def choose(state_dir: Path, wanted: str | None = None) -> RunAs:
    """Who runs what for a stack in ``state_dir``, whose parent must exist. Root's system user is made when missing.

    ``wanted`` is ``--run-as``; by default the user that owns the database already, else ``hostler``.
    Raises NoAccount when there is no usable user.
    """
    caller = current()
    if os.geteuid() != 0:
        if wanted and wanted != caller.name:
            raise NoAccount(f"only root may run the stack as {wanted}; leave --run-as out, or start it with sudo")
        return RunAs(caller, caller)
    account = _account_for_root(state_dir, wanted)
    reaches = can(account, ["test", "-x", str(state_dir.parent)])
    if not reaches:
        note = f"user {account.name} cannot enter {state_dir.parent}"
    elif not can_run_code(account):
        note = f"user {account.name} cannot run {sys.executable} with the code in {INSTALL_ROOT}"
    else:
        return RunAs(account, account)
    return RunAs(account, caller, reaches, note)


def current() -> Account:
    """The user of this process."""
    uid = os.geteuid()
    try:
        return _account(pwd.getpwuid(uid))
    except KeyError:
        raise NoAccount(
            f"uid {uid} has no name in /etc/passwd, and Postgres needs one; add it, or set HOSTLER_DATABASE_URL"
        ) from None


def can(account: Account, argv: list[str]) -> bool:
    """Whether ``argv`` succeeds as that user. Trying is surer than reading modes: there are ACLs and mounts."""
    try:
        done = subprocess.run(
            argv,
            cwd="/",
            env={"PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TRY_S,
            check=False,
            **as_user(account),
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def can_run_code(account: Account) -> bool:
    """Whether that user reaches interpreter, libraries and our code."""
    probe = (
        f"import sys; sys.path.insert(0, {str(INSTALL_ROOT)!r}); import celery, gunicorn, supervisor, app.settings, "
        "workers"
    )
    return can(account, [sys.executable, "-P", "-B", "-c", probe])


def as_user(account: Account) -> dict[str, Any]:
    """Arguments of ``subprocess`` that drop to that user; none when the caller is that user."""
    if account.is_caller:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": []}


def become(uid: int, gid: int) -> None:
    """Drop root for good in this process."""
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def _account_for_root(state_dir: Path, wanted: str | None) -> Account:
    if wanted is None:
        owner = _owner_of_data(state_dir)
        if owner is not None:
            return owner
    name = wanted or SYSTEM_USER
    try:
        account = _account(pwd.getpwnam(name))
    except KeyError:
        if wanted:
            raise NoAccount(
                f"there is no user {wanted}; make it (useradd --system {wanted}) or leave --run-as out"
            ) from None
        account = _make_system_user()
    if account.uid == 0:
        raise NoAccount("Postgres refuses to run as root; name another user with --run-as")
    return account


def _owner_of_data(state_dir: Path) -> Account | None:
    try:
        found = os.stat(state_dir / "postgres" / "data")
        return _account(pwd.getpwuid(found.st_uid)) if found.st_uid else None
    except (OSError, KeyError):
        return None


def _make_system_user() -> Account:
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if useradd is None:
        raise NoAccount("there is no useradd to make the user hostler; make a user and name it with --run-as")
    argv = [useradd, "--system", "--user-group", "--no-create-home", "--home-dir", str(SYSTEM_DIR)]
    done = subprocess.run(
        [*argv, "--shell", "/usr/sbin/nologin", SYSTEM_USER],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_TRY_S,
        check=False,
    )
    try:
        # not the exit status: two first starts at once may both try, and one of them finds it made
        return _account(pwd.getpwnam(SYSTEM_USER))
    except KeyError:
        raise NoAccount(
            f"cannot make the user {SYSTEM_USER} ({done.stderr.strip()}); make a user and name it with --run-as"
        ) from None


def _account(entry: pwd.struct_passwd) -> Account:
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir)
