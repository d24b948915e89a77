"""YAML of strangers: what is read, and what is refused before it costs anything."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.usecases.recipe_yaml import DEEPEST, LARGEST, MOST_VALUES, Unreadable, read_yaml

LAUGHS = b"a: &a [x, x]\n" + b"".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n".encode() for n in range(20)
)


def test_plain_values() -> None:
    text = b"a: 1\nb: [2.5, true, null, ~, on, yes, 12:30:00, 2024-01-01, 010, '1', 1e3, .inf, -0]\n"
    expected = [2.5, True, None, None, "on", "yes", "12:30:00", "2024-01-01", 10, "1", 1000.0, ".inf", 0]
    assert read_yaml(text) == {"a": 1, "b": expected}
    assert read_yaml(b"") is None
    assert read_yaml("a: \N{SNOWMAN}".encode()) == {"a": "\N{SNOWMAN}"}


@pytest.mark.parametrize(
    "text,why",
    [
        (LAUGHS, "anchors and aliases"),
        (b"a: &a {b: *a}", "anchors and aliases"),
        (b"a: 1\nb: 2\na: 3", "line 3: 'a' is there twice"),
        (b"a: {b: {c: 1, c: 2}}", "'c' is there twice"),
        (b"a: !!python/object/apply:os.system [id]", "tags"),
        (b"a: !!binary aGk=", "tags"),
        (b"!!set {a, b}", "tags"),
        (b"1: 2", "must be a text"),
        (b"? [a]\n: b", "must be a text"),
        (b"null: 1", "must be a text"),
        (b"a: 1\n---\nb: 2", "another document"),
        (b"a: [", "line [12]: "),
        (b'a: "\\0"', "NUL"),
        (b'a: "\\ud800"', "surrogate|Unicode"),
        (b"\xff\xfe", "not UTF-8"),
        (b"a: \x01", "characters are not allowed"),
        (b"a: " + b"9" * 19, "18 digits"),
        (b"a: 1e999", "too large"),
        (b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1), "nested deeper"),
        (b"[" * 60_000, "nested deeper"),
        (b"- " * 30_000 + b"x", "nested deeper"),
        (b"a: [" + b"x," * MOST_VALUES + b"]", f"more than {MOST_VALUES}"),
        (b"a: " + b"x" * LARGEST, "larger than 64 KiB"),
    ],
)
def test_what_is_refused(text: bytes, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        read_yaml(text)


@given(st.binary(max_size=300) | st.text("[]{}:,-&*!?|>%@`\"'# \n\tab01~.<", max_size=200).map(str.encode))
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    with suppress(Unreadable):
        read_yaml(text)
