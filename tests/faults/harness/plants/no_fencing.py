"""A lease that fences nothing: whoever once held a task goes on as if he still did.

Taken out: the token in the write that moves a replica, the token in every write to the task (the one that is stored is
taken for the caller's own), and the holder's look at his own clock before each outside step. Left in: the guard by
state and attempt, and the shim's rename, which keeps even such a worker from a second engine under the same name.
What goes wrong is what a worker does that froze for longer than its lease: it takes its successor's engine for a
stranger on its port and swaps the port under it, or fails or queues again what another one carries out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import text

_FENCE = " AND t.lease_token = m.lease_token"


def _unfence(statement: Any) -> Any:
    assert _FENCE in statement.text
    return text(statement.text.replace(_FENCE, ""))


def _take_any_token(original: Callable[..., Any]) -> Callable[..., Any]:
    def unfenced(connection: Any, task_id: str, lease_token: str, *arguments: Any, **named: Any) -> Any:
        query = text("SELECT CAST(lease_token AS text) FROM tasks WHERE id = :id")
        stored = connection.execute(query, {"id": task_id}).scalar()
        return original(connection, task_id, stored or lease_token, *arguments, **named)

    return unfenced


PATCHES: dict[str, Callable[[Any], Any]] = {
    "app.db.repos.replicas:_MOVE": _unfence,
    "app.db.repos.tasks:renew": _take_any_token,
    "app.db.repos.tasks:lock_held": _take_any_token,
    "app.db.repos.tasks:set_phase": _take_any_token,
    "app.db.repos.tasks:put_back": _take_any_token,
    "workers.keeper:Keeper.held": lambda _: property(lambda keeper: True),
    "workers.keeper:Keeper.left_s": lambda _: property(lambda keeper: float(keeper._lease_s)),
}
