"""Tensors of the Open Inference Protocol, from what callers give: Python values, numpy arrays, what turns into them.

Python's own types keep their width: ``bool`` is BOOL, ``int`` INT64, ``float`` FP64, ``str`` and ``bytes`` BYTES. A
model that wants another width is given a numpy array, whose dtype is taken as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hostler.errors import BadInput

MOST_DIMENSIONS = 32
INT64 = range(-(2**63), 2**63)
_BY_KIND = {
    "b1": "BOOL",
    **{f"{kind}{size}": f"{name}{size * 8}" for kind, name in (("i", "INT"), ("u", "UINT")) for size in (1, 2, 4, 8)},
    **{f"f{size}": f"FP{size * 8}" for size in (2, 4, 8)},
}


@dataclass(frozen=True)
class Tensor:
    """One input. ``values`` are in row-major order: a list, or a one-dimensional numpy array; BYTES hold ``bytes``."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Any


def tensors_of(inputs: object) -> list[Tensor]:
    """The tensors of a call. Raises BadInput, which names the input, for what is none."""
    if not isinstance(inputs, Mapping) or not inputs:
        raise BadInput('inputs are a dict of at least one name, such as {"prompt": ["Hello"]}')
    return [_tensor(name, value) for name, value in inputs.items()]


def shaped(shape: Sequence[int], values: Sequence[Any]) -> list[Any]:
    """``values`` as nested lists of ``shape``. ValueError when they do not fit, as from a server that is wrong."""
    if any(size < 0 for size in shape) or len(shape) > MOST_DIMENSIONS or math.prod(shape) != len(values):
        raise ValueError(f"{len(values)} values for the shape {list(shape)}")
    nested = list(values)
    if not nested:
        # a shape like [1000000000, 0] would be a great many empty lists
        return nested
    for size in reversed(shape[1:]):
        nested = [nested[at : at + size] for at in range(0, len(nested), size)]
    return nested


def text_or_bytes(value: bytes) -> str | bytes:
    """An element of a BYTES tensor: text where it is UTF-8."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value


def _tensor(name: object, value: Any) -> Tensor:
    if not isinstance(name, str) or not name:
        raise BadInput(f"{name!r} is no name of an input")
    if hasattr(value, "__array__"):
        return _of_array(name, value)
    shape, leaves = _flattened(name, value, 0)
    if any(hasattr(kind, "__array__") for kind in {type(leaf) for leaf in leaves}):
        return _of_array(name, value)
    datatype, values = _typed(name, leaves)
    return Tensor(name, datatype, shape or (1,), values)


def _of_array(name: str, value: Any) -> Tensor:
    try:
        # whoever has arrays has numpy; without them it is not loaded
        import numpy

        array = numpy.asarray(value)
    except (ImportError, TypeError, ValueError, RuntimeError) as error:
        raise BadInput(f"input {name!r} is no array: {error}") from error
    shape = tuple(int(size) for size in array.shape) or (1,)
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind in "USO":
        datatype, values = _typed(name, array.ravel().tolist())
        return Tensor(name, datatype, shape, values)
    known = "BF16" if array.dtype.name == "bfloat16" else _BY_KIND.get(f"{kind}{size}")
    if known is None:
        raise BadInput(f"input {name!r}: no tensor holds numpy's {array.dtype}")
    native = array.dtype.newbyteorder("=")
    return Tensor(name, known, shape, numpy.ascontiguousarray(array, dtype=native).ravel())


def _flattened(name: str, value: Any, depth: int) -> tuple[tuple[int, ...], list[Any]]:
    """The shape and, row by row, the elements of nested lists."""
    if not isinstance(value, (list, tuple)):
        return (), [value]
    if depth == MOST_DIMENSIONS:
        raise BadInput(f"input {name!r} is nested deeper than {MOST_DIMENSIONS} lists")
    if not any(isinstance(item, (list, tuple)) for item in value):
        return (len(value),), list(value)
    parts = [_flattened(name, item, depth + 1) for item in value]
    if len({shape for shape, _ in parts}) > 1:
        raise BadInput(f"input {name!r}: its rows are of different lengths")
    return (len(parts), *parts[0][0]), [leaf for _, leaves in parts for leaf in leaves]


def _typed(name: str, leaves: list[Any]) -> tuple[str, list[Any]]:
    """The datatype of elements, and they in its form."""
    kinds = {_kind(leaf) for leaf in leaves}
    if not kinds:
        raise BadInput(f"input {name!r} is empty: of which type? Give a numpy array with a dtype")
    if kinds == {bool}:
        return "BOOL", leaves
    if kinds == {int}:
        if any(leaf not in INT64 for leaf in leaves):
            raise BadInput(f"input {name!r} holds a number beyond 64 bits")
        return "INT64", leaves
    if kinds <= {int, float}:
        try:
            return "FP64", [float(leaf) for leaf in leaves]
        except OverflowError as error:
            raise BadInput(f"input {name!r} holds a number beyond 64 bits") from error
    if kinds <= {str, bytes}:
        try:
            return "BYTES", [leaf.encode() if isinstance(leaf, str) else bytes(leaf) for leaf in leaves]
        except UnicodeEncodeError as error:
            raise BadInput(f"input {name!r} holds text that is none: {error.reason}") from error
    odd = ", ".join(sorted({type(leaf).__name__ for leaf in leaves}))
    raise BadInput(f"input {name!r} holds {odd}: give all numbers, all booleans, or all text and bytes")


def _kind(leaf: Any) -> type:
    # a bool is an int to Python
    return next((kind for kind in (bool, int, float, str, bytes) if isinstance(leaf, kind)), type(leaf))
