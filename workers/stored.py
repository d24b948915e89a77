"""What stores keep on this host (``Engine.keeps_data``): which folders there are, and the end of one nobody needs."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from dataclasses import replace

from app.settings import Settings
from app.stack.layout import Layout
from app.usecases.leaks import Leak

KIND = "store_data"
#: Taken by app/engines/programs/locked_storage.py for as long as a process has the folder open.
LOCK = ".lock"
_KEEPER = re.compile(r"[0-9a-f]{12}")


def folders(settings: Settings) -> dict[str, int]:
    """Bytes on disk of what each service or replica has stored, by its id."""
    top = Layout(settings.state_dir).data
    names = os.listdir(top) if top.is_dir() else []
    return {name: _size(top / name) for name in sorted(names) if _KEEPER.fullmatch(name)}


def remove(settings: Settings, leak: Leak) -> Leak:
    """Delete the folder, unless a process has it open."""
    folder = Layout(settings.state_dir).data / leak.name
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        return replace(leak, removed=False, error=str(error))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    except BlockingIOError:
        return replace(leak, removed=False, error="a process has it open")
    except OSError as error:
        return replace(leak, removed=False, error=str(error))
    finally:
        os.close(lock)
    return replace(leak, removed=True)


def _size(folder: os.PathLike[str]) -> int:
    found = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            try:
                found += os.lstat(os.path.join(parent, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return found
