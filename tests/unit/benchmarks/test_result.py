"""What a benchmark prints, and that both sides take turns."""

from __future__ import annotations

import json

from benchmarks.result import Pair, alternate, joined, percentile, result


def test_each_side_goes_first_in_turn() -> None:
    order: list[str] = []

    def side(name: str, value: float) -> float:
        order.append(name)
        return value

    pair = alternate(lambda: side("ours", 2.0), lambda: side("floor", 1.0), rounds=3)
    assert order == ["ours", "floor", "floor", "ours", "ours", "floor"]
    assert (pair.ours, pair.floor, pair.ratio) == ((2.0,) * 3, (1.0,) * 3, 2.0)


def test_the_median_stands_for_the_rounds() -> None:
    pair = Pair((10.0, 1.0, 2.0), (4.0, 100.0, 1.0))
    assert pair.medians == (2.0, 4.0)
    assert pair.ratio == 0.5


def test_the_json_has_the_promised_keys() -> None:
    one = result("x", Pair((1.0,) * 3, (2.0,) * 3), unit="ms", goal="ratio <= 1", ok=True, pinned="nothing")
    body = json.loads(json.dumps(one.to_json()))
    assert {"name", "ours", "floor", "ratio", "goal", "ok", "unit", "rounds"} <= set(body)
    assert (body["ours"], body["floor"], body["ratio"], body["rounds"]) == (1.0, 2.0, 0.5, 3)
    assert body["notes"]["ours_rounds"] == [1.0, 1.0, 1.0]


def test_parts_are_ok_together_or_not_at_all() -> None:
    good = result("a", Pair((1.0,), (1.0,)), unit="s", goal="", ok=True)
    bad = result("b", Pair((1.0,), (1.0,)), unit="s", goal="", ok=False)
    assert joined("both", [good, good]).ok
    both = joined("both", [good, bad])
    assert not both.ok
    assert [part["name"] for part in both.to_json()["parts"]] == ["a", "b"]


def test_percentiles_are_of_the_values_themselves() -> None:
    values = [float(number) for number in range(1, 101)]
    assert percentile(values, 0.5) == 51.0
    assert percentile(values, 0.99) == 100.0
    assert percentile([7.0], 0.99) == 7.0
