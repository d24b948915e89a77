"""YAML on the command line: the same values as the server finds in a recipe's file, and what is written comes back."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from app.usecases import recipe_yaml
from hostler.cli.yaml_reading import Unreadable, read_documents, written_document

TEXTS = [
    "on: yes\n",
    "a: 12:30\n",
    "a: 190:20:30\n",
    "a: [true, True, off, no, ~, null, 010, 0x1f, 1_000, 1e5, 08, .5, .nan, .inf, 2026-01-01, =]\n",
    "a: &x 1\n",
    "a: &x 1\nb: *x\n",
    "a: !!str 1\n",
    "a: ! 1\n",
    "a: !!python/name:os.system ''\n",
    "a: 1\na: 2\n",
    "b: {a: 1, 'a': 2}\n",
    "1: a\n",
    "true: a\n",
    "? [a]\n: 1\n",
    "<<: {a: 1}\n",
    "a: 1234567890123456789\n",
    "a: 1e999\n",
    'a: "\\0"\n',
    'a: "\\ud800"\n',
    "a: b: c\n",
    "- {a: [1, {b: 2}]}\n",
    "",
]


@pytest.mark.parametrize("text", TEXTS)
def test_as_the_server_reads_recipes(text: str) -> None:
    try:
        expected = recipe_yaml.read_yaml(text.encode())
    except recipe_yaml.Unreadable:
        with pytest.raises(Unreadable):
            read_documents(text)
    else:
        # of 1 and True, and of 1 and 1.0, one is not the other
        assert repr((read_documents(text) or [None])[0]) == repr(expected)


def test_where_it_is_wrong_is_told() -> None:
    with pytest.raises(Unreadable, match="line 2: 'a' is there twice"):
        read_documents("a: 1\na: 2\n")


#: Line ends that no keyboard has: PyYAML writes them bare, and reads them as spaces.
_ODD = "\0\x85\u2028\u2029\ufeff"
_VALUES: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**17), 10**17)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters=_ODD), max_size=8)
    | st.sampled_from(["on", "No", "12:30", "08", "1e5", "0o7", "1_0", "2026-01-01", "=", "<<", "~", "", ".5e1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "on", "08", "~"]), inner),
    max_leaves=6,
)


@given(_VALUES)
def test_what_is_written_comes_back_to_both_readings(value: Any) -> None:
    text = written_document(value)
    assert repr(read_documents(text)) == repr([value])
    assert repr(yaml.safe_load(text)) == repr(value)
