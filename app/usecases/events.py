"""The history: record what happened, page through it, follow it without missing or repeating anything."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from app.db.engine import Database
from app.db.repos import events as repo
from app.db.repos import retention
from app.errors import InvalidConfig
from app.settings import Settings
from app.stack.urls import database_url
from app.usecases.context import Context
from app.usecases.feed import Feed
from app.usecases.signals import notify

#: Rows per query of a stream that catches up.
BATCH = 500
#: A stream that has nothing to say for this long yields None, so that its client hears a keep-alive.
QUIET_S = 10.0


def record_event(
    where: Context | Settings,
    kind: str,
    data: Mapping[str, Any] | None = None,
    *,
    message: str = "",
    cause: str = "stack",
    actor: str = "hostler",
    node: str | None = None,
    pool: str | None = None,
    replica_id: str | None = None,
) -> None:
    """Write one event in a transaction of its own. With bare Settings a connection is made just for it."""
    database = where.database if isinstance(where, Context) else _open(where)
    try:
        with database.begin() as connection:
            repo.insert(
                connection,
                kind=kind,
                actor=actor,
                cause=cause,
                message=message,
                node=node,
                pool=pool,
                replica_id=replica_id,
                data=data,
            )
        if isinstance(where, Context):
            notify(database, ["events"])
    finally:
        if not isinstance(where, Context):
            database.close()


def list_events(
    context: Context, filters: Mapping[str, str], limit: int, cursor: str | None, *, oldest_first: bool = False
) -> tuple[list[dict[str, Any]], str | None]:
    """(events, next cursor). Newest first goes into the past; oldest first goes on where ``cursor`` stood."""
    place = parse_cursor(cursor) if cursor else None
    with context.database.read() as connection:
        if oldest_first:
            rows = repo.behind(connection, place or (0, 0), filters, limit + 1)
        else:
            rows = repo.newest_first(connection, place, filters, limit + 1)
    found = [event_body(row) for row in rows[:limit]]
    return found, found[-1]["id"] if len(rows) > limit else None


def of_replica(
    context: Context, replica_id: str, limit: int, cursor: str | None
) -> tuple[list[dict[str, Any]], str | None]:
    """(events of one replica in the order they happened, next cursor); they outlive its record."""
    place = parse_cursor(cursor) if cursor else (0, 0)
    with context.database.read() as connection:
        rows = repo.of_replica(connection, replica_id, place[1], limit + 1)
    found = [event_body(row) for row in rows[:limit]]
    return found, found[-1]["id"] if len(rows) > limit else None


def follow(
    context: Context, filters: Mapping[str, str], last_event_id: str | None, quiet_s: float = QUIET_S
) -> Iterator[dict[str, Any] | None]:
    """Events behind ``last_event_id`` (None: from now on) for ever; None whenever it was quiet for ``quiet_s``.

    The process's one feed reads what is new for all streams. A client too slow for its bounded queue falls back to
    reading for itself from where it was, so it misses nothing and holds nothing. What retention deleted before it was
    read is gone: then a ``reset`` comes in its place, and the stream goes on with the oldest event that is kept.
    """
    # settled now and not when the answer is first read: what happens after the request is shown
    place = parse_cursor(last_event_id) if last_event_id else _end(context)
    return _follow(context, dict(filters), place, quiet_s)


def _follow(
    context: Context, filters: dict[str, str], place: repo.Cursor, quiet_s: float
) -> Iterator[dict[str, Any] | None]:
    feed = _feed_of(context.database)
    with feed.subscribe() as queue:
        while True:
            if queue.lagging:
                queue.restart()
                while True:
                    rows, kept_from = _read_behind(context, place, filters)
                    # (0, 0) asks for all that is kept and misses nothing
                    if (0, 0) < place < kept_from:
                        place = kept_from
                        yield _reset(place)
                        continue
                    if not rows:
                        break
                    for row in rows:
                        place = (row.xid, row.id)
                        yield event_body(row)
            row = queue.get(quiet_s)
            if row is None:
                feed.revive()
                yield None
            elif (row.xid, row.id) > place:
                place = (row.xid, row.id)
                if all(getattr(row, name) == value for name, value in filters.items()):
                    yield event_body(row)


def _end(context: Context) -> repo.Cursor:
    with context.database.read() as connection:
        return repo.settled_end(connection)


def _read_behind(context: Context, place: repo.Cursor, filters: Mapping[str, str]) -> tuple[list[Any], repo.Cursor]:
    """(rows, the history's beginning). Asked in this order: what was deleted while the rows were read is noticed."""
    with context.database.read() as connection:
        return repo.behind(connection, place, filters, BATCH), retention.horizon(connection)


def _reset(place: repo.Cursor) -> dict[str, Any]:
    nothing = dict.fromkeys(("replica_id", "attempt", "task_id", "pool", "node", "from_state", "to_state", "reason"))
    return nothing | {
        "id": f"{place[0]}-{place[1]}",
        "at": datetime.now(UTC),
        "kind": "reset",
        "actor": "hostler",
        "cause": "retention",
        "message": "Events up to here were kept long enough and are gone. List what there is now, then read on.",
        "request_id": "",
        "data": None,
    }


def parse_cursor(cursor: str) -> repo.Cursor:
    """``"<xid>-<id>"``. Raises InvalidConfig."""
    xid, dash, number = cursor.partition("-")
    if not (dash and xid.isascii() and xid.isdigit() and number.isascii() and number.isdigit()):
        raise _bad_cursor()
    place = int(xid[:20]), int(number[:20])
    if max(place) >= 2**63 or len(xid) > 20 or len(number) > 20:
        raise _bad_cursor()
    return place


def event_body(row: Any) -> dict[str, Any]:
    """An event as the API shows it; ``id`` is its cursor."""
    found = dict(row._mapping)
    found["id"] = f"{found.pop('xid')}-{found['id']}"
    return found


def _bad_cursor() -> InvalidConfig:
    return InvalidConfig(
        "cursor: not one of ours. Take the `id` of an event, or leave it out.",
        errors={"cursor": ["Must be the id of an event: <number>-<number>."]},
    )


def _open(settings: Settings) -> Database:
    return Database(database_url(settings), pool_size=1, application_name="hostler-events")


def _feed_of(database: Database) -> Feed:
    with _making:
        found = _feeds.get(database)
        if found is None:
            found = _feeds[database] = Feed(database)
        return found


_feeds: weakref.WeakKeyDictionary[Database, Feed] = weakref.WeakKeyDictionary()
_making = threading.Lock()
