"""Of a gang whoever finds room goes ahead: each member takes its own capacity, and the others wait for theirs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _each_for_itself(original: Callable[..., Any]) -> Callable[..., Any]:
    def lock(connection: Any, gang: str, task_id: str) -> Any:
        members, complete = original(connection, gang, task_id)
        return [member for member in members if member.task_id == task_id], complete

    return lock


PATCHES: dict[str, Callable[[Any], Any]] = {"app.usecases.gangs:_lock": _each_for_itself}
