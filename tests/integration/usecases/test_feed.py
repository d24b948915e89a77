"""The feed spares the table: whoever opens, lags or comes back finds the newest events in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event, text

from app.db.engine import Database
from app.settings import Settings
from app.usecases import events, feed
from app.usecases.context import Context
from tests.support.embedded import wait_until


@pytest.fixture
def ctx(settings: Settings) -> Iterator[Context]:
    context = Context(settings, Database(settings.database_url))
    yield context
    context.close()


@contextmanager
def asked(ctx: Context) -> Iterator[list[str]]:
    """The statements about events that are sent meanwhile."""
    found: list[str] = []

    def take(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if "FROM events" in statement:
            found.append(statement)

    event.listen(ctx.database._engine, "before_cursor_execute", take)
    try:
        yield found
    finally:
        event.remove(ctx.database._engine, "before_cursor_execute", take)


def write(ctx: Context, first: int, count: int, pool: str = "p") -> None:
    with ctx.database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO events (kind, actor, cause, pool, data) SELECT 'test', 'a', 'c', :pool,"
                " jsonb_build_object('number', n) FROM generate_series(CAST(:first AS int), CAST(:last AS int)) AS n"
            ),
            {"first": first, "last": first + count - 1, "pool": pool},
        )
    ctx.notify("events")


def numbers(stream: Iterator[Any], count: int) -> list[int]:
    return [next(one for one in stream if one is not None)["data"]["number"] for _ in range(count)]


def read_up_to(ctx: Context, count: int) -> None:
    """Until the feed has read so many events."""
    found = events._feed_of(ctx)
    wait_until(lambda: len(found._recent) >= count, 10, f"{count} events in memory")


def test_streams_that_come_back_ask_nothing(ctx: Context) -> None:
    write(ctx, 0, 20)
    first = events.follow(ctx, {}, "0-0", 0.1)
    place = next(one for one in first if one is not None)["id"]
    read_up_to(ctx, 20)
    with asked(ctx) as statements:
        for _ in range(30):
            again = events.follow(ctx, {"pool": "p"}, place, 0.1)
            assert numbers(again, 19) == list(range(1, 20))
            again.close()
    # the feed itself looks now and then
    assert len(statements) < 10
    first.close()


def test_a_stream_that_lags_by_thousands_finds_them_in_memory(ctx: Context) -> None:
    write(ctx, 0, 1)
    stream = events.follow(ctx, {}, "0-0", 0.1)
    assert numbers(stream, 1) == [0]
    write(ctx, 1, 5 * feed.QUEUE_ROWS)
    read_up_to(ctx, 5 * feed.QUEUE_ROWS + 1)
    with asked(ctx) as statements:
        assert numbers(stream, 5 * feed.QUEUE_ROWS) == list(range(1, 5 * feed.QUEUE_ROWS + 1))
    assert not [one for one in statements if "AS settled" not in one], "it read the table for itself"
    stream.close()


def test_what_is_older_than_the_memory_comes_from_the_table(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "RECENT_ROWS", 50)
    monkeypatch.setattr(feed, "FIRST_ROWS", 20)
    write(ctx, 0, 1200)
    stream = events.follow(ctx, {}, "0-0", 0.1)
    assert numbers(stream, 1200) == list(range(1200))
    write(ctx, 1200, 700)
    assert numbers(stream, 700) == list(range(1200, 1900))
    stream.close()


def test_a_filter_is_kept_in_memory_and_in_the_table(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "FIRST_ROWS", 20)
    for number in range(0, 60, 2):
        write(ctx, number, 1, "p")
        write(ctx, number + 1, 1, "q")
    stream = events.follow(ctx, {"pool": "q"}, "0-0", 0.1)
    assert numbers(stream, 30) == list(range(1, 60, 2))
    write(ctx, 60, 5, "p")
    write(ctx, 65, 5, "q")
    assert numbers(stream, 5) == list(range(65, 70))
    stream.close()


def test_the_more_streams_the_rarer_it_reads(ctx: Context) -> None:
    found = feed.Feed(ctx.database, processes=2)
    assert found._pace_s == 0
    found._queues = {feed.Queue({}, (0, 0)) for _ in range(5)}
    assert found._pace_s == pytest.approx(0.3)
    found._queues = {feed.Queue({}, (0, 0)) for _ in range(1000)}
    # both processes together: less than one a second
    assert 2 / found._pace_s < 1
