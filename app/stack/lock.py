"""One `up` or `down` at a time per state dir."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from app.stack.errors import Busy
from app.stack.layout import Layout

_LOOK_S = 0.1


@contextmanager
def locked(state_dir: Path, say: Callable[[str], None], *, wait_s: float = 90) -> Iterator[None]:
    """Hold the state dir's lock. Raises Busy when another command holds it for longer than ``wait_s``.

    The kernel lets go of it when its holder dies, and the processes we start do not inherit it.
    """
    with open(Layout(state_dir).lock, "a") as file:
        deadline, told = time.monotonic() + wait_s, False
        while not _try(file.fileno()):
            if not told:
                say("another `hostler up` or `down` works on this state dir; waiting for it")
                told = True
            if time.monotonic() > deadline:
                raise Busy(f"another `hostler up` or `down` has held {file.name} for {wait_s:.0f} s; see `ps`")
            time.sleep(_LOOK_S)
        yield


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
