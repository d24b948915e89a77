"""An event as it is told: the body that the API shows, its place in the order, and what it was rendered to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from app.db.repos.events import Cursor

_COLUMNS: tuple[str, ...] = (
    "id",
    "at",
    "kind",
    "replica_id",
    "attempt",
    "task_id",
    "pool",
    "node",
    "actor",
    "cause",
    "from_state",
)
_COLUMNS += ("to_state", "reason", "message", "request_id", "data")


class Told(dict[str, Any]):
    """A body with its place. What it was rendered to is kept with it: thousands of streams send the same."""

    __slots__ = ("place", "rendered")

    def __init__(self, body: dict[str, Any], place: Cursor) -> None:
        super().__init__(body, id=f"{place[0]}-{place[1]}", service_id=(body.get("data") or {}).get("service_id"))
        self.place = place
        self.rendered: Any = None


def told(row: Any) -> Told:
    """A row of the events table."""
    found = row._mapping
    return Told({name: found[name] for name in _COLUMNS}, (found["xid"], found["id"]))


def reset(place: Cursor) -> Told:
    """In the place of what retention deleted: all up to ``place``. Not in the table, and not stored anywhere."""
    body = dict.fromkeys(_COLUMNS) | {
        "at": datetime.now(UTC),
        "kind": "reset",
        "actor": "hostler",
        "cause": "retention",
        "message": "Events up to here were kept long enough and are gone. List what there is now, then read on.",
        "request_id": "",
    }
    return Told(body, place)
