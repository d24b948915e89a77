"""Postgres's folder: in the state dir, or, when its user cannot go there, below /var/lib/hostler.

A place outside holds ``state-dir`` (a back-pointer) and ``file-system`` (that one's id), and ``<state>/postgres``
links to it.
A place whose state dir was deleted is a leftover and removed by the next start. One whose disk is only not mounted now
is kept: it is somebody's database.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.stack.errors import BadState
from app.stack.layout import Layout
from app.stack.processes import end, postgres_in
from app.stack.runas import SYSTEM_DIR, Account

BACK_POINTER = "state-dir"
FILE_SYSTEM = "file-system"


def make_postgres_home(layout: Layout, account: Account, *, inside: bool) -> Path:
    """Make the folder (0700, owned by ``account``) and return it, links resolved."""
    link = layout.state_dir / "postgres"
    if link.is_symlink():
        home = layout.postgres
        if not home.is_dir():
            raise BadState(
                f"the database of this state dir was in {home}, which is gone; "
                f"put it back, or move {layout.state_dir} away to start anew"
            )
    elif inside or account.is_caller:
        home = link
        home.mkdir(mode=0o700, exist_ok=True)
    elif link.exists():
        raise BadState(
            f"user {account.name} cannot reach the database in {link}; "
            f"let it enter the folders above, or name a user who can with --run-as"
        )
    else:
        home = _make_outside(layout, account)
    home.chmod(0o700)
    os.chown(home, account.uid, account.gid)
    if home != link:
        sockets = home / "run"
        sockets.mkdir(mode=0o700, exist_ok=True)
        os.chown(sockets, account.uid, account.gid)
    return home


def leftovers() -> list[Path]:
    """Places whose state dir is gone, for who may see them."""
    if os.geteuid() != 0 or not SYSTEM_DIR.is_dir():
        return []
    with _system_dir():
        return [place for place in sorted(SYSTEM_DIR.iterdir()) if _is_leftover(place)]


def remove_leftovers() -> list[Path]:
    """Remove places whose state dir is gone, ending a Postgres that still runs there. Returns what was removed."""
    if os.geteuid() != 0 or not SYSTEM_DIR.is_dir():
        return []
    removed = []
    with _system_dir():
        for place in sorted(SYSTEM_DIR.iterdir()):
            if _is_leftover(place):
                end(postgres_in(place), wait_s=5, number=signal.SIGQUIT)
                # its own stack may be removing it at this moment
                shutil.rmtree(place, ignore_errors=True)
                removed.append(place)
    return removed


def remove_place(layout: Layout) -> None:
    """Remove the place outside that belongs to a state dir about to be deleted. Nothing may run there any more."""
    known = _back_pointer(layout.postgres)
    if (layout.state_dir / "postgres").is_symlink() and known is not None and known[0] == layout.state_dir:
        shutil.rmtree(layout.postgres)


@contextmanager
def _system_dir() -> Iterator[None]:
    """Hold the folder of all places, so that nobody takes a place half made for a leftover."""
    with open(SYSTEM_DIR / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make_outside(layout: Layout, account: Account) -> Path:
    SYSTEM_DIR.mkdir(mode=0o711, parents=True, exist_ok=True)
    SYSTEM_DIR.chmod(0o711)
    with _system_dir():
        place = SYSTEM_DIR / secrets.token_hex(8)
        place.mkdir(mode=0o700)
        for name, known in ((FILE_SYSTEM, os.stat(layout.state_dir).st_dev), (BACK_POINTER, layout.state_dir)):
            (place / name).write_text(f"{known}\n")
            (place / name).chmod(0o600)
        (layout.state_dir / "postgres").symlink_to(place)
    return place


def _is_leftover(place: Path) -> bool:
    known = _back_pointer(place)
    if known is None:
        return False
    state_dir, device = known
    link = state_dir / "postgres"
    if link.is_symlink():
        return os.readlink(link) != str(place)
    # the nearest folder that is there must lie on the same file system, or that one is only not mounted
    near = next(folder for folder in (link, *link.parents) if folder.exists())
    return os.stat(near).st_dev == device


def _back_pointer(place: Path) -> tuple[Path, int] | None:
    try:
        path = Path((place / BACK_POINTER).read_text().rstrip("\n"))
        return path, int((place / FILE_SYSTEM).read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
