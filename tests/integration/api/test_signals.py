"""Signals between processes (two databases objects stand for them): woken at once, coalesced, and lost without harm."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import psycopg
import pytest

from app.db.engine import Database
from app.settings import Settings
from app.usecases import signals
from app.usecases.signals import CHANNEL, notify, payloads, signals_of
from tests.support.embedded import plain_url, wait_until


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    made = Database(settings.database_url)
    yield made
    signals_of(made).close()
    made.close()


@pytest.fixture
def other(settings: Settings) -> Iterator[Database]:
    made = Database(settings.database_url)
    yield made
    signals_of(made).close()
    made.close()


def test_another_process_is_woken(database: Database, other: Database) -> None:
    with signals_of(other).subscribe("task:1", "task:2") as waiter:
        # the listener's first act is to wake everybody
        assert waiter.wait(10)
        started = time.monotonic()
        notify(database, ["task:2", "events"])
        assert waiter.wait(10)
        assert time.monotonic() - started < 1
        notify(database, ["task:3"])
        assert not waiter.wait(0.2)


def test_the_own_process_is_woken_without_the_database(database: Database) -> None:
    with signals_of(database).subscribe("a") as waiter:
        notify(database, ["a"])
        assert waiter.wait(0)


def test_many_changes_travel_in_few_messages(database: Database, settings: Settings) -> None:
    heard: list[str] = []
    with psycopg.connect(plain_url(settings.database_url), autocommit=True) as listener:
        listener.execute(f"LISTEN {CHANNEL}")
        threads = [
            threading.Thread(target=lambda n=n: [notify(database, [f"t:{n}-{i}"]) for i in range(100)])
            for n in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wanted = {f"t:{n}-{i}" for n in range(5) for i in range(100)}

        def all_heard() -> bool:
            heard.extend(notice.payload for notice in listener.notifies(timeout=0.1))
            return {topic for payload in heard for topic in payload.split(",")} == wanted

        wait_until(all_heard, 10, "every topic")
    assert len(heard) < 100


def test_a_database_that_is_away_is_no_error(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "RECONNECT_S", 0.05)
    nowhere = Database("postgresql+psycopg://x:y@127.0.0.1:1/none")
    notify(nowhere, ["a"])
    with signals_of(nowhere).subscribe("b") as waiter:
        # woken by the failed connection, to look for itself
        assert waiter.wait(10)
    signals_of(nowhere).close()
    nowhere.close()


def test_payloads_fit() -> None:
    assert payloads([]) == []
    assert payloads(["a", "b"]) == ["a,b"]
    many = [f"replica:{number:012x}" for number in range(2000)]
    found = payloads(many)
    assert [topic for payload in found for topic in payload.split(",")] == many
    assert all(len(payload) <= signals.PAYLOAD_BYTES for payload in found)
    assert len(found) < 10
