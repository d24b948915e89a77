"""Who holds a key while the database is away."""

from __future__ import annotations

import threading

import pytest

from app.errors import Unavailable
from app.usecases import known_keys
from app.usecases.known_keys import CACHED_S, OUTAGE_S, Holder, KnownKeys
from tests.support.embedded import wait_until

READER = Holder("k1", "reader", "read", None)


class Database:
    """What is asked, and what it says; an answer of None is a key that has ended."""

    def __init__(self) -> None:
        self.holder: Holder | None = READER
        self.away = False
        self.asked = 0

    def __call__(self) -> Holder | None:
        self.asked += 1
        if self.away:
            raise Unavailable()
        return self.holder


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(known_keys.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def database() -> Database:
    return Database()


def test_it_is_asked_once_a_second(clock: list[float], database: Database) -> None:
    keys = KnownKeys()
    for _ in range(5):
        assert keys.holder("h", database) == READER
    assert database.asked == 1
    clock[0] += CACHED_S
    keys.holder("h", database)
    assert database.asked == 2


def test_what_was_known_lasts_over_an_outage_and_few_wait_for_it(clock: list[float], database: Database) -> None:
    keys = KnownKeys()
    keys.holder("h", database)
    database.away = True
    clock[0] += CACHED_S
    for _ in range(5):
        assert keys.holder("h", database) == READER
    assert database.asked == 2
    clock[0] += CACHED_S
    assert keys.holder("h", database) == READER
    assert database.asked == 3


def test_a_database_that_hangs_holds_one_look_up_and_no_request(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_keys, "CACHED_S", 0.0)
    monkeypatch.setattr(known_keys, "PATIENCE_S", 0.05)
    keys = KnownKeys()
    keys.holder("h", database)
    thawed, ended = threading.Event(), threading.Event()

    def hang() -> Holder | None:
        asked.append(1)
        thawed.wait(20)
        ended.set()
        return None

    asked: list[int] = []
    for _ in range(5):
        assert keys.holder("h", hang) == READER
    assert asked == [1]
    thawed.set()
    assert ended.wait(20)
    # what it said at last holds: the key had ended
    database.away = True
    with pytest.raises(Unavailable):
        wait_until(lambda: keys.holder("h", database) is None, 5, "the end of the key")


def test_a_defect_is_told(clock: list[float], database: Database) -> None:
    keys = KnownKeys()
    keys.holder("h", database)
    clock[0] += CACHED_S

    def broken() -> Holder | None:
        raise ValueError("a defect")

    with pytest.raises(ValueError, match="a defect"):
        keys.holder("h", broken)


def test_strangers_are_not_let_in(clock: list[float], database: Database) -> None:
    database.away = True
    keys = KnownKeys()
    with pytest.raises(Unavailable):
        keys.holder("h", database)


def test_not_for_ever(clock: list[float], database: Database) -> None:
    keys = KnownKeys()
    keys.holder("h", database)
    database.away = True
    clock[0] += OUTAGE_S
    with pytest.raises(Unavailable):
        keys.holder("h", database)


def test_a_key_ends_when_it_ends(clock: list[float], database: Database) -> None:
    database.holder = Holder("k1", "reader", "read", None, ends_in_s=5.0)
    keys = KnownKeys()
    keys.holder("h", database)
    database.away = True
    clock[0] += 4
    assert keys.holder("h", database) is not None
    clock[0] += 1
    with pytest.raises(Unavailable):
        keys.holder("h", database)


def test_what_was_called_ended_is_known_no_more(clock: list[float], database: Database) -> None:
    keys = KnownKeys()
    keys.holder("h", database)
    clock[0] += CACHED_S
    database.holder = None
    assert keys.holder("h", database) is None
    database.away = True
    with pytest.raises(Unavailable):
        keys.holder("h", database)


def test_when_it_is_back_it_is_asked_again(clock: list[float], database: Database) -> None:
    keys = KnownKeys()
    keys.holder("h", database)
    database.away = True
    clock[0] += CACHED_S
    keys.holder("h", database)
    database.away, database.holder = False, None
    clock[0] += CACHED_S
    assert keys.holder("h", database) is None
