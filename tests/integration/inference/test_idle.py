"""Counting idle workers: as often as somebody asks, and never more than one count at a time."""

from __future__ import annotations

import threading
import time

import pytest

from app.usecases import chat
from tests.integration.inference.conftest import Served
from tests.support.embedded import wait_until


def test_who_asks_meanwhile_shares_the_next_count(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    served.row("m", "mock")
    pool: chat.Chat = served.app.extensions["hostler-chat"]
    counting, go_on, counts = threading.Event(), threading.Event(), list[int]()

    def slowly(*_: object) -> int:
        counts.append(len(counts))
        counting.set()
        assert go_on.wait(20)
        return counts[-1]

    looked: list[float] = []

    class Clock:
        @staticmethod
        def monotonic() -> float:
            looked.append(time.monotonic())
            return looked[-1]

    monkeypatch.setattr(chat, "count_idle", slowly)
    monkeypatch.setattr(chat, "time", Clock)
    found: list[int] = []
    asking = [threading.Thread(target=lambda: found.append(pool.count_idle())) for _ in range(21)]
    asking[0].start()
    assert counting.wait(20)
    for one in asking[1:]:
        one.start()
    # each looks at the clock when it asks, the first once more
    wait_until(lambda: len(looked) == len(asking) + 1, 20, "all who ask")
    go_on.set()
    for one in asking:
        one.join(20)
    # whoever asked while the first was at it got one that began later
    assert sorted(found) == [0] + [1] * 20


def test_text_of_health_without_a_gateway_is_nobody_idle(served: Served) -> None:
    served.row("m", "mock")
    answer = served.app.test_client().get("/health", headers={"Accept": "text/plain"})
    assert (answer.status_code, answer.get_data(as_text=True)) == (200, "ok \u2013 workers idle: 0")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("accept", ["", "*/*", "application/json", "text/html,*/*;q=0.8", "text/plain;q=0.1,*/*"])
def test_health_is_json_for_whoever_does_not_ask_for_text(served: Served, accept: str) -> None:
    answer = served.app.test_client().get("/health", headers={"Accept": accept} if accept else {})
    assert answer.mimetype == "application/json"
    assert "workers_idle" in answer.get_json()
