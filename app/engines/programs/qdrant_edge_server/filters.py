"""Qdrant's filters: from JSON to the engine's own. A condition of an unknown kind is refused, never passed over."""

from __future__ import annotations

from functools import partial

import qdrant_edge as engine

from .reading import Fields, made, read_bool, read_count, read_id, read_list, read_number, read_text
from .refusals import malformed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: Filters within filters.
DEEPEST = 32


def read_filter(found: Any, depth: int = 0) -> engine.Filter | None:
    """The filter of a request; None where there is none."""
    if found is None:
        return None
    if depth > DEEPEST:
        raise malformed("filter: recursion limit exceeded")
    fields = Fields(found, "filter")
    clauses = {name: _clause(fields.take(name), name, depth) for name in ("must", "should", "must_not")}
    at_least = fields.take("min_should")
    fields.end()
    least = None
    if at_least is not None:
        inner = Fields(at_least, "min_should")
        conditions = _clause(inner.need("conditions"), "min_should.conditions", depth)
        least = engine.MinShould(conditions or [], read_count(inner.need("min_count"), "min_count"))
        inner.end()
    return engine.Filter(min_should=least, **clauses)


def _clause(found: Any, what: str, depth: int) -> list[Any] | None:
    if found is None:
        return None
    listed = found if isinstance(found, list) else [found]
    return [_condition(one, depth) for one in read_list(listed, what)]


def _condition(found: Any, depth: int) -> Any:
    fields = Fields(found, "condition")
    if fields.has("key"):
        return _of_field(fields)
    for name, read in _WITHOUT_KEY.items():
        if fields.has(name):
            value = fields.take(name)
            fields.end()
            return read(value, depth)
    if any(fields.has(name) for name in ("must", "should", "must_not", "min_should")):
        return read_filter(found, depth + 1)
    raise malformed("data did not match any variant of untagged enum Condition")


def _of_field(fields: Fields) -> Any:
    key = read_text(fields.take("key"), "key")
    parts = {name: read(fields.take(name)) for name, read in _OF_KEY.items() if fields.has(name)}
    fields.end()
    if not parts:
        raise malformed(f"condition on `{key}`: expected one of {', '.join(_OF_KEY)}")
    return made(lambda: engine.FieldCondition(key, **parts))


def _match(found: Any) -> Any:
    fields = Fields(found, "match")
    for name, make in _MATCHES.items():
        if fields.has(name):
            value = fields.take(name)
            fields.end()
            return made(partial(make, value))
    raise malformed(f"match: expected one of {', '.join(_MATCHES)}")


def _value(found: Any) -> engine.MatchValue:
    if not isinstance(found, str | int):
        raise malformed("match.value: expected a string, an integer or a boolean")
    value: Any = _Truth(found) if isinstance(found, bool) else found
    return engine.MatchValue(value)


class _Truth:
    """true or false as the engine's binding can tell them from numbers.

    It tries whole numbers first, and takes Python's True for 1, which no payload's true is equal to. Of numpy's it
    knows that they are none, by their name: so this is what they look like.
    """

    def __init__(self, value: bool) -> None:
        self._value = value

    def __bool__(self) -> bool:
        return self._value


_Truth.__module__, _Truth.__name__, _Truth.__qualname__ = "numpy", "bool_", "bool_"


def _any(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def read(found: Any) -> Any:
        values = read_list(found, "match")
        kinds = {type(one) for one in values}
        if not (kinds <= {str} or kinds <= {int}):
            raise malformed("match: expected strings only, or integers only")
        return make(values)

    return read


def _range(found: Any) -> Any:
    fields = Fields(found, "range")
    bounds = {name: fields.take(name) for name in ("lt", "gt", "gte", "lte")}
    fields.end()
    given = [one for one in bounds.values() if one is not None]
    if any(isinstance(one, str) for one in given):
        texts = {name: None if one is None else read_text(one, f"range.{name}") for name, one in bounds.items()}
        return made(lambda: engine.RangeDateTime(**texts))
    numbers = {name: None if one is None else read_number(one, f"range.{name}") for name, one in bounds.items()}
    return engine.RangeFloat(**numbers)


def _values_count(found: Any) -> Any:
    fields = Fields(found, "values_count")
    bounds = {name: fields.take(name) for name in ("lt", "gt", "gte", "lte")}
    fields.end()
    counts = {name: None if one is None else read_count(one, f"values_count.{name}") for name, one in bounds.items()}
    return engine.ValuesCount(**counts)


def _geo_point(found: Any) -> Any:
    fields = Fields(found, "geo point")
    lon, lat = (read_number(fields.need(name), name) for name in ("lon", "lat"))
    fields.end()
    return made(lambda: engine.GeoPoint(lon, lat))


def _box(found: Any) -> Any:
    fields = Fields(found, "geo_bounding_box")
    corners = [_geo_point(fields.need(name)) for name in ("top_left", "bottom_right")]
    fields.end()
    return made(lambda: engine.GeoBoundingBox(*corners))


def _circle(found: Any) -> Any:
    fields = Fields(found, "geo_radius")
    center, radius = _geo_point(fields.need("center")), read_number(fields.need("radius"), "radius")
    fields.end()
    return made(lambda: engine.GeoRadius(center, radius))


def _ring(found: Any) -> list[Any]:
    fields = Fields(found, "ring")
    points = [_geo_point(one) for one in read_list(fields.need("points"), "points")]
    fields.end()
    return points


def _polygon(found: Any) -> Any:
    fields = Fields(found, "geo_polygon")
    outer = _ring(fields.need("exterior"))
    inner = [_ring(one) for one in read_list(fields.take("interiors", []), "interiors")]
    fields.end()
    return made(lambda: engine.GeoPolygon(outer, inner))


def _key_of(found: Any, what: str) -> str:
    fields = Fields(found, what)
    key = read_text(fields.need("key"), "key")
    fields.end()
    return key


def _nested(found: Any, depth: int) -> Any:
    fields = Fields(found, "nested")
    key, inner = read_text(fields.need("key"), "key"), read_filter(fields.need("filter"), depth + 1)
    fields.end()
    if inner is None:
        raise malformed("nested.filter: expected an object")
    return made(lambda: engine.NestedCondition(key, inner))


_MATCHES: dict[str, Callable[[Any], Any]] = {
    "value": _value,
    "text": lambda found: engine.MatchText(read_text(found, "match.text")),
    "text_any": lambda found: engine.MatchTextAny(read_text(found, "match.text_any")),
    "phrase": lambda found: engine.MatchPhrase(read_text(found, "match.phrase")),
    "any": _any(engine.MatchAny),
    "except": _any(engine.MatchExcept),
}
_OF_KEY: dict[str, Callable[[Any], Any]] = {
    "match": _match,
    "range": _range,
    "geo_bounding_box": _box,
    "geo_radius": _circle,
    "geo_polygon": _polygon,
    "values_count": _values_count,
    "is_empty": lambda found: read_bool(found, "is_empty"),
    "is_null": lambda found: read_bool(found, "is_null"),
}
_WITHOUT_KEY: dict[str, Callable[[Any, int], Any]] = {
    "is_empty": lambda found, _: made(lambda: engine.IsEmptyCondition(_key_of(found, "is_empty"))),
    "is_null": lambda found, _: made(lambda: engine.IsNullCondition(_key_of(found, "is_null"))),
    "has_id": lambda found, _: engine.HasIdCondition({read_id(one) for one in read_list(found, "has_id")}),
    "has_vector": lambda found, _: engine.HasVectorCondition(read_text(found, "has_vector")),
    "nested": _nested,
}
