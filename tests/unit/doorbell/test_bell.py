"""How often a bell rings: at once, then ever less often while rings follow each other, and never not at all."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from app.doorbell import bell
from app.doorbell.bell import Doorbell
from tests.support.embedded import wait_until


@pytest.fixture
def rung(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, str]]:
    """(when, queue) of everything that was published."""
    found: list[tuple[float, str]] = []

    def publish(_: Doorbell, rings: Any) -> bool:
        found.extend((time.monotonic(), queue) for (_, queue), _ in rings)
        return True

    monkeypatch.setattr(Doorbell, "_publish", publish)
    return found


def test_the_first_ring_is_at_once_and_other_queues_do_not_wait(rung: list[tuple[float, str]]) -> None:
    door = Doorbell(None)  # type: ignore[arg-type]
    started = time.monotonic()
    for _ in range(3):
        door.ring("create", "pool.a", pool="a")
    door.ring("stop", "pool.a.control", pool="a")
    wait_until(lambda: {queue for _, queue in rung} == {"pool.a", "pool.a.control"}, 5, "both rings")
    assert min(when for when, _ in rung) - started < bell.WIDEST_GAP_S


def test_a_flood_is_few_rings_and_its_last_one_is_heard(rung: list[tuple[float, str]]) -> None:
    door = Doorbell(None)  # type: ignore[arg-type]
    stop = threading.Event()

    def flood() -> None:
        while not stop.wait(0.001):
            door.ring("create", "pool.a", pool="a")

    thread = threading.Thread(target=flood)
    started = time.monotonic()
    thread.start()
    wait_until(lambda: len(rung) >= 12, 10, "a dozen rings")
    stop.set()
    thread.join()
    took_s = rung[11][0] - started
    # 5 + 10 + 20 + 40 + 80 + 6 * 100 ms lie between twelve rings
    assert took_s > 0.6
    last = time.monotonic()
    door.ring("create", "pool.a", pool="a")
    wait_until(lambda: rung[-1][0] > last, 5, "the last ring")


def test_gaps_double_to_a_limit_and_are_forgotten() -> None:
    gap, lengths, spreads = None, [], []
    for now in range(7):
        gap = bell._Gap.after(gap, float(now))
        lengths.append(gap.length_s)
        spreads.append(gap.spread)
        assert gap.ends == now + gap.length_s < gap.forgotten
    assert lengths == [0.005, 0.01, 0.02, 0.04, 0.08, 0.1, 0.1]
    assert spreads == [2, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("verb, said", [("create", [{}, {"spread": 2}]), ("stop", [{}, {}])])
def test_a_launch_bell_that_follows_another_grows_less(
    monkeypatch: pytest.MonkeyPatch, verb: str, said: list[dict[str, int]]
) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(Doorbell, "_publish", lambda _, rings: told.extend(dict(scope) for _, scope in rings))
    door = Doorbell(None)  # type: ignore[arg-type]
    for number in range(2):
        door.ring(verb, "pool.a", pool="a")
        wait_until(lambda number=number: len(told) > number, 5, "a ring")
    assert told == [{"pool": "a"} | more for more in said]
