"""What the hub said is kept for a while, and in bounds."""

from __future__ import annotations

import pytest

from app.errors import HubUnavailable
from app.hub.shelf import Shelf


def test_it_is_kept_for_a_while() -> None:
    now, looked = [0.0], list[int]()
    shelf = Shelf(kept_s=10, clock=lambda: now[0])

    def look() -> int:
        looked.append(1)
        return len(looked)

    assert [shelf.get("a", look), shelf.get("a", look)] == [1, 1]
    now[0] = 9.9
    assert shelf.get("a", look) == 1
    now[0] = 10
    assert shelf.get("a", look) == 2


def test_what_failed_is_not() -> None:
    shelf = Shelf()

    def fail() -> int:
        raise HubUnavailable

    for _ in range(2):
        with pytest.raises(HubUnavailable):
            shelf.get("a", fail)
    assert shelf.get("a", lambda: 5) == 5


def test_it_holds_no_more_models_than_it_may() -> None:
    shelf, looked = Shelf(most=10), list[str]()

    def ask(key: str, models: int) -> None:
        def look() -> list[int]:
            looked.append(key)
            return [0] * models

        shelf.get(key, look)

    ask("a", 4)
    ask("b", 4)
    ask("b", 4)
    assert looked == ["a", "b"]
    # the oldest goes first
    ask("c", 4)
    ask("b", 4)
    ask("a", 4)
    assert looked == ["a", "b", "c", "a"]
    # one that is larger than all there may be is not kept
    ask("d", 20)
    ask("d", 20)
    assert looked[4:] == ["d", "d"]
