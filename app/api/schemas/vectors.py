"""Vector databases: collections, their points, and what comes back, in Qdrant's own words where we have no others."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from typing import Any

import marshmallow as ma
from marshmallow import validate

from app.api.schemas.base import Answer, Body, Page
from app.api.schemas.fields import Flag, JsonObject, Number, Text, Whole
from app.api.schemas.services import Service

DISTANCES = ("Cosine", "Euclid", "Dot", "Manhattan")
LARGEST_VECTOR = 65_536
MOST_POINTS = 10_000
#: Points that one answer may hold.
LARGEST_LIMIT = 10_000
_UUID = re.compile(r"[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")
#: A point's id as it stands in an address.
POINT_ID = re.compile(rf"[0-9]{{1,20}}|{_UUID.pattern}")
_LARGEST_ID = 2**64 - 1
_NUMBERS = {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": LARGEST_VECTOR}
_SPARSE = {
    "type": "object",
    "required": ["indices", "values"],
    "properties": {
        "indices": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "values": {"type": "array", "items": {"type": "number"}},
    },
}
_ID = {"oneOf": [{"type": "integer", "minimum": 0, "maximum": _LARGEST_ID}, {"type": "string", "format": "uuid"}]}


class PointId(ma.fields.Field):
    """An unsigned integer of 64 bits, or a UUID."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(metadata={**_ID, **kwargs.pop("metadata", {})}, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int | str:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST_ID:
            return value
        if isinstance(value, str) and _UUID.fullmatch(value):
            return value
        raise ma.ValidationError("Must be an unsigned integer or a UUID.")


