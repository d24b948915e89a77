"""Keys as HAProxy reads them."""

from __future__ import annotations

from datetime import UTC, datetime

from app.domain.routing import hashed
from app.gateway.keys import KEY_MODELS, KEYS, KeyFacts, make_key_maps


def test_records() -> None:
    ends = datetime(2030, 1, 1, 0, 0, 0, 999_999, tzinfo=UTC)
    maps = make_key_maps(
        [
            KeyFacts("000000000001", "A" * 64, "admin"),
            KeyFacts("000000000002", "B" * 64, "infer", ["m", "x|y z"], {"requests_per_second": 5}, ends),
            KeyFacts("000000000003", "C" * 64, "infer", [], {"concurrent_requests": 2, "unknown": 1}),
        ]
    )
    assert maps[KEYS] == {
        "A" * 64: "000000000001|admin|all|0|0|0",
        # a moment early rather than late
        "B" * 64: f"000000000002|infer|some|{int(ends.timestamp())}|5|0",
        "C" * 64: "000000000003|infer|some|0|0|2",
    }
    assert maps[KEY_MODELS] == {f"000000000002|{hashed('m')}": "1", f"000000000002|{hashed('x|y z')}": "1"}


def test_none() -> None:
    assert make_key_maps([]) == {KEYS: {}, KEY_MODELS: {}}
