"""From a request's JSON to values of the engine. What cannot be read raises Refused, before anything is changed."""

from __future__ import annotations

import json
import math
import re
import struct
import uuid

import qdrant_edge as engine

from .refusals import Refused, malformed, wrong_input

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from .shape import Shape

_LARGEST_ID = 2**64 - 1
#: An exponent of three digits, or as many digits in a row as only a number beyond 64 bits has.
_UNUSUAL = re.compile(rb"[eE]\+?[0-9]{3}|[0-9]{19}")
#: Points, or members of any other list of a request.
MOST_ITEMS = 1_000_000
LONGEST_LIMIT = 2**63 - 1


def read_json(body: bytes) -> dict[str, Any]:
    """The body as an object. JSON as its standard has it: no NaN, no Infinity, no half of a character."""
    # hundreds of thousands of numbers are read without a look at each, where none can be out of range
    looks: dict[str, Any] = {"parse_float": _finite, "parse_int": _whole} if _UNUSUAL.search(body) else {}
    try:
        found = json.loads(body, parse_constant=_no_constant, **looks)
        if b"\\u" in body:
            # half of a surrogate pair is no text, and the engine would not store it
            json.dumps(found, ensure_ascii=False).encode()
    except RecursionError:
        raise malformed("recursion limit exceeded") from None
    except ValueError as error:
        raise malformed(str(error)) from None
    if not isinstance(found, dict):
        raise malformed("expected an object")
    return found


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is no number of JSON")


def _finite(word: str) -> float:
    value = float(word)
    if math.isinf(value):
        raise ValueError("number out of range")
    return value


def _whole(word: str) -> int | float:
    if len(word) > 400:
        raise ValueError("number out of range")
    value = int(word)
    return value if -(2**63) <= value <= _LARGEST_ID else _finite(word)


class Fields:
    """One object of the request: what is asked for is taken out, and what is left over at the end is refused."""

    def __init__(self, found: Any, what: str = "body") -> None:
        if not isinstance(found, dict):
            raise malformed(f"{what}: expected an object")
        self._left = dict(found)
        self._what = what

    def take(self, name: str, default: Any = None) -> Any:
        """The member ``name``; ``default`` where it is missing or null."""
        found = self._left.pop(name, None)
        return default if found is None else found

    def need(self, name: str) -> Any:
        if name not in self._left:
            raise malformed(f"missing field `{name}`")
        return self._left.pop(name)

    def has(self, name: str) -> bool:
        return self._left.get(name) is not None

    def ignore(self, *names: str) -> None:
        """What only says how hard or where to work."""
        for name in names:
            self._left.pop(name, None)

    def end(self) -> None:
        if self._left:
            raise malformed(f"{self._what}: unknown field `{next(iter(self._left))}`")


def read_id(found: Any) -> int | str:
    """A point's id: an unsigned integer of 64 bits, or a UUID as its usual text."""
    if isinstance(found, int) and not isinstance(found, bool) and 0 <= found <= _LARGEST_ID:
        return found
    if isinstance(found, str) and len(found) <= 45:
        try:
            return str(uuid.UUID(found))
        except ValueError:
            pass
    shown = found if isinstance(found, str) else json.dumps(found)
    raise malformed(
        f"value {shown[:100]} is not a valid point ID, valid values are either an unsigned integer or a UUID"
    )


def read_list(found: Any, what: str) -> list[Any]:
    if not isinstance(found, list):
        raise malformed(f"{what}: expected a list")
    if len(found) > MOST_ITEMS:
        raise wrong_input(f"{what} has more than {MOST_ITEMS} members")
    return found


def read_ids(found: Any, what: str) -> list[int | str]:
    return [read_id(one) for one in read_list(found, what)]


def read_text(found: Any, what: str) -> str:
    if not isinstance(found, str):
        raise malformed(f"{what}: expected a string")
    return found


def read_bool(found: Any, what: str) -> bool:
    if not isinstance(found, bool):
        raise malformed(f"{what}: expected a boolean")
    return found


def read_count(found: Any, what: str) -> int:
    """A number of things, 0 or more."""
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found <= LONGEST_LIMIT:
        raise malformed(f"{what}: expected an unsigned integer")
    return found


def read_number(found: Any, what: str) -> float:
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise malformed(f"{what}: expected a number")
    return float(found)


def read_floats(found: Any, what: str) -> list[float]:
    """Numbers that are finite also as the 32-bit floats they become."""
    numbers = read_list(found, what)
    if not all(type(one) is float or type(one) is int for one in numbers):
        raise malformed(f"{what}: expected a list of numbers")
    try:
        struct.pack(f"<{len(numbers)}f", *numbers)
    except (OverflowError, struct.error):
        raise wrong_input(f"{what} holds a number beyond the range of 32-bit floats") from None
    return [float(one) for one in numbers]


def read_sparse(found: Any, what: str) -> engine.SparseVector:
    fields = Fields(found, what)
    indices = read_list(fields.need("indices"), f"{what}.indices")
    values = read_floats(fields.need("values"), f"{what}.values")
    fields.end()
    if any(isinstance(one, bool) or not isinstance(one, int) or not 0 <= one < 2**32 for one in indices):
        raise malformed(f"{what}.indices: expected unsigned integers of 32 bits")
    if len(indices) != len(values):
        raise wrong_input(f"{what}: must be the same length as indices")
    if len(set(indices)) != len(indices):
        raise wrong_input(f"{what}.indices: must be unique")
    return engine.SparseVector(indices, values)


