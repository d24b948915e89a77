from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.cli.text import age, clean, clean_block, coarse, escape_json, fine, parse_time

DANGEROUS = set(map(chr, [*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)])) - set(
    "\n\t"
)


@pytest.mark.parametrize(
    "text,shown",
    [
        ("plain", "plain"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPq#0\x1b\\after", "after"),
        ("\x1b]never ended", ""),
        ("\x9b2Jafter", "2Jafter"),
        ("a\rb", "ab"),
        ("a\r\nb", "a b"),
        ("a\tb", "a b"),
        ("exe\u202egpj", "exegpj"),
        (None, "None"),
    ],
)
def test_nothing_is_left_that_a_terminal_obeys(text: str, shown: str) -> None:
    assert clean(text) == shown


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_no_text_at_all_gets_through(text: str) -> None:
    assert not set(clean_block(text)) & DANGEROUS
    assert not set(clean(text)) & (DANGEROUS | set("\n\t"))


@given(st.text())
def test_escaped_json_is_the_same_value_and_harmless(text: str) -> None:
    written = escape_json(json.dumps({"x": text}, ensure_ascii=False))
    assert json.loads(written) == {"x": text}
    assert not set(written) & DANGEROUS


@pytest.mark.parametrize(
    "seconds,shown",
    [(0, "0s"), (59.9, "59s"), (60, "1m"), (185, "3m"), (3900, "1h5m"), (90000, "1d1h"), (864000, "10d")],
)
def test_coarse(seconds: float, shown: str) -> None:
    assert coarse(seconds) == shown


@pytest.mark.parametrize("seconds,shown", [(0.0134, "13 ms"), (2.414, "2.41 s"), (185.4, "3 min 5 s")])
def test_fine(seconds: float, shown: str) -> None:
    assert fine(seconds) == shown


def test_age_of_a_server_whose_clock_is_ahead_is_zero() -> None:
    now = datetime.now(UTC)
    assert age((now + timedelta(minutes=5)).isoformat()) == "0s"
    assert age((now - timedelta(hours=2)).isoformat().replace("+00:00", "Z")) == "2h"
    assert age(None) == ""
    assert parse_time("2026-01-01T00:00:00") == datetime(2026, 1, 1, tzinfo=UTC)
