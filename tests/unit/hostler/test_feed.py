from __future__ import annotations

import pytest

from hostler.errors import Unreachable
from hostler.feed import MOST_TRIES, Feed
from hostler.wire import Call


@pytest.fixture
def feed() -> Feed:
    return Feed(Call("GET", "/events", {"follow": 1}))


def test_it_goes_on_where_it_broke_off(feed: Feed) -> None:
    feed.opened()
    feed.take("transition", "{}", "7-1")
    feed.broke(None)
    assert feed.call.headers["Last-Event-ID"] == "7-1"
    assert feed.call.query == {"follow": 1}


def test_the_first_connection_is_tried_as_often_as_any_request(feed: Feed) -> None:
    feed.broke(Unreachable())
    feed.broke(Unreachable())
    with pytest.raises(Unreachable):
        feed.broke(Unreachable())


def test_later_ones_are_with_growing_pauses_and_not_for_ever(feed: Feed) -> None:
    feed.opened()
    pauses = [feed.broke(Unreachable()) for _ in range(MOST_TRIES - 1)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.2, 5.0)
    with pytest.raises(Unreachable):
        feed.broke(Unreachable())


def test_a_sign_of_life_starts_the_count_anew(feed: Feed) -> None:
    feed.opened()
    for _ in range(MOST_TRIES * 2):
        feed.broke(Unreachable())
        feed.take("log", "line", "")


def test_end_ends_it(feed: Feed) -> None:
    assert feed.take("end", "{}", "") is None
    assert feed.is_over()


def test_book_keeping_is_no_item_but_an_empty_line_is(feed: Feed) -> None:
    assert feed.take("message", "", "") is None
    item = feed.take("log", "", "")
    assert item is not None
    assert item.data == ""


@pytest.mark.parametrize("data", ["", "no json", "[1]"])
def test_data_that_is_no_object_is_an_empty_one(feed: Feed, data: str) -> None:
    item = feed.take("x", data, "")
    assert item is not None
    assert item.json() == {}


def test_an_orderly_end_may_be_the_end() -> None:
    logs = Feed(Call("GET", "/logs"), ends_when_closed=True)
    logs.opened()
    logs.broke(Unreachable())
    assert not logs.is_over()
    logs.broke(None)
    assert logs.is_over()


def test_without_ids_a_break_leaves_a_gap_and_with_them_none() -> None:
    logs = Feed(Call("GET", "/logs", {"tail": 5}), without_place={"tail": 0})
    logs.opened()
    logs.take("log", "one", "")
    logs.broke(Unreachable())
    assert (logs.gaps, logs.call.query) == (1, {"tail": 0})
    logs.take("log", "two", "7")
    logs.broke(Unreachable())
    assert (logs.gaps, logs.call.query) == (1, {"tail": 5})


def test_the_last_event_may_be_one_that_is_told() -> None:
    feed = Feed(Call("GET", "/events"), last_kind="replica_deleted")
    assert feed.take("replica_deleted", "{}", "9") is not None
    assert feed.is_over()
