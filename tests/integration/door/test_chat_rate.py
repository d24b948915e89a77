"""How often a key may ask the chat."""

from __future__ import annotations

import time

import pytest

from app.gateway.config.keys import per_period
from tests.support.public_door import Answer, Door, public_door

FOREVER = "0|0|0"


def ask(door: Door, key: str, path: str = "/chat") -> Answer:
    return door.get(path, X_API_Key=key)


@pytest.mark.parametrize(
    "rate, found", [(1, (1, 1)), (2, (2, 1)), (2.5, (5, 2)), (0.5, (1, 2)), (0.3, (1, 4)), (0.0001, (1, 3600))]
)
def test_a_rate_as_whole_numbers(rate: float, found: tuple[int, int]) -> None:
    assert per_period(rate) == found


def test_each_key_has_its_own_rate_and_only_at_the_chat() -> None:
    keys = {name: f"{name * 6}|infer|all|{FOREVER}" for name in ("aa", "bb")}
    # a long period, so that the test does not run out of it
    with public_door({"RATE_LIMIT_QPS": "0.05"}, keys, threads=1) as door:
        assert ask(door, "aa").status == 200
        limited = ask(door, "aa")
        assert (limited.status, limited.problem["code"], limited.headers["Retry-After"]) == (429, "rate_limited", "20")
        assert ask(door, "aa", "/chat/").status == 429
        assert ask(door, "bb").status == 200
        assert ask(door, "aa", "/models").status == 200
        # without a key that is known the API says so, however often
        assert [ask(door, "nobody").status for _ in range(3)] == [200] * 3


def test_a_rate_lets_through_again() -> None:
    with public_door({"HOSTLER_CHAT_RATE": "5"}, {"aa": f"{'aa' * 6}|infer|all|{FOREVER}"}, threads=1) as door:
        began = time.monotonic()
        let_in = 0
        while time.monotonic() - began < 3:
            let_in += ask(door, "aa").status == 200
        assert 5 <= let_in <= 25
