"""Who listens on a port of this host, asked before the key of a state dir is sent there.

A stack that was killed leaves its address behind; on a shared host another user may wait there for the key.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTEN = "0A"


def foreign_listener(port: int, state_dir: Path) -> int | None:
    """The user id that listens on ``port`` and is neither we, nor the state dir's owner, nor root; None if none is.

    None too where the kernel does not tell (no /proc): then nothing is known against it.
    """
    trusted = {0, os.geteuid(), _owner(state_dir)}
    return next((uid for uid in _listeners(port) if uid not in trusted), None)


def _owner(folder: Path) -> int:
    try:
        return folder.stat().st_uid
    except OSError:
        return os.geteuid()


def _listeners(port: int) -> Iterator[int]:
    suffix = f":{port:04X}"
    for table in _TABLES:
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            # sl local_address rem_address st tx:rx tr:when retrnsmt uid ...
            fields = line.split(None, 8)
            if len(fields) > 7 and fields[3] == _LISTEN and fields[1].endswith(suffix):
                yield int(fields[7])
