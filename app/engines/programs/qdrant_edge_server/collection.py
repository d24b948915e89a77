"""One collection: a shard of the engine, and what may be asked of it.

All that a request brings is read before the engine is told anything: it writes an operation to its log first and finds
out then that one of the points is wrong, keeps those before it, and does so again when it reads its log at the next
start. So a batch is wholly right before it is handed over.
"""

from __future__ import annotations

import qdrant_edge as engine

from .filters import read_filter
from .queries import read_query, read_search
from .reading import (
    Fields,
    made,
    read_bool,
    read_count,
    read_ids,
    read_list,
    read_payload,
    read_points,
    read_text,
    read_with_payload,
    read_with_vector,
    shown_id,
    shown_record,
)
from .refusals import Refused, invalid, malformed, not_here, wrong_input

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .shape import Shape

_DEFAULT_LIMIT = 10
#: How the engine says what is the request's fault; all of its errors are plain ``Exception``.
_OF_REQUEST = (
    "Vector dimension error",
    "Not existing vector name",
    "No range index",
    "Conversion between",
    "Bad request",
    "Wrong input",
    "Validation",
    "invalid",
)
_INDEXES = {
    "keyword": engine.PayloadSchemaType.Keyword,
    "integer": engine.PayloadSchemaType.Integer,
    "float": engine.PayloadSchemaType.Float,
    "geo": engine.PayloadSchemaType.Geo,
    "text": engine.PayloadSchemaType.Text,
    "bool": engine.PayloadSchemaType.Bool,
    "datetime": engine.PayloadSchemaType.Datetime,
    "uuid": engine.PayloadSchemaType.Uuid,
}


