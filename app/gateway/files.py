"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path


def write_file(path: Path, content: str, *, at_once: bool = True) -> None:
    """Replace ``path`` (0600) by a rename, after its content has reached the disk.

    Not ``at_once``: who calls sees to the disk later (``reach_disk``). Until then a power cut may leave the file as it
    was before, or empty; a process that dies loses nothing.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            if at_once:
                os.fsync(file.fileno())
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)


def reach_disk(paths: Iterable[Path]) -> None:
    """Return when what these files and folders hold would survive a power cut. One that is gone is left out."""
    for path in paths:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_file(path: Path) -> str | None:
    """What it holds, None when there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def mark_of(path: Path) -> tuple[int, int, int] | None:
    """What differs when the file was replaced or written to; None when there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
