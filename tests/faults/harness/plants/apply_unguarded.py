"""Writes that do not look where they stand: a step is applied whatever state and attempt the replica is in by now.

Taken out: ``state = path[1] AND attempt = attempt`` in the one write that moves replicas. Left in: the lifecycle table,
which only knows what the writer believed, and the fence of a worker that holds the task.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import text

_GUARD = " AND r.state = m.path[1] AND r.attempt = m.attempt"


def _unguard(statement: Any) -> Any:
    assert _GUARD in statement.text
    return text(statement.text.replace(_GUARD, ""))


PATCHES: dict[str, Callable[[Any], Any]] = {"app.db.repos.replicas:_MOVE": _unguard}