class Vector(ma.fields.Field):
    """Numbers; ``named``: or an object of vectors by name; ``sparse``: or indices and values.

    Looked at in one go: a batch holds hundreds of thousands of numbers.
    """

    def __init__(self, *, named: bool = False, **kwargs: Any) -> None:
        self._named = named
        forms: list[Any] = [_NUMBERS, _SPARSE]
        if named:
            forms = [_NUMBERS, {"type": "object", "additionalProperties": {"oneOf": [_NUMBERS, _SPARSE]}}]
        super().__init__(metadata={"oneOf": forms, **kwargs.pop("metadata", {})}, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if self._named and isinstance(value, dict):
            for name, one in value.items():
                _check_vector(one, f"{name}: ")
        else:
            _check_vector(value, "")
        return value


def _check_vector(value: Any, where: str) -> None:
    if isinstance(value, dict):
        if set(value) != {"indices", "values"} or not isinstance(value["indices"], list):
            raise ma.ValidationError(f"{where}Must be a list of numbers, or an object of indices and values.")
        if not all(type(one) is int and 0 <= one < 2**32 for one in value["indices"]):
            raise ma.ValidationError(f"{where}Indices must be unsigned integers of 32 bits.")
        if not isinstance(value["values"], list) or len(value["values"]) != len(value["indices"]):
            raise ma.ValidationError(f"{where}There must be as many values as indices.")
        _check_numbers(value["values"], where)
        return
    if not isinstance(value, list):
        raise ma.ValidationError(f"{where}Must be a list of numbers.")
    if not 1 <= len(value) <= LARGEST_VECTOR:
        raise ma.ValidationError(f"{where}Must have 1 to {LARGEST_VECTOR} numbers.")
    _check_numbers(value, where)


def _check_numbers(numbers: list[Any], where: str) -> None:
    if not all(type(one) is float or type(one) is int for one in numbers):
        raise ma.ValidationError(f"{where}Must hold numbers only.")
    try:
        struct.pack(f"<{len(numbers)}f", *numbers)
    except (OverflowError, struct.error):
        raise ma.ValidationError(f"{where}Holds a number beyond the range of 32-bit floats.") from None
    if not all(map(math.isfinite, numbers)):
        raise ma.ValidationError(f"{where}Must hold finite numbers.")


class CollectionBody(Body):
    """What the vectors of a collection are."""

    vector_size = Whole(1, LARGEST_VECTOR, required=True, metadata={"description": "Numbers of each.", "example": 384})
    distance = ma.fields.String(
        load_default=DISTANCES[0], validate=validate.OneOf(DISTANCES), metadata={"description": "How near is measured."}
    )
    on_disk = Flag(metadata={"description": "Keep vectors on disk and not in memory; Qdrant decides when left out."})


class Point(Body):
    """A vector with its id and whatever belongs to it."""

    id = PointId(required=True, metadata={"example": 1})
    vector = Vector(named=True, required=True, metadata={"example": [0.1, 0.2, 0.3, 0.4]})
    payload = JsonObject(allow_none=True, metadata={"example": {"text": "First document"}})


class PointsBody(Body):
    """Points to write; those whose id is there already are replaced."""

    points = ma.fields.List(ma.fields.Nested(Point), required=True, validate=validate.Length(1, MOST_POINTS))


def _filter() -> JsonObject:
    return JsonObject(
        allow_none=True,
        metadata={
            "description": "Qdrant's filter: `must`, `should`, `must_not`, `min_should` of conditions.",
            "example": {"must": [{"key": "lang", "match": {"value": "en"}}]},
        },
    )


class Selection(ma.fields.Field):
    """true or false, or a list of names; ``objects``: or Qdrant's ``{"include": [...]}``, ``{"exclude": [...]}``."""

    def __init__(self, *, objects: bool = False, **kwargs: Any) -> None:
        self._objects = objects
        names = {"type": "array", "items": {"type": "string"}}
        forms: list[Any] = [{"type": "boolean"}, names]
        if objects:
            forms.append({"type": "object", "properties": {"include": names, "exclude": names}})
        super().__init__(metadata={"oneOf": forms, **kwargs.pop("metadata", {})}, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, bool) or _is_names(value):
            return value
        if self._objects and isinstance(value, dict) and len(value) == 1:
            [(kind, names)] = value.items()
            if kind in ("include", "exclude") and _is_names(names):
                return value
        raise ma.ValidationError("Must be true, false, or a list of names.")


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


class SearchBody(Body):
    """A vector, and how many of those nearest to it are wanted."""

    query_vector = Vector(required=True, metadata={"example": [0.1, 0.2, 0.3, 0.4]})
    limit = Whole(1, LARGEST_LIMIT, load_default=10, metadata={"description": "Most points to answer."})
    offset = Whole(0, 2**31 - 1, load_default=0, metadata={"description": "Of the nearest, so many are left out."})
    using = Text(0, 255, metadata={"description": "Name of the vector, in a collection of named ones."})
    filter = _filter()
    with_payload = Selection(objects=True, load_default=True, metadata={"description": "Answer payloads too."})
    with_vector = Selection(load_default=False, metadata={"description": "Answer vectors too."})
    score_threshold = Number(-1e30, 1e30, allow_none=True, metadata={"description": "Leave out what is less near."})


class PointsQuery(Body):
    """Which points."""

    ids = ma.fields.List(PointId(), required=True, validate=validate.Length(1, LARGEST_LIMIT))
    with_payload = Selection(objects=True, load_default=True)
    with_vector = Selection(load_default=False)


class ScrollBody(Body):
    """Points by their id, page by page."""

    limit = Whole(1, LARGEST_LIMIT, load_default=10)
    offset = PointId(allow_none=True, metadata={"description": "`next_page_offset` of the page before."})
    filter = _filter()
    with_payload = Selection(objects=True, load_default=True)
    with_vector = Selection(load_default=False)


class CountBody(Body):
    """Which points to count; all of them where nothing is said."""

    filter = _filter()
    exact = Flag(load_default=True, metadata={"description": "False: an estimate will do."})


class DeleteBody(Body):
    """Which points to delete: by their ids, or by a filter."""

    points = ma.fields.List(PointId(), validate=validate.Length(1, MOST_POINTS))
    filter = JsonObject(metadata={"description": "Qdrant's filter. One that is empty chooses all."})

    def required_by(self, data: Mapping[str, Any]) -> tuple[str, ...]:
        return () if "filter" in data else ("points",)

    def contradictions(self, data: Mapping[str, Any]) -> dict[str, list[str]]:
        both = "points" in data and "filter" in data
        return {name: ["Send points or filter."] for name in ("points", "filter")} if both else {}


class StoreAnswer(Answer):
    """What Qdrant answers, and whose answer it is."""

    success = ma.fields.Boolean(required=True, metadata={"const": True})
    status = ma.fields.String(required=True, metadata={"description": "Qdrant's: `ok`."})
    time = ma.fields.Float(required=True, metadata={"description": "Seconds that the store took."})
    service_id = ma.fields.String(required=True)
    replica_id = ma.fields.String(required=True)


class CollectionList(StoreAnswer):
    """Collections by name."""

    collections = ma.fields.List(ma.fields.String(), required=True)
    total = ma.fields.Integer(required=True)
    result = ma.fields.Dict(required=True, metadata={"description": "Qdrant's: `collections`, each with its `name`."})


class CollectionInfo(StoreAnswer):
    """One collection: how many points, of what kind."""

    collection = ma.fields.String(required=True)
    result = ma.fields.Dict(required=True, metadata={"description": "Qdrant's: status, points_count, config..."})


class CollectionChanged(StoreAnswer):
    """It is so."""

    collection = ma.fields.String(required=True)
    result = ma.fields.Boolean(required=True)


class PointsChanged(StoreAnswer):
    """The points are as asked, and stay so."""

    collection = ma.fields.String(required=True)
    result = ma.fields.Dict(required=True, metadata={"description": "Qdrant's: `operation_id`, `status`."})


class PointList(StoreAnswer):
    """Points as Qdrant shows them: `id`, and as asked `score`, `payload`, `vector`."""

    collection = ma.fields.String(required=True)
    result = ma.fields.List(ma.fields.Dict(), required=True)


class PointInfo(StoreAnswer):
    """One point."""

    collection = ma.fields.String(required=True)
    result = ma.fields.Dict(required=True)


class PointPage(StoreAnswer):
    """A page of points."""

    collection = ma.fields.String(required=True)
    result = ma.fields.Dict(required=True, metadata={"description": "Qdrant's: `points`, `next_page_offset`."})


class PointCount(StoreAnswer):
    """How many points."""

    collection = ma.fields.String(required=True)
    result = ma.fields.Dict(required=True, metadata={"description": "Qdrant's: `count`."})


class VectorServicePage(Page):
    """Vector databases, newest first."""

    services = ma.fields.List(ma.fields.Nested(Service), required=True)
