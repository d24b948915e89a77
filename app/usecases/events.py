"""The history: record what happened, page through it, follow it without missing or repeating anything."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

from app.db.engine import Database
from app.db.repos import events as repo
from app.db.repos import retention
from app.errors import InvalidConfig
from app.settings import Settings
from app.stack.urls import database_url
from app.usecases.context import Context
from app.usecases.feed import Feed, Queue
from app.usecases.signals import notify
from app.usecases.told import Told, reset, told

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
) -> tuple[list[Told], str | None]:
    """(events, next cursor). Newest first goes into the past; oldest first goes on where ``cursor`` stood."""
    place = parse_cursor(cursor) if cursor else None
    with context.database.read() as connection:
        if oldest_first:
            rows = repo.behind(connection, place or (0, 0), filters, limit + 1)
        else:
            rows = repo.newest_first(connection, place, filters, limit + 1)
    found = [told(row) for row in rows[:limit]]
    return found, found[-1]["id"] if len(rows) > limit else None


def of_replica(context: Context, replica_id: str, limit: int, cursor: str | None) -> tuple[list[Told], str | None]:
    """(events of one replica in the order they happened, next cursor); they outlive its record."""
    place = parse_cursor(cursor) if cursor else (0, 0)
    with context.database.read() as connection:
        rows = repo.of_replica(connection, replica_id, place[1], limit + 1)
    found = [told(row) for row in rows[:limit]]
    return found, found[-1]["id"] if len(rows) > limit else None


def follow(
    context: Context, filters: Mapping[str, str], last_event_id: str | None, quiet_s: float = QUIET_S
) -> Iterator[Told | None]:
    """Events behind ``last_event_id`` (None: from now on) for ever; None whenever it was quiet for ``quiet_s``.

    The process's one feed reads what is new for all streams and remembers the newest. A client too slow for its bounded
    queue gets the rest from there, and one that comes back for what is older reads for itself: it misses nothing and
    holds little. What retention deleted before it was read is gone: then a ``reset`` comes in its place, and the stream
    goes on with the oldest event that is kept.
    """
    # settled now and not when the answer is first read: what happens after the request is shown
    place = parse_cursor(last_event_id) if last_event_id else _end(context)
    return _follow(context, dict(filters), place, quiet_s)


def _follow(context: Context, filters: dict[str, str], place: repo.Cursor, quiet_s: float) -> Iterator[Told | None]:
    feed = _feed_of(context)
    with feed.subscribe(filters, place) as queue:
        while True:
            new = queue.get(quiet_s)
            if new is not None:
                # what was read from the table comes once more when the feed gets there
                if new.place > place:
                    place = new.place
                    yield new
            elif not queue.lagging:
                feed.revive()
                yield None
            elif not feed.resume(queue):
                for old in _read_behind(context, feed, queue, filters):
                    place = old.place
                    yield old


def _read_behind(context: Context, feed: Feed, queue: Queue, filters: Mapping[str, str]) -> Iterator[Told]:
    """What happened before all that the feed remembers: one batch of it. ``queue.behind`` is where it ends."""
    with feed.reading(), context.database.read() as connection:
        end = repo.settled_end(connection)
        rows = repo.behind(connection, queue.behind, filters, BATCH)
        # asked last: what was deleted while the rows were read is noticed
        kept_from = retention.horizon(connection)
    # (0, 0) asks for all that is kept and misses nothing
    if (0, 0) < queue.behind < kept_from:
        queue.behind = kept_from
        yield reset(kept_from)
        return
    found = [told(row) for row in rows]
    last = found[-1].place if found else queue.behind
    queue.behind = last if len(rows) == BATCH else max(last, end)
    yield from found


def _end(context: Context) -> repo.Cursor:
    with context.database.read() as connection:
        return repo.settled_end(connection)


def parse_cursor(cursor: str) -> repo.Cursor:
    """``"<xid>-<id>"``. Raises InvalidConfig."""
    xid, dash, number = cursor.partition("-")
    if not (dash and xid.isascii() and xid.isdigit() and number.isascii() and number.isdigit()):
        raise _bad_cursor()
    place = int(xid[:20]), int(number[:20])
    if max(place) >= 2**63 or len(xid) > 20 or len(number) > 20:
        raise _bad_cursor()
    return place


def _bad_cursor() -> InvalidConfig:
    return InvalidConfig(
        "cursor: not one of ours. Take the `id` of an event, or leave it out.",
        errors={"cursor": ["Must be the id of an event: <number>-<number>."]},
    )


def _open(settings: Settings) -> Database:
    return Database(database_url(settings), pool_size=1, application_name="hostler-events")


def _feed_of(context: Context) -> Feed:
    with _making:
        found = _feeds.get(context.database)
        if found is None:
            found = _feeds[context.database] = Feed(context.database, context.settings.web_workers)
        return found


_feeds: weakref.WeakKeyDictionary[Database, Feed] = weakref.WeakKeyDictionary()
_making = threading.Lock()
