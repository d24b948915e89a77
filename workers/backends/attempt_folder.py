"""The folder of one attempt: what is in it, who may read it (0700), and what its presence proves.

It is made under another name and appears under its own by one ``rename``, done by the shim just before it starts the
engine. So a folder means *launched, by whomever*; none means *never launched*. In it:

``lock``         flock held by the engine and all that inherited its descriptors: something lives
``shim.json``    pid and start time of the shim; ``shim.lock`` keeps it the only one
``engine.json``  pid and start time of the engine, written by itself before its program starts
``launch.json``  what the launcher knew: address, bound of the log, boot id
``stop.json``    when it was first asked to end, and what was done about it
``exit.json``    how the engine ended
``out``          FIFO from the engine to the shim; ``log.1`` and ``log`` are what came out of it, oldest first
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

RESERVED = frozenset({"lock", "out", "log", "log.1", "shim.lock"})
RECORDS = frozenset({"shim.json", "engine.json", "launch.json", "stop.json", "exit.json"})
#: Folders that a killed launcher left half made are removed when they are older than this.
STALE_S = 600.0
#: Names of folders that are being made or removed; no attempt is called like this.
_STAGED, _LEAVING = ".new-", ".gone-"


class AttemptFolder:
    """Reads and writes the records of one attempt. Nothing is cached: other processes write too."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def exists(self) -> bool:
        return self.path.is_dir()

    def read(self, record: str) -> dict[str, Any] | None:
        """A record, or None when there is none (or a power cut left it empty)."""
        try:
            value = json.loads((self.path / record).read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def write(self, record: str, value: Mapping[str, Any]) -> None:
        """Replace a record as a whole."""
        os.rename(self._draft(record, value), self.path / record)

    def write_once(self, record: str, value: Mapping[str, Any]) -> dict[str, Any]:
        """The record as the first writer left it, which may be us."""
        draft = self._draft(record, value)
        try:
            os.link(draft, self.path / record)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
        return self.read(record) or dict(value)

    def seal(self) -> bool:
        """Take the name, so that a launcher still on its way to it starts nothing. False: that launcher was faster."""
        staging = stage(self.path.parent, self.path.name, {}, {})
        AttemptFolder(staging).write("exit.json", {"sealed": True, "ended_at": time.time()})
        try:
            os.rename(staging, self.path)
        except OSError:
            shutil.rmtree(staging, ignore_errors=True)
            return self.is_sealed()
        return True

    def is_sealed(self) -> bool:
        """Whether it was stopped before it was launched."""
        return bool((self.read("exit.json") or {}).get("sealed"))

    def is_held(self) -> bool:
        """Whether anything that inherited the engine's lock lives. Shared, so that two may ask at once."""
        try:
            file = os.open(self.path / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(file)

    def remove(self) -> None:
        """Take its name away in one step, then its content."""
        leaving = Path(tempfile.mkdtemp(prefix=_LEAVING, dir=self.path.parent))
        with suppress(FileNotFoundError):
            os.rename(self.path, leaving)
        shutil.rmtree(leaving, ignore_errors=True)

    def _draft(self, record: str, value: Mapping[str, Any]) -> Path:
        file, path = tempfile.mkstemp(prefix=f"{record}.", suffix=".new", dir=self.path)
        with os.fdopen(file, "w", encoding="utf-8") as draft:
            json.dump(value, draft)
        return Path(path)


def stage(attempts: Path, name: str, files: Mapping[str, str], launch: Mapping[str, Any]) -> Path:
    """A new private folder with the engine's files and ``launch.json``, not yet under its own name."""
    attempts.mkdir(mode=0o700, parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f"{_STAGED}{name}-", dir=attempts))
    try:
        for file, content in {**files, "launch.json": json.dumps(launch)}.items():
            write_private(staging / file, content)
    except OSError:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return staging


def names(attempts: Path) -> Iterator[str]:
    """The attempts that have a folder."""
    if attempts.is_dir():
        yield from (entry.name for entry in os.scandir(attempts) if not entry.name.startswith("."))


def half_made(attempts: Path, older_than: float) -> list[Path]:
    """What killed launchers and closers left before ``older_than`` (seconds of the epoch), and seals as old.

    No launch takes that long, so nobody is on the way to a name that was sealed then.
    """
    if not attempts.is_dir():
        return []
    found = []
    for entry in os.scandir(attempts):
        try:
            if not entry.is_dir() or entry.stat().st_mtime >= older_than:
                continue
        except FileNotFoundError:
            # somebody else removes it at this moment
            continue
        path = Path(entry.path)
        if entry.name.startswith((_STAGED, _LEAVING)) or AttemptFolder(path).is_sealed():
            found.append(path)
    return found


def tidy(attempts: Path, *, dry_run: bool) -> list[str]:
    """Remove what is half made and stale; returns the names of its folders, or of those that would go."""
    found = half_made(attempts, older_than=time.time() - STALE_S)
    for path in found if not dry_run else []:
        if path.name.startswith((_STAGED, _LEAVING)):
            shutil.rmtree(path, ignore_errors=True)
        else:
            AttemptFolder(path).remove()
    return sorted(path.name for path in found)


def write_private(path: Path, content: str | bytes) -> None:
    """A new file that only its owner can read. Raises FileExistsError when there is one."""
    data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
