"""Amounts of ``resources`` are numbers within bounds, or their field is named."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest

from app.errors import InvalidConfig
from app.usecases.resource_amounts import amounts

NO_NUMBERS = ("abc", "", [1], {}, "x", "NaN", "1e999", "inf", "-1", -5, 0, 1e300, 10**400, inf, nan, True, "1\n")


@pytest.mark.parametrize("name", ["nodes", "cpu", "memory", "time_limit_s"])
@pytest.mark.parametrize("wish", NO_NUMBERS, ids=lambda wish: repr(wish)[:12])
def test_what_is_no_amount_is_named(name: str, wish: Any) -> None:
    if (name, wish) == ("memory", True):
        wish = "0"
    with pytest.raises(InvalidConfig) as refused:
        amounts({name: wish})
    assert list(refused.value.errors) == [f"resources.{name}"]


def test_all_that_is_wrong_is_named() -> None:
    with pytest.raises(InvalidConfig) as refused:
        amounts({"cpu": "abc", "memory": "0", "time_limit_s": 0.5})
    assert list(refused.value.errors) == ["resources.cpu", "resources.memory", "resources.time_limit_s"]


def test_amounts_are_read() -> None:
    wish = {"nodes": 2, "cpu": "2.5", "memory": "1.5G", "time_limit_s": 90, "gpus": 1}
    assert amounts(wish) == {"nodes": 2, "cpu": 2.5, "memory": 3 * 2**29, "time_limit_s": 90}
    assert amounts({"memory": 4096, "cpu": None}) == {"memory": 4096}
