"""The folder of one attempt that runs in a container, and the name that at most one launcher holds.

Beside the records of ``attempt_folder`` it holds ``lock``, which its launcher holds from before the folder has its name
until the container runs or is given up, and ``run-*/home``: the engine's files, the only part that it sees. The
container mounts exactly that folder, under a name that is made anew for every launch, and no daemon starts a container
whose mount is missing. So whoever renames ``run-*`` has revoked the launch: a launcher that was frozen and thaws starts
nothing. A file takes its place, for Podman makes folders that are missing when a container is made.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from workers.backends.attempt_folder import AttemptFolder, stage, write_private
from workers.backends.proc import boot_id

_RUN, _REVOKED, _HOME = "run-", "revoked-", "home"
#: A look at the lock takes it for an instant; who wants it for itself tries for a little longer than that.
_LOCK_S = 0.1


class ContainerFolder(AttemptFolder):
    """Its lock is held while it is being launched, not while it runs."""

    def is_overdue(self) -> bool:
        """Whether its launcher may not start it any more, as far as it said."""
        known = self.read("launch.json") or {}
        until = known.get("until")
        if known.get("boot_id") != boot_id():
            return True
        return until is not None and time.clock_gettime(time.CLOCK_BOOTTIME) > until

    def revoke(self) -> None:
        """Whatever was about to start it starts nothing any more; what runs goes on."""
        for run in self.path.glob(f"{_RUN}*"):
            while not run.is_file():
                with suppress(FileNotFoundError):
                    os.rename(run, run.with_name(f"{_REVOKED}{secrets.token_hex(4)}"))
                with suppress(FileExistsError):
                    os.close(os.open(run, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Hold its lock, if nobody else does and it is still the folder of that name: then True."""
        try:
            file = os.open(self.path / "lock", os.O_RDWR | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            yield False
            return
        try:
            yield _take(file) and is_own(self.path, file)
        finally:
            os.close(file)


class Claim:
    """A name that was taken, with its lock: only who holds it may start what runs under it."""

    def __init__(self, folder: ContainerFolder, home: Path, lock: int) -> None:
        self.folder = folder
        self.home = home
        self.lock = lock

    def holds(self) -> bool:
        """Whether the folder of that name is still the one that was claimed."""
        return is_own(self.folder.path, self.lock)

    def give_up(self) -> None:
        """Let the name go again: nothing was started under it."""
        if self.holds():
            self.folder.remove()

    def close(self) -> None:
        os.close(self.lock)


def claim(folder: ContainerFolder, files: Mapping[str, str], known: Mapping[str, Any]) -> Claim | None:
    """Take the name, which no folder may have: one rename shows the folder with everything in it, its lock held.

    None when somebody else was faster. Raises OSError.
    """
    staging = stage(folder.path.parent, folder.path.name, {}, known)
    lock = -1
    try:
        run = staging / f"{_RUN}{secrets.token_hex(8)}"
        run.mkdir(mode=0o700)
        home = run / _HOME
        home.mkdir(mode=0o700)
        for name, content in files.items():
            write_private(home / name, content)
        lock = os.open(staging / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            os.rename(staging, folder.path)
        except OSError:
            if not folder.exists():
                raise
            os.close(lock)
            shutil.rmtree(staging, ignore_errors=True)
            return None
    except OSError:
        if lock >= 0:
            os.close(lock)
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return Claim(folder, folder.path / run.name / _HOME, lock)


def is_own(path: Path, lock: int) -> bool:
    """Whether ``lock`` is that of the folder which has the name now."""
    try:
        return os.path.samestat(os.stat(path / "lock"), os.fstat(lock))
    except (FileNotFoundError, NotADirectoryError):
        return False


def _take(file: int) -> bool:
    until = time.monotonic() + _LOCK_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(0.005)
        else:
            return True
