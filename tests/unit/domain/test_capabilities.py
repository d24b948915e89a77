"""Which servers a query means: types, subsets of one capability, and the index against the plain definition."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.capabilities import Index, is_visible, matches, may_serve, meanings, models_of, token

CHAT = {"model": "qwen2", "type": "chat"}


@pytest.mark.parametrize(
    "query, found",
    [
        ([("model", "qwen2")], True),
        ([("type", "chat")], True),
        ([("model", "qwen2"), ("type", "chat")], True),
        ([("model", "qwen3")], False),
        ([("model", "qwen2"), ("gpu", "1")], False),
        ([("Model", "qwen2")], False),
        ([("model", "qwen2"), ("model", "qwen3")], False),
        ([("model", "qwen2"), ("model", "qwen2")], True),
        ([("model", "")], False),
        ([], True),
    ],
)
def test_a_query_is_a_subset(query: list[tuple[str, str]], found: bool) -> None:
    assert matches(CHAT, query) is found
    index: Index[str] = Index()
    index.put("a", [CHAT])
    assert index.find(query) == (["a"] if found else [])


def test_the_subset_is_of_one_capability() -> None:
    index: Index[str] = Index()
    index.put("a", [{"model": "llama", "type": "chat"}, {"model": "bge", "type": "embed"}])
    assert index.find([("model", "llama"), ("type", "chat")]) == ["a"]
    assert index.find([("model", "llama"), ("type", "embed")]) == []
    assert index.find([("type", "embed")]) == ["a"]


@pytest.mark.parametrize(
    "value, text, found",
    [
        (1, "1", True),
        (1, "1.0", True),
        (1, "01", True),
        (1.0, "1", True),
        (0.1, "0.1", True),
        (0.1, "1e-1", True),
        (0.1, "0.10000000000000001", False),
        (1, "true", False),
        (True, "true", True),
        (True, "True", True),
        (False, "FALSE", True),
        (True, "1", False),
        (True, "yes", False),
        ("1", "1", True),
        ("1", "1.0", False),
        ("true", "true", True),
        ("true", "True", False),
        (-0.0, "0", True),
        (10**18, "1000000000000000000", True),
        (10**18, "1000000000000000001", False),
        (1e308, "1e308", True),
        (1, "1e999999999", False),
        (1, "NaN", False),
        (1, "Infinity", False),
        (1, " 1", False),
        (1, "1_0", False),
        (1, "\u0661", False),
        ("\u0661", "\u0661", True),
        ("", "", True),
    ],
)
def test_types_are_respected(value: Any, text: str, found: bool) -> None:
    assert matches({"x": value}, [("x", text)]) is found


_names = st.sampled_from(["model", "type", "gpu"])
_texts = st.sampled_from(["qwen2", "1", "1.0", "2", "true", "false", "", "0.5"])
_values = st.one_of(_texts, st.booleans(), st.integers(0, 2), st.sampled_from([0.5, 1.0, 2.0]))
_capabilities = st.lists(st.dictionaries(_names, _values, max_size=3), max_size=3)
_queries = st.lists(st.tuples(_names, _texts), max_size=3)


@given(servers=st.lists(_capabilities, max_size=6), changed=_capabilities, query=_queries)
def test_the_index_finds_what_the_definition_says(servers: Any, changed: Any, query: Any) -> None:
    index: Index[int] = Index()
    for number, capabilities in enumerate(servers):
        index.put(number, capabilities)
    now = dict(enumerate(servers))
    if servers:
        # what was replaced or removed leaves nothing
        index.put(0, changed)
        now[0] = changed
        index.remove(len(servers) - 1)
        now.pop(len(servers) - 1)
    plain = [key for key, capabilities in now.items() if any(matches(one, query) for one in capabilities)]
    assert sorted(index.find(query)) == plain
    assert len(index) == len(now)


@given(_values)
def test_a_value_matches_the_text_that_json_has_for_it(value: Any) -> None:
    text = value if isinstance(value, str) else json.dumps(value)
    assert token(value) in meanings(text)


@given(st.text(max_size=40))
def test_any_text_may_be_asked_for(text: str) -> None:
    assert matches({"x": text}, [("x", text)])


def test_a_limited_key_sees_its_models_only() -> None:
    index: Index[str] = Index()
    index.put("a", [{"model": "open"}, {"model": "secret", "type": "chat"}])
    index.put("b", [{"type": "chat"}])
    assert index.find([("model", "secret")], ("open",)) == []
    assert index.find([("type", "chat")], ("open",)) == ["b"]
    assert sorted(index.find([], ("open",))) == ["a", "b"]
    assert is_visible({"model": 1}, None)
    assert not is_visible({"model": 1}, ("1",))


def test_models_are_words() -> None:
    assert models_of([{"model": "a"}, {"type": "chat"}, {"model": 1}, {"model": ""}, {"model": "a"}]) == ("a",)


@pytest.mark.parametrize(
    "role, models, taken, may",
    [
        ("register", None, (), True),
        ("register", None, ("m",), False),
        ("register", ("m",), ("m",), True),
        ("register", ("other",), (), False),
        ("register", (), (), False),
        ("operate", None, ("m",), True),
        ("admin", None, ("m",), True),
        ("admin", ("other",), (), False),
    ],
)
def test_who_may_serve_a_model(role: str, models: tuple[str, ...] | None, taken: tuple[str, ...], may: bool) -> None:
    assert may_serve("m", role, models, taken) is may
