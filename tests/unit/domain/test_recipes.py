"""Laying a request over a recipe, and reading values: by examples, and by what must hold for all of them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from app.domain.recipe_schema import CONFIG, RECIPE
from app.domain.recipes import (
    Parameter,
    count_of,
    environment_text,
    merged,
    parameter_of,
    read_numbers,
    read_value,
    set_at,
    value_problem,
)

names = st.text("abcxyz", min_size=1, max_size=3)
scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3) | st.lists(st.integers(0, 3), max_size=3)
trees = st.recursive(scalars, lambda inner: st.dictionaries(names, inner, max_size=4), max_leaves=20)
objects = st.dictionaries(names, trees, max_size=5)
#: Of one form, as recipe and request are: what is an object in one is none but an object in the other.
plain = st.dictionaries(st.sampled_from("abc"), scalars.filter(lambda one: one is not None))
formed = st.fixed_dictionaries({}, optional={"x": plain, "y": st.fixed_dictionaries({"z": plain}), "n": st.integers()})


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nulls(one) for name, one in value.items() if one is not None}
    return value


@given(objects, objects)
def test_merging_changes_neither_side(below: Any, above: Any) -> None:
    before = copy.deepcopy((below, above))
    merged(below, above)
    assert (below, above) == before


@given(objects, objects)
def test_merging_twice_is_merging_once(below: Any, above: Any) -> None:
    once = merged(below, above)
    assert merged(once, above) == once


@given(objects)
def test_nothing_over_it_is_itself_and_over_nothing_it_is_without_nulls(one: Any) -> None:
    assert merged(one, {}) == one
    assert merged({}, one) == without_nulls(one)


@given(formed, formed, formed)
def test_layers_may_be_put_together_in_any_order(first: Any, second: Any, third: Any) -> None:
    assert merged(merged(first, second), third) == merged(first, merged(second, third))


@given(objects, objects)
def test_each_member_is_that_of_the_upper_layer_or_the_lower_ones(below: Any, above: Any) -> None:
    found = merged(below, above)
    for name in {*below, *above}:
        if name not in above:
            assert found[name] == below[name]
        elif above[name] is None:
            assert name not in found
        elif not isinstance(above[name], dict):
            assert found[name] == above[name]
    assert set(found) <= {*below, *above}


def test_lists_are_replaced_and_a_null_takes_away() -> None:
    below = {"a": {"b": 1, "c": [1, 2]}, "gpu": 4}
    assert merged(below, {"a": {"c": [3]}, "gpu": None}) == {"a": {"b": 1, "c": [3]}}


@given(st.integers(-(10**17), 10**17))
def test_a_whole_number_may_be_a_text(number: int) -> None:
    one = Parameter("n", "integer")
    assert read_value(one, str(number)) == (number, "")
    assert read_value(one, number) == (number, "")
    assert environment_text(number) == str(number)


@given(st.floats(allow_nan=False, allow_infinity=False, width=64))
def test_a_number_comes_back_as_it_was_written(number: float) -> None:
    value, problem = read_value(Parameter("n", "number"), environment_text(number))
    assert (value, problem) == (number, "")


@given(st.text(max_size=20), st.sampled_from(["integer", "number", "boolean"]))
def test_any_text_is_a_value_of_the_type_or_a_problem(word: str, kind: str) -> None:
    value, problem = read_value(Parameter("n", kind), word)
    assert (value is None) == bool(problem)
    if value is not None:
        assert isinstance(value, {"integer": int, "number": (int, float), "boolean": bool}[kind])


@pytest.mark.parametrize(
    "word",
    ["", " ", "1.5", "1e3", "0x10", "1_000", "\N{ARABIC-INDIC DIGIT ONE}", "nan", "inf", "9" * 19, True, None, [1]],
)
def test_what_is_no_whole_number(word: Any) -> None:
    assert read_value(Parameter("n", "integer"), word)[1]


@pytest.mark.parametrize(
    "said,value,wrong",
    [
        ({"minimum": 1}, 0, "too small"),
        ({"minimum": 1}, 1, ""),
        ({"maximum": 5}, 6, "too large"),
        ({"exclusive_minimum": 0}, 0, "above 0"),
        ({"exclusive_minimum": 0}, 0.1, ""),
        ({"enum": ["a", "b"]}, "c", "none of: a, b"),
        ({"enum": [1, 2]}, True, "none of"),
        ({"pattern": "[a-z]+"}, "ab1", "does not match"),
        ({"pattern": "[a-z]+"}, "ab\n", "does not match"),
        ({"max_length": 2}, "abc", "Longer"),
        ({}, "a\0", "NUL"),
    ],
)
def test_bounds(said: dict[str, Any], value: Any, wrong: str) -> None:
    kind = {int: "integer", float: "number", str: "string", bool: "boolean"}[type(value)]
    problem = value_problem(parameter_of("p", {"type": kind, **said}), value)
    assert wrong in problem
    assert bool(wrong) == bool(problem)


@given(st.integers(0, 64), st.none() | st.integers(1, 16), st.none() | st.integers(0, 16))
def test_how_many_replicas_gpus_make(gpus: int, per_replica: int | None, replicas: int | None) -> None:
    if per_replica and 0 < gpus < per_replica:
        return
    count, each = count_of(gpus, per_replica, replicas)
    assert count >= (replicas is None)
    if replicas is not None:
        assert count == replicas
    elif per_replica and gpus:
        assert each == per_replica
        assert count * each <= gpus < (count + 1) * each


def test_numbers_in_quotes_are_read_where_numbers_are_meant() -> None:
    said = {"resources": {"gpu": "4", "cpu": " 8 ", "memory": "64", "time_limit": "1.5"}, "gpu_per_replica": "two"}
    assert read_numbers(said, CONFIG) == {
        "resources": {"gpu": 4, "cpu": 8, "memory": "64", "time_limit": 1.5},
        "gpu_per_replica": "two",
    }


def test_set_at_makes_its_way_and_shares_nothing() -> None:
    inner = {"x": 1}
    settings: dict[str, Any] = {"mock": inner}
    set_at(settings, ("mock", "y"), 2)
    set_at(settings, ("a", "b", "c"), 3)
    assert settings == {"mock": {"x": 1, "y": 2}, "a": {"b": {"c": 3}}}
    assert inner == {"x": 1}


def test_the_schemas_are_schemas() -> None:
    for schema in (RECIPE, CONFIG):
        Draft202012Validator.check_schema(schema)