def read_vector(found: Any, shape: Shape, name: str) -> list[float] | engine.SparseVector:
    """One vector for the place ``name`` of the collection's shape, of the right dimension."""
    what = f"vector {name}" if name else "vector"
    if name in shape.sparse:
        return read_sparse(found, what)
    if name not in shape.dense:
        raise wrong_input(f"Not existing vector name error: {name}")
    if isinstance(found, dict):
        raise wrong_input("Conversion between sparse and regular vectors failed")
    numbers = read_floats(found, what)
    if len(numbers) != shape.dense[name].size:
        raise wrong_input(f"Vector dimension error: expected dim: {shape.dense[name].size}, got {len(numbers)}")
    return numbers


def read_vectors(found: Any, shape: Shape) -> Any:
    """All vectors of a point: a bare list for the one without a name, else an object by name."""
    if isinstance(found, list):
        return read_vector(found, shape, "")
    if not isinstance(found, dict):
        raise malformed("vector: expected a list or an object")
    read = {name: read_vector(one, shape, name) for name, one in found.items()}
    if set(read) == {""}:
        return read[""]
    return read


def read_point(found: Any, shape: Shape) -> engine.Point:
    fields = Fields(found, "point")
    number = read_id(fields.need("id"))
    vectors = read_vectors(fields.need("vector"), shape)
    payload = fields.take("payload")
    fields.end()
    return engine.Point(number, vectors, None if payload is None else read_payload(payload))


def read_payload(found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise malformed("payload: expected an object")
    return found


def read_points(fields: Fields, shape: Shape) -> list[engine.Point]:
    """``points``, or Qdrant's other form of the same: ``batch`` of ids, vectors and payloads."""
    if not fields.has("batch"):
        return [read_point(one, shape) for one in read_list(fields.need("points"), "points")]
    batch = Fields(fields.take("batch"), "batch")
    ids = read_list(batch.need("ids"), "batch.ids")
    vectors = batch.need("vectors")
    payloads = batch.take("payloads")
    batch.end()
    if isinstance(vectors, dict):
        columns = {name: read_list(one, f"batch.vectors.{name}") for name, one in vectors.items()}
        _same_length(ids, columns.values(), "vectors")
        rows: list[Any] = [{name: column[row] for name, column in columns.items()} for row in range(len(ids))]
    else:
        rows = read_list(vectors, "batch.vectors")
        _same_length(ids, [rows], "vectors")
    if payloads is not None:
        _same_length(ids, [read_list(payloads, "batch.payloads")], "payloads")
    return [
        read_point({"id": one, "vector": rows[at], "payload": payloads[at] if payloads else None}, shape)
        for at, one in enumerate(ids)
    ]


def _same_length(ids: list[Any], columns: Iterable[list[Any]], what: str) -> None:
    if any(len(column) != len(ids) for column in columns):
        raise Refused(422, f"Validation error in JSON body: [batch: number of ids and {what} must match]")


def read_with_payload(found: Any) -> Any:
    """``true``, a list of paths, or ``{"include": [...]}`` / ``{"exclude": [...]}``."""
    if found is None or isinstance(found, bool):
        return bool(found)
    if isinstance(found, list):
        return [read_text(one, "with_payload") for one in found]
    fields = Fields(found, "with_payload")
    include, exclude = fields.take("include"), fields.take("exclude")
    fields.end()
    if (include is None) == (exclude is None):
        raise malformed("with_payload: expected include or exclude")
    paths = [read_text(one, "with_payload") for one in read_list(include or exclude or [], "with_payload")]
    select = engine.PayloadSelector.Exclude if include is None else engine.PayloadSelector.Include
    return made(lambda: select(paths))


def read_with_vector(found: Any) -> bool | list[str]:
    if found is None or isinstance(found, bool):
        return bool(found)
    return [read_text(one, "with_vector") for one in read_list(found, "with_vector")]


def read_params(found: Any) -> engine.SearchParams | None:
    """How to search: only ``exact`` and ``indexed_only`` would show, and every search here is exact."""
    if found is None:
        return None
    fields = Fields(found, "params")
    fields.ignore("hnsw_ef", "quantization", "acorn", "indexed_only")
    exact = read_bool(fields.take("exact", False), "params.exact")
    fields.end()
    return engine.SearchParams(exact=exact)


def made(make: Callable[[], Any]) -> Any:
    """What the engine makes of the words; it says so by ValueError, TypeError or OverflowError when it cannot."""
    try:
        return make()
    except (ValueError, TypeError, OverflowError) as error:
        raise malformed(str(error).splitlines()[0]) from None


def shown_vector(found: Any) -> Any:
    """A vector as JSON."""
    if isinstance(found, dict):
        return {name: shown_vector(one) for name, one in found.items()}
    if isinstance(found, engine.SparseVector):
        return {"indices": found.indices, "values": found.values}
    return found


def shown_id(found: Any) -> int | str:
    return found if isinstance(found, int) else str(found)


def shown_record(found: Any, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A point as Qdrant shows it; ``vector`` only where it was asked for."""
    shown: dict[str, Any] = {"id": shown_id(found.id), **(more or {})}
    if found.payload is not None:
        shown["payload"] = found.payload
    if found.vector is not None:
        shown["vector"] = shown_vector(found.vector)
    if found.order_value is not None:
        shown["order_value"] = found.order_value
    return shown
