"""Room for bodies: few at a time, a bounded queue, in their order."""

from __future__ import annotations

import threading

import pytest

from app.errors import RouteFull
from app.gateway.slow_lane.room import Place, Room
from tests.support.sayers import wait_for


def test_room_is_given_back_once() -> None:
    room = Room(10, 0, 1)
    first = room.take(6)
    with pytest.raises(RouteFull):
        room.take(5)
    first.shrink(5)
    second = room.take(5)
    first.leave()
    first.leave()
    room.take(5).leave()
    second.leave()
    room.take(10).leave()


def test_one_larger_than_all_the_room_has_it_alone() -> None:
    room = Room(10, 0, 1)
    place = room.take(1000)
    with pytest.raises(RouteFull):
        room.take(1)
    place.leave()
    room.take(10).leave()


def test_who_waits_is_let_in_by_turns() -> None:
    room = Room(10, 2, 30)
    place = room.take(10)
    order: list[str] = []
    held: list[Place] = []

    def enter(name: str, size: int) -> None:
        held.append(room.take(size))
        order.append(name)

    large = threading.Thread(target=enter, args=("large", 10))
    large.start()
    wait_for(lambda: len(room._waiting) == 1)
    small = threading.Thread(target=enter, args=("small", 1))
    small.start()
    wait_for(lambda: len(room._waiting) == 2)
    with pytest.raises(RouteFull) as refused:
        room.take(1)
    assert refused.value.retry_after_s
    place.shrink(9)
    # there is room for the small one, and the large one was first
    assert order == []
    place.leave()
    large.join()
    assert order == ["large"]
    held[0].leave()
    small.join()
    assert order == ["large", "small"]


def test_a_wait_that_is_too_long_is_given_up() -> None:
    room = Room(10, 1, 0.05)
    place = room.take(10)
    with pytest.raises(RouteFull):
        room.take(1)
    place.leave()
    room.take(10).leave()
