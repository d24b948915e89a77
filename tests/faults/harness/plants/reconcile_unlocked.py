"""Who brings a service on does not hold it: two that look at one moment both make what is missing.

Taken out: the lock of the service's row, of users and of reconcilers. Between the look and the act passes ``ACT_S``, as
it may on a busy machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

ACT_S = 0.4


def _lock_nothing(original: Callable[[str], Any]) -> Callable[[str], Any]:
    def unlocked(statement: str) -> Any:
        return original(statement.replace(" FOR NO KEY UPDATE SKIP LOCKED", "").replace(" FOR NO KEY UPDATE", ""))

    return unlocked


def _plan_slowly(original: Callable[..., Any]) -> Callable[..., Any]:
    def plan(*arguments: Any, **named: Any) -> Any:
        found = original(*arguments, **named)
        if found.actions:
            time.sleep(ACT_S)
        return found

    return plan


PATCHES: dict[str, Callable[[Any], Any]] = {
    "app.db.repos.services:text": _lock_nothing,
    "app.domain.services:plan": _plan_slowly,
}
