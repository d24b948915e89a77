"""The state dir before a start: made, owned by whom it should be, closed to everybody else, with its secrets."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.settings import Settings
from app.stack import runas, secrets
from app.stack.errors import BadState, DiskFull
from app.stack.layout import Layout, check_state_path, make_run_dir
from app.stack.places import make_postgres_home, remove_leftovers
from app.stack.postgres import prepare_postgres
from app.stack.runas import Account, RunAs
from app.stack.urls import embeds_postgres

#: What may be there before the first start: files of models, recipes and their secrets, what a new disk comes with, and
#: the keys of the stack that a host joins.
_BEFORE_FIRST = {"models", "recipes", "recipe-secrets", "lost+found", "secrets"}
#: A new database takes 60 MB; running out in the middle of a checkpoint stops Postgres.
NEW_BYTES = 150 * 1024 * 1024
OLD_BYTES = 48 * 1024 * 1024


def make_state_dir(state_dir: Path) -> None:
    """Make the state dir (0700). Raises PathTooLong, BadState or DiskFull."""
    check_state_path(state_dir)
    with disk_errors(state_dir):
        state_dir.parent.mkdir(parents=True, exist_ok=True)
        state_dir.mkdir(mode=0o700, exist_ok=True)
        found = os.stat(state_dir)
        if os.geteuid() not in (0, found.st_uid):
            raise BadState(f"{state_dir} belongs to uid {found.st_uid}; run as that user or use another --state-dir")
        # a start chowns and closes all it finds: never somebody's home
        names = set(os.listdir(state_dir))
        others = names - _BEFORE_FIRST
        if "secrets" in names:
            others |= set(os.listdir(state_dir / "secrets")) - set(secrets.SHARED)
        if "lock" not in names and others:
            raise BadState(f"{state_dir} holds other files ({min(others)}, ...); name an empty folder")
        Layout(state_dir).lock.touch(mode=0o600)


def prepare(settings: Settings, *, run_as: str | None = None, fast: bool = False) -> RunAs:
    """Everything a start needs on disk. The caller holds the lock, and nothing of this state dir's stack runs."""
    layout = Layout(settings.state_dir)
    with disk_errors(settings.state_dir):
        _check_room(settings, layout)
        chosen = runas.choose(settings.state_dir, run_as)
        rest = chosen.rest
        own = (layout.secrets, layout.logs, layout.attempts, layout.redis, layout.gateway)
        for folder in (*own, layout.models, layout.recipes, layout.recipe_secrets):
            folder.mkdir(mode=0o700, exist_ok=True)
        secrets.engine_key(settings)
        secrets.secret_key(settings)
        secrets.flower_password(settings)
        _own(layout, chosen)
        make_run_dir(settings.state_dir, chosen.state_owner.uid, chosen.state_owner.gid)
        if embeds_postgres(settings):
            remove_leftovers()
            make_postgres_home(layout, chosen.postgres, inside=chosen.reaches_state)
            prepare_postgres(settings, chosen.postgres, fast=fast)
            give(layout.secrets, rest)
            give(layout.postgres, chosen.postgres)
    return chosen


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn what the file system says into errors that name the next step."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"the disk of {folder} is full; make room, or use a --state-dir on another disk") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            where = error.filename or folder
            raise BadState(f"{where}: {error.strerror}; use a --state-dir that you may write to") from error
        raise


def give(top: Path, account: Account, *, skip: frozenset[Path] = frozenset()) -> None:
    """Make ``top`` and all below it belong to ``account``, closed to group and others. Links are not followed."""
    _give_one(top, account)
    for folder, folders, files in os.walk(top):
        folders[:] = [name for name in folders if Path(folder, name) not in skip]
        for name in (*folders, *files):
            _give_one(Path(folder, name), account)


def _check_room(settings: Settings, layout: Layout) -> None:
    is_new = embeds_postgres(settings) and not layout.postgres_data.exists()
    need = NEW_BYTES if is_new else OLD_BYTES
    free = shutil.disk_usage(settings.state_dir).free
    if free < need:
        raise DiskFull(
            f"the disk of {settings.state_dir} has {free >> 20} MB free and {need >> 20} MB are needed; "
            "make room, or use a --state-dir on another disk"
        )


def _own(layout: Layout, chosen: RunAs) -> None:
    state_dir = layout.state_dir
    give(state_dir, chosen.rest, skip=frozenset({state_dir / "postgres", state_dir / "run"}))
    _give_one(state_dir, chosen.state_owner)


def _give_one(path: Path, account: Account) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    # a second name of a file may lie anywhere: chown through it would give that file away too
    linked_elsewhere = stat.S_ISREG(found.st_mode) and found.st_nlink > 1
    if found.st_uid != account.uid and os.geteuid() == 0 and not linked_elsewhere:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode) and found.st_mode & 0o077 and not linked_elsewhere:
        os.chmod(path, stat.S_IMODE(found.st_mode) & ~0o077)
