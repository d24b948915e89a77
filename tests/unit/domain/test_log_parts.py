"""What of a part of a log is given: whole lines, and never one half of a secret."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.log_parts import bytes_to_take


@pytest.mark.parametrize(
    "data, is_over, taken",
    [
        (b"", False, 0),
        (b"half", False, 0),
        (b"half", True, 4),
        (b"one\n", False, 4),
        (b"one\ntw", False, 4),
        (b"one\ntw", True, 6),
        (b"one\ntwo\n", True, 8),
        # a whole part without a line end
        (b"x" * 10, False, 7),
        (b"x" * 10, True, 7),
        (b"xxxxkeyxxx", False, 7),
        (b"xxxxxkeyxx", False, 5),
        (b"xxxxxxkeyx", False, 6),
        (b"xxxxxxxkey", False, 7),
        (b"xxxxxxxxke", False, 7),
    ],
)
def test_cases(data: bytes, is_over: bool, taken: int) -> None:
    assert bytes_to_take(data, 10, [b"key"], is_over=is_over) == taken


def test_without_secrets_a_line_longer_than_a_part_is_taken_whole() -> None:
    assert bytes_to_take(b"x" * 10, 10, [], is_over=False) == 10


@given(
    words=st.lists(st.sampled_from([b"key", b"word", b"ke", b"wor", b"y", b"\n", b"cc"]), max_size=40),
    limit=st.integers(8, 30),
    is_over=st.booleans(),
)
def test_parts_come_to_the_whole_and_cut_no_secret(words: list[bytes], limit: int, is_over: bool) -> None:
    secrets = [b"key", b"word"]
    said = b"".join(words)
    parts, at = [], 0
    while taken := bytes_to_take(said[at : at + limit], limit, secrets, is_over=is_over):
        parts.append(said[at : at + taken])
        at += taken
    left = said[at:]
    assert b"".join(parts) + left == said
    assert not left or (not is_over and b"\n" not in left and len(left) < limit)
    cuts = {sum(map(len, parts[:number])) for number in range(1, len(parts))}
    for secret in secrets:
        begins = [at for at in range(len(said)) if said.startswith(secret, at)]
        assert not any(begin < cut < begin + len(secret) for begin in begins for cut in cuts)
