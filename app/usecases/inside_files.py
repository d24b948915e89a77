"""Reading a small file of a folder that others may have put links, pipes and folders into."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path


class NotInside(ValueError):
    """It is not a plain file of the folder. The message says what it is, as the end of a sentence with "it"."""


@dataclass(frozen=True)
class Opened:
    """What was read, and where it truly lies. ``raw`` is at most one byte longer than was asked for."""

    raw: bytes
    place: Path
    seen: os.stat_result


def read_inside(root: Path, path: Path, largest: int) -> Opened:
    """The first ``largest`` bytes, and one more where there is more. Raises NotInside, OSError.

    All is asked of what was opened: whatever links are changed meanwhile, nothing outside of ``root`` is read.
    """
    # neither a pipe nor a device may hold us up
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        seen = os.fstat(descriptor)
        if not stat.S_ISREG(seen.st_mode):
            raise NotInside("is no file")
        place = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if not place.is_relative_to(os.path.realpath(root)):
            raise NotInside("is a link that leads out of the folder")
        return Opened(_read(descriptor, largest + 1), place, seen)
    finally:
        os.close(descriptor)


def others_may_write(seen: os.stat_result) -> bool:
    """Whether the group or others may."""
    return bool(seen.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def is_ours(seen: os.stat_result) -> bool:
    """Whether it belongs to root or to whom Hostler runs as."""
    return seen.st_uid in (0, os.geteuid())


def _read(descriptor: int, most: int) -> bytes:
    parts, left = [], most
    while left and (part := os.read(descriptor, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
