"""``points/search`` and ``points/query``: from JSON to one query of the engine."""

from __future__ import annotations

import qdrant_edge as engine

from .filters import read_filter
from .reading import (
    Fields,
    made,
    read_count,
    read_id,
    read_list,
    read_number,
    read_params,
    read_text,
    read_vector,
    read_with_payload,
    read_with_vector,
)
from .refusals import invalid, malformed, not_here, wrong_input

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .shape import Shape

_DEFAULT_LIMIT = 10
#: Prefetches of one query, and how deep they may stand in each other.
MOST_PREFETCHES = 16
DEEPEST = 4
_ELSEWHERE = ("recommend", "discover", "context", "formula", "relevance_feedback", "mmr", "rrf")


def read_search(body: dict[str, Any], shape: Shape, points: int) -> engine.QueryRequest:
    """``vector``: a list, or ``{"name", "vector"}``."""
    fields = Fields(body)
    fields.ignore("shard_key")
    found, name = fields.need("vector"), ""
    limit = fields.need("limit")
    if isinstance(found, dict):
        named = Fields(found, "vector")
        name, found = read_text(named.need("name"), "vector.name"), named.need("vector")
        named.end()
    query = engine.Query.Nearest(read_vector(found, shape, name), name)
    return _request(fields, query, None, limit, points)


def read_query(
    body: dict[str, Any], shape: Shape, points: int, vector_of: Callable[[int | str, str], Any]
) -> engine.QueryRequest:
    """``query``: a vector, the id of a point, an object that says what kind it is, or nothing: points by their id."""
    fields = Fields(body)
    fields.ignore("shard_key")
    if fields.has("lookup_from"):
        raise not_here("lookup_from")
    reader = _Reader(shape, points, vector_of)
    using = read_text(fields.take("using", ""), "using")
    prefetches = reader.prefetches(fields.take("prefetch"), 0)
    query, itself = reader.query(fields.take("query"), using, bool(prefetches))
    return _request(fields, query, prefetches, fields.take("limit", _DEFAULT_LIMIT), points, itself)


class _Reader:
    """What all parts of one query share."""

    def __init__(self, shape: Shape, points: int, vector_of: Callable[[int | str, str], Any]) -> None:
        self._shape, self._points, self._vector_of = shape, points, vector_of
        self._prefetches = 0

    def query(self, found: Any, using: str, fuses: bool) -> tuple[Any, int | str | None]:
        """(the query, the point that it is about and that is no answer to it)."""
        if found is None:
            return None, None
        if isinstance(found, dict) and not {"indices", "values"} & set(found):
            return self._of_kind(found, using, fuses)
        return self._nearest(found, using)

    def _of_kind(self, found: dict[str, Any], using: str, fuses: bool) -> tuple[Any, int | str | None]:
        fields = Fields(found, "query")
        for name in _ELSEWHERE:
            if fields.has(name):
                raise not_here(f"query.{name}")
        for name in ("nearest", "order_by", "sample", "fusion"):
            if fields.has(name):
                value = fields.take(name)
                fields.end()
                if name == "nearest":
                    return self._nearest(value, using)
                return self._other(name, value, fuses), None
        raise malformed("query: expected one of nearest, order_by, sample, fusion")

    def _other(self, name: str, value: Any, fuses: bool) -> Any:
        from .collection import read_order

        if name == "order_by":
            return read_order(value)
        if name == "sample":
            if value != "random":
                raise malformed("query.sample: expected `random`")
            return engine.Sample.Random
        if value not in ("rrf", "dbsf"):
            raise malformed("query.fusion: expected `rrf` or `dbsf`")
        if not fuses:
            raise wrong_input("cannot apply Fusion without prefetches")
        return engine.Fusion.Rrf(k=2) if value == "rrf" else engine.Fusion.Dbsf()

    def _nearest(self, found: Any, using: str) -> tuple[Any, int | str | None]:
        if isinstance(found, list | dict):
            return engine.Query.Nearest(read_vector(found, self._shape, using), using), None
        number = read_id(found)
        return engine.Query.Nearest(self._vector_of(number, using), using), number

    def prefetches(self, found: Any, depth: int) -> list[engine.Prefetch] | None:
        if found is None:
            return None
        if depth >= DEEPEST:
            raise malformed("prefetch: recursion limit exceeded")
        return [
            self._prefetch(one, depth) for one in (read_list(found, "prefetch") if isinstance(found, list) else [found])
        ]

    def _prefetch(self, found: Any, depth: int) -> engine.Prefetch:
        self._prefetches += 1
        if self._prefetches > MOST_PREFETCHES:
            raise wrong_input(f"more than {MOST_PREFETCHES} prefetches")
        fields = Fields(found, "prefetch")
        using = read_text(fields.take("using", ""), "prefetch.using")
        inner = self.prefetches(fields.take("prefetch"), depth + 1)
        query, itself = self.query(fields.take("query"), using, bool(inner))
        limit = _limit(fields.take("limit", _DEFAULT_LIMIT), self._points)
        chosen = _without(read_filter(fields.take("filter")), itself)
        params, threshold = read_params(fields.take("params")), _threshold(fields)
        fields.end()
        return made(
            lambda: engine.Prefetch(
                limit=limit, query=query, prefetches=inner, params=params, filter=chosen, score_threshold=threshold
            )
        )


def _request(
    fields: Fields,
    query: Any,
    prefetches: list[engine.Prefetch] | None,
    limit: Any,
    points: int,
    itself: int | str | None = None,
) -> engine.QueryRequest:
    offset = read_count(fields.take("offset", 0), "offset")
    chosen = _without(read_filter(fields.take("filter")), itself)
    params, threshold = read_params(fields.take("params")), _threshold(fields)
    payload = read_with_payload(fields.take("with_payload"))
    vector = read_with_vector(fields.take("with_vector"))
    fields.end()
    most = _limit(limit, points)
    return made(
        lambda: engine.QueryRequest(
            limit=most,
            # beyond the last point is beyond it, however far
            offset=min(offset, points + 1),
            query=query,
            prefetches=prefetches,
            with_vector=vector,
            with_payload=payload,
            filter=chosen,
            score_threshold=threshold,
            params=params,
        )
    )


def _limit(found: Any, points: int) -> int:
    limit = read_count(found, "limit")
    if limit < 1:
        raise invalid("limit", f"value {limit} invalid, must be 1 or larger")
    # the engine need not make room for more than there is
    return min(limit, max(points, 1))


def _threshold(fields: Fields) -> float | None:
    found = fields.take("score_threshold")
    return None if found is None else read_number(found, "score_threshold")


def _without(chosen: engine.Filter | None, itself: int | str | None) -> engine.Filter | None:
    """The same filter, and not the point that the query is about."""
    if itself is None:
        return chosen
    return engine.Filter(must=[chosen] if chosen is not None else None, must_not=[engine.HasIdCondition({itself})])