class Collection:
    """``dirty`` tells whether something was written since the last flush."""

    def __init__(self, name: str, shape: Shape, shard: engine.EdgeShard) -> None:
        self.name, self.shape, self._shard = name, shape, shard
        self.dirty = False
        self._operations = 0

    # -- what is stored ------------------------------------------------------------------------------------------

    def upsert(self, body: dict[str, Any]) -> dict[str, Any]:
        fields = Fields(body)
        fields.ignore("shard_key")
        for name in ("update_filter", "update_mode"):
            if fields.has(name):
                raise not_here(name)
        points = read_points(fields, self.shape)
        fields.end()
        if not points:
            raise invalid("points", "must not be empty")
        return self._change(lambda: engine.UpdateOperation.upsert_points(points))

    def delete(self, body: dict[str, Any]) -> dict[str, Any]:
        operation = engine.UpdateOperation
        return self._change_chosen(Fields(body), operation.delete_points, operation.delete_points_by_filter)

    def set_payload(self, body: dict[str, Any]) -> dict[str, Any]:
        """Join ``payload`` to that of the chosen points."""
        operation = engine.UpdateOperation
        return self._put_payload(body, operation.set_payload, operation.set_payload_by_filter)

    def overwrite_payload(self, body: dict[str, Any]) -> dict[str, Any]:
        """Put ``payload`` in the place of that of the chosen points."""
        operation = engine.UpdateOperation
        return self._put_payload(body, operation.overwrite_payload, operation.overwrite_payload_by_filter)

    def delete_payload(self, body: dict[str, Any]) -> dict[str, Any]:
        fields = Fields(body)
        keys = [read_text(one, "keys") for one in read_list(fields.need("keys"), "keys")]
        operation = engine.UpdateOperation
        return self._change_chosen(fields, operation.delete_payload, operation.delete_payload_by_filter, keys)

    def clear_payload(self, body: dict[str, Any]) -> dict[str, Any]:
        operation = engine.UpdateOperation
        return self._change_chosen(Fields(body), operation.clear_payload, operation.clear_payload_by_filter)

    def create_index(self, body: dict[str, Any]) -> dict[str, Any]:
        fields = Fields(body)
        name, schema = read_text(fields.need("field_name"), "field_name"), fields.take("field_schema", "keyword")
        fields.end()
        kind = schema.get("type") if isinstance(schema, dict) else schema
        if not isinstance(kind, str) or kind not in _INDEXES:
            raise malformed(f"field_schema: expected one of {', '.join(_INDEXES)}")
        if isinstance(schema, dict) and len(schema) > 1:
            raise not_here("field_schema with parameters")
        return self._change(lambda: engine.UpdateOperation.create_field_index(name, _INDEXES[kind]))

    def delete_index(self, name: str) -> dict[str, Any]:
        return self._change(lambda: engine.UpdateOperation.delete_field_index(name))

    def _put_payload(
        self, body: dict[str, Any], by_ids: Callable[..., Any], by_filter: Callable[..., Any]
    ) -> dict[str, Any]:
        fields = Fields(body)
        payload, key = read_payload(fields.need("payload")), fields.take("key")
        path = None if key is None else read_text(key, "key")
        return self._change_chosen(fields, by_ids, by_filter, payload, path)

    def _change_chosen(
        self, fields: Fields, by_ids: Callable[..., Any], by_filter: Callable[..., Any], *more: Any
    ) -> dict[str, Any]:
        """Change points that are chosen by their ids, or by a filter: one of the two."""
        fields.ignore("shard_key")
        points, found = fields.take("points"), read_filter(fields.take("filter"))
        fields.end()
        if (points is None) == (found is None):
            raise malformed("expected `points` or `filter`")
        if points is None:
            return self._change(lambda: by_filter(found, *more))
        ids = read_ids(points, "points")
        return self._change(lambda: by_ids(ids, *more))

    def _change(self, make: Callable[[], Any]) -> dict[str, Any]:
        operation = made(make)
        self.dirty = True
        self._asked(lambda: self._shard.update(operation))
        self._operations += 1
        return {"operation_id": self._operations, "status": "completed"}

    # -- what is read --------------------------------------------------------------------------------------------

    def retrieve(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        fields = Fields(body)
        fields.ignore("shard_key")
        ids = read_ids(fields.need("ids"), "ids")
        payload, vector = read_with_payload(fields.take("with_payload", True)), fields.take("with_vector")
        fields.end()
        return self._records(ids, payload, read_with_vector(vector))

    def point(self, number: int | str) -> dict[str, Any]:
        found = self._records([number], True, True)
        if not found:
            raise Refused(404, f"Not found: Point with id {number} does not exists!")
        return found[0]

    def _records(self, ids: list[int | str], payload: Any, vector: Any) -> list[dict[str, Any]]:
        if not ids:
            return []
        found = self._asked(lambda: self._shard.retrieve(list(dict.fromkeys(ids)), payload, vector))
        return [shown_record(one) for one in found]

    def scroll(self, body: dict[str, Any]) -> dict[str, Any]:
        fields = Fields(body)
        fields.ignore("shard_key")
        limit = self._limit(fields, _DEFAULT_LIMIT)
        offset, order = fields.take("offset"), fields.take("order_by")
        found = read_filter(fields.take("filter"))
        payload = read_with_payload(fields.take("with_payload", True))
        vector = read_with_vector(fields.take("with_vector"))
        fields.end()
        if order is not None and offset is not None:
            raise wrong_input("Cannot use an `offset` when using `order_by`. Use `start_from` instead")
        request = made(
            lambda: engine.ScrollRequest(
                offset=None if offset is None else read_ids([offset], "offset")[0],
                limit=limit,
                filter=found,
                with_payload=payload,
                with_vector=vector,
                order_by=None if order is None else read_order(order),
            )
        )
        points, after = self._asked(lambda: self._shard.scroll(request))
        return {
            "points": [shown_record(one) for one in points],
            "next_page_offset": None if after is None else shown_id(after),
        }

    def count(self, body: dict[str, Any]) -> dict[str, Any]:
        fields = Fields(body)
        fields.ignore("shard_key")
        # it is always exact here
        read_bool(fields.take("exact", True), "exact")
        found = read_filter(fields.take("filter"))
        fields.end()
        return {"count": self._asked(lambda: self._shard.count(engine.CountRequest(exact=True, filter=found)))}

    def search(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        return self._scored(read_search(body, self.shape, self.points))

    def query(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"points": self._scored(read_query(body, self.shape, self.points, self._vector_of))}

    def _scored(self, request: engine.QueryRequest) -> list[dict[str, Any]]:
        found = self._asked(lambda: self._shard.query(request))
        return [shown_record(one, {"version": one.version, "score": one.score}) for one in found]

    def _vector_of(self, number: int | str, using: str) -> Any:
        """The vector of a point that a query names instead of a vector."""
        found = self._asked(lambda: self._shard.retrieve([number], False, True))
        vectors = found[0].vector if found else None
        vector = vectors.get(using) if isinstance(vectors, dict) else (None if using else vectors)
        if vector is None:
            raise Refused(404, f"Not found: No point with id {number} found")
        return vector

    def _limit(self, fields: Fields, default: int) -> int:
        limit = read_count(fields.take("limit", default), "limit")
        if limit < 1:
            raise invalid("limit", f"value {limit} invalid, must be 1 or larger")
        # the engine need not make room for more than there is
        return min(limit, max(self.points, 1))

    # -- what it is ----------------------------------------------------------------------------------------------

    @property
    def points(self) -> int:
        return int(self._asked(self._shard.info).points_count)

    def info(self) -> dict[str, Any]:
        found = self._asked(self._shard.info)
        kinds = {kind: name for name, kind in _INDEXES.items()}
        return {
            "status": "green",
            "optimizer_status": "ok",
            "indexed_vectors_count": found.indexed_vectors_count,
            "points_count": found.points_count,
            "segments_count": found.segments_count,
            "config": {"params": {**self.shape.shown(), **_PARAMS}, **_CONFIG},
            "payload_schema": {
                name: {
                    "data_type": next(word for kind, word in kinds.items() if kind == one.data_type),
                    "points": one.points,
                }
                for name, one in found.payload_schema.items()
            },
        }

    def flush(self) -> None:
        """Write to its files what its log holds already."""
        self._asked(self._shard.flush)
        self.dirty = False

    def close(self) -> None:
        self._asked(self._shard.close)

    def _asked(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except (ValueError, TypeError, OverflowError) as error:
            raise malformed(str(error).splitlines()[0]) from None
        except Exception as error:  # noqa: BLE001 - the engine raises nothing narrower
            words = str(error)
            if words.startswith(_OF_REQUEST):
                raise wrong_input(words) from None
            raise Refused(500, f"Service internal error: {words}") from None


def read_order(found: Any) -> engine.OrderBy:
    """``order_by``: a key, or an object with its direction and where to start."""
    if isinstance(found, str):
        return made(lambda: engine.OrderBy(found))
    fields = Fields(found, "order_by")
    key, direction, start = fields.need("key"), fields.take("direction", "asc"), fields.take("start_from")
    fields.end()
    if direction not in ("asc", "desc"):
        raise malformed("order_by.direction: expected `asc` or `desc`")
    way = engine.Direction.Asc if direction == "asc" else engine.Direction.Desc
    return made(lambda: engine.OrderBy(read_text(key, "order_by.key"), way, start))


_PARAMS = {"shard_number": 1, "replication_factor": 1, "write_consistency_factor": 1, "on_disk_payload": True}
#: What readers of Qdrant's answer expect to be there: the engine's own defaults.
_CONFIG = {
    "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000, "max_indexing_threads": 0},
    "optimizer_config": {
        "deleted_threshold": 0.2,
        "vacuum_min_vector_number": 1000,
        "default_segment_number": 0,
        "flush_interval_sec": 5,
    },
    "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0},
    "quantization_config": None,
}
