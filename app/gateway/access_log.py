"""Keeps the access log bounded. HAProxy holds the file open and appends, so it is copied and cut, never moved."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

#: With its one copy: what a busy hour may take of the disk.
MOST_BYTES = 64 * 1024 * 1024


def rotate(path: Path, most_bytes: int = MOST_BYTES) -> bool:
    """Copy ``path`` to ``<name>.1`` and cut it when it is larger than ``most_bytes``; whether it was.

    Lines written between copy and cut are lost: a log of traffic, not of record. Raises OSError.
    """
    try:
        if path.stat().st_size <= most_bytes:
            return False
    except FileNotFoundError:
        return False
    kept, draft = path.with_name(f"{path.name}.1"), path.with_name(f".{path.name}.1.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(path, "rb") as source, os.fdopen(descriptor, "wb") as target:
        shutil.copyfileobj(source, target)
    draft.rename(kept)
    os.truncate(path, 0)
    return True
