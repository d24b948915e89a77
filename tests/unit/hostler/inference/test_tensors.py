"""From what callers give to tensors, and back."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.errors import BadInput
from hostler.inference.tensors import MOST_DIMENSIONS, shaped, tensors_of, text_or_bytes


@pytest.mark.parametrize(
    "value, datatype, shape, values",
    [
        (["a", b"\xff"], "BYTES", (2,), [b"a", b"\xff"]),
        ("a", "BYTES", (1,), [b"a"]),
        ([1, 2**63 - 1, -(2**63)], "INT64", (3,), [1, 2**63 - 1, -(2**63)]),
        ([1, 0.5], "FP64", (2,), [1.0, 0.5]),
        ([True, False], "BOOL", (2,), [True, False]),
        (([1, 2], [3, 4], [5, 6]), "INT64", (3, 2), [1, 2, 3, 4, 5, 6]),
        ([[[1.0]]], "FP64", (1, 1, 1), [1.0]),
    ],
)
def test_python_values(value: Any, datatype: str, shape: tuple[int, ...], values: list[Any]) -> None:
    (tensor,) = tensors_of({"x": value})
    assert (tensor.name, tensor.datatype, tensor.shape, tensor.values) == ("x", datatype, shape, values)


@pytest.mark.parametrize(
    "dtype, datatype",
    [
        *[
            (f"{kind}{size}", f"{name}{size * 8}")
            for kind, name in (("i", "INT"), ("u", "UINT"))
            for size in (1, 2, 4, 8)
        ],
        ("f2", "FP16"),
        ("f4", "FP32"),
        ("f8", "FP64"),
        ("?", "BOOL"),
        (">i4", "INT32"),
    ],
)
def test_arrays_keep_their_width(dtype: str, datatype: str) -> None:
    (tensor,) = tensors_of({"x": numpy.array([[1, 0]], dtype)})
    assert (tensor.datatype, tensor.shape, tensor.values.tolist()) == (datatype, (1, 2), [1, 0])
    assert tensor.values.dtype.isnative


@pytest.mark.parametrize(
    "value",
    [numpy.array(["a", "b"]), numpy.array([b"a", b"b"]), numpy.array(["a", b"b"], object)],
    ids=lambda v: v.dtype,
)
def test_arrays_of_text(value: Any) -> None:
    (tensor,) = tensors_of({"x": value})
    assert (tensor.datatype, tensor.shape, tensor.values) == ("BYTES", (2,), [b"a", b"b"])


def test_what_is_made_of_arrays_is_one() -> None:
    first, second = tensors_of(
        {"rows": [numpy.array([1, 2], "i2"), numpy.array([3, 4], "i2")], "n": [numpy.float32(2)]}
    )
    assert (first.datatype, first.shape) == ("INT16", (2, 2))
    assert (second.datatype, second.shape) == ("FP32", (1,))
    (alone,) = tensors_of({"x": numpy.array(5)})
    assert alone.shape == (1,)


def _deep() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        None,
        ["x"],
        {"": [1]},
        {1: [1]},
        {"x": []},
        {"x": [[]]},
        {"x": None},
        {"x": [None]},
        {"x": {"a": 1}},
        {"x": [1, "a"]},
        {"x": [True, 1]},
        {"x": [[1], [2, 3]]},
        {"x": [1, [2]]},
        {"x": [2**63]},
        {"x": [0.5, 10**400]},
        {"x": ["\ud800"]},
        {"x": _deep()},
        {"x": numpy.array([1j])},
        {"x": numpy.array(["2026-01-01"], "M8[D]")},
        {"x": numpy.array([None])},
        {"x": [numpy.array([1]), numpy.array([1, 2])]},
    ],
    ids=repr,
)
def test_what_is_no_tensor_is_refused_before_anybody_is_asked(inputs: Any) -> None:
    with pytest.raises(BadInput):
        tensors_of(inputs)


def test_a_refusal_names_the_input() -> None:
    with pytest.raises(BadInput, match="'prompt'"):
        tensors_of({"ok": [1], "prompt": [None]})


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_shaped_undoes_flattening(shape: list[int]) -> None:
    array = numpy.arange(numpy.prod(shape)).reshape(shape)
    assert shaped(shape, array.ravel().tolist()) == array.tolist()


@pytest.mark.parametrize(
    "shape, count", [([2], 3), ([-1, -2], 2), ([1] * (MOST_DIMENSIONS + 1), 1), ([2, 0], 1), ([], 2)], ids=repr
)
def test_a_shape_that_does_not_fit(shape: list[int], count: int) -> None:
    with pytest.raises(ValueError, match="shape"):
        shaped(shape, [0] * count)


def test_a_huge_empty_shape_makes_nothing() -> None:
    assert shaped([10**12, 0], []) == []


def test_bytes_are_text_where_they_are() -> None:
    assert text_or_bytes("ü".encode()) == "ü"
    assert text_or_bytes(b"\xff") == b"\xff"
