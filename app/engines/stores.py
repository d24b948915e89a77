"""What the two engines of Qdrant's API have in common: where the data lie, for whom alone, and how one asks them.

A store keeps its data in ``EngineRequest.data_dir``, which outlives the attempt. A lock on that folder is taken before
the program starts and ends with its last process: what replaces a store waits for the one before it, and two never have
the same files open.
"""

from __future__ import annotations

import sys
from pathlib import Path

from app.engines.base import EngineRequest, ExitCause, HttpCheck
from app.errors import InvalidConfig

_LOCKED = Path(__file__).parent / "programs" / "locked_storage.py"
#: Longer than what ends is given to finish its requests and to write down what it holds; then it is killed.
LOCK_WAIT_S = 300

#: 200 once the collections are loaded.
READY = HttpCheck("ready", "/readyz")
#: The least that goes through what holds the collections.
COLLECTIONS = HttpCheck("collections", "/collections", expect="json")


def storage_of(request: EngineRequest) -> str:
    """The folder of the data. Raises InvalidConfig."""
    if request.data_dir is None:
        raise InvalidConfig("This engine keeps data, and nobody said where. Create it through Hostler's API.")
    return str(request.data_dir)


def locked(storage: str, argv: tuple[str, ...]) -> tuple[str, ...]:
    """``argv``, once no other process has the storage open."""
    return (sys.executable, "-I", "-S", str(_LOCKED), storage, str(LOCK_WAIT_S), *argv)


def cause_of_exit(log_tail: str, missing: str = "") -> ExitCause | None:
    """Why it never served: its folder is another's, or the program is not there (``missing`` says what to install)."""
    for line in reversed(log_tail.splitlines()):
        if missing and line.startswith("storage: cannot run "):
            return ExitCause("launch_failed", missing)
        if line.startswith(("storage: cannot ", "storage: another ", "qdrant-edge: cannot ")):
            return ExitCause("launch_failed", line.partition(": ")[2])
    return None
