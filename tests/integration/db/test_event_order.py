"""Trap 16: two transactions that commit in reverse order; every reader of events sees both, once, in one order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from app.db.engine import Database
from app.db.repos import events as repo
from app.settings import Settings
from app.usecases import events
from app.usecases.context import Context
from tests.support.embedded import plain_url, wait_until

INSERT = "INSERT INTO events (kind, actor, cause) VALUES (%s, 'x', 'test')"


@pytest.fixture
def ctx(settings: Settings) -> Iterator[Context]:
    context = Context(settings, Database(settings.database_url))
    yield context
    context.close()


@pytest.fixture
def reversed_commits(ctx: Context) -> Iterator[tuple[psycopg.Connection, psycopg.Connection]]:
    """Two open transactions: the first has the smaller event id and is not committed yet, the second is."""
    with psycopg.connect(plain_url(ctx.database.url)) as first, psycopg.connect(plain_url(ctx.database.url)) as second:
        first.execute(INSERT, ["early"])
        second.execute(INSERT, ["late"])
        second.commit()
        yield first, second


def _behind(ctx: Context, place: repo.Cursor = (0, 0)) -> list[Any]:
    with ctx.database.read() as connection:
        return repo.behind(connection, place, {}, 100)


def test_what_committed_first_waits_for_what_began_first(ctx: Context, reversed_commits: Any) -> None:
    first, _ = reversed_commits
    with ctx.database.read() as connection:
        assert repo.settled_behind(connection, (0, 0), 10) == ([], True)
    assert _behind(ctx) == [], "a reader that passed `late` would never see `early`"
    first.commit()
    assert [row.kind for row in _behind(ctx)] == ["early", "late"]


def test_a_reader_that_goes_on_from_each_row_sees_both_once(ctx: Context, reversed_commits: Any) -> None:
    first, _ = reversed_commits
    seen: list[str] = []
    place: repo.Cursor = (0, 0)

    def read_on() -> bool:
        nonlocal place
        for row in _behind(ctx, place):
            seen.append(row.kind)
            place = (row.xid, row.id)
        return len(seen) >= 2

    read_on()
    first.commit()
    wait_until(read_on, 10, "both events")
    assert seen == ["early", "late"]


def test_a_replicas_events_are_told_as_they_happened(ctx: Context) -> None:
    """The one that began first waits for the replica's row, and so writes its step second."""
    of_replica = "INSERT INTO events (kind, replica_id, actor, cause) VALUES (%s, 'aaaaaaaaaaaa', 'x', 'test')"
    with psycopg.connect(plain_url(ctx.database.url)) as first, psycopg.connect(plain_url(ctx.database.url)) as second:
        first.execute(INSERT, ["began first"])
        second.execute(of_replica, ["step 1"])
        second.commit()
        first.execute(of_replica, ["step 2"])
        assert _behind(ctx) == [], "step 1 would be passed before step 2 is there"
        first.commit()
    assert [row.kind for row in _behind(ctx)] == ["began first", "step 1", "step 2"]


def test_a_rolled_back_one_holds_nothing_up(ctx: Context, reversed_commits: Any) -> None:
    first, _ = reversed_commits
    first.rollback()
    assert [row.kind for row in _behind(ctx)] == ["late"]


def test_a_stream_shows_both(ctx: Context, reversed_commits: Any) -> None:
    first, _ = reversed_commits
    stream = events.follow(ctx, {}, "0-0", quiet_s=0.1)
    assert next(stream) is None, "nothing is settled yet"
    first.commit()
    seen: list[str] = []

    def read_on() -> bool:
        event = next(stream)
        if event is not None:
            seen.append(event["kind"])
        return len(seen) == 2

    wait_until(read_on, 10, "both events on the stream")
    assert seen == ["early", "late"]
    stream.close()


def test_a_list_shows_what_is_committed_now(ctx: Context, reversed_commits: Any) -> None:
    first, _ = reversed_commits
    found, _ = events.list_events(ctx, {}, 10, None)
    assert [event["kind"] for event in found] == ["late"]
    first.commit()
    found, _ = events.list_events(ctx, {}, 10, None)
    assert sorted(event["kind"] for event in found) == ["early", "late"]
