"""The small server over Qdrant's engine: its answers beside a search by hand."""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.engines import Running
from tests.support.qdrant_edge import SIZE, VECTOR, ask, make, must


def short(value: float) -> float:
    found: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return found


NUMBERS = st.floats(-100, 100, width=32).map(lambda one: 0.0 if abs(one) < 1e-3 else one)
VECTORS = st.lists(NUMBERS, min_size=SIZE, max_size=SIZE).filter(any)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), TEXTS
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)
PAYLOADS = st.fixed_dictionaries(
    {"kind": st.sampled_from(["a", "b", "c"]), "size": st.integers(-5, 5), "new": st.booleans()}
)
IDS = st.one_of(st.integers(0, 2**64 - 1), st.uuids().map(str))
SOME_POINTS = st.dictionaries(IDS, st.tuples(VECTORS, PAYLOADS), min_size=1, max_size=25)


def nearness(distance: str, one: list[float], other: list[float]) -> float:
    if distance == "Euclid":
        return math.dist(one, other)
    if distance == "Manhattan":
        return sum(abs(a - b) for a, b in zip(one, other, strict=True))
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product if distance == "Dot" else product / (math.hypot(*one) * math.hypot(*other))


#: (the filter, who passes it)
FILTERS: list[tuple[dict[str, Any] | None, Callable[[dict[str, Any]], bool]]] = [
    (None, lambda _one: True),
    ({"must": [{"key": "kind", "match": {"value": "a"}}]}, lambda one: one["kind"] == "a"),
    ({"must": {"key": "new", "match": {"value": True}}}, lambda one: one["new"]),
    ({"must_not": [{"key": "new", "match": {"value": False}}]}, lambda one: one["new"]),
    ({"must": [{"key": "size", "match": {"value": 1}}]}, lambda one: one["size"] == 1),
    ({"must": [{"key": "size", "range": {"gte": -1, "lt": 3}}]}, lambda one: -1 <= one["size"] < 3),
    ({"must": [{"key": "kind", "match": {"any": ["a", "c"]}}]}, lambda one: one["kind"] in "ac"),
    ({"must": [{"key": "kind", "match": {"except": ["a"]}}]}, lambda one: one["kind"] != "a"),
    (
        {"should": [{"key": "kind", "match": {"value": "b"}}, {"must": [{"key": "size", "range": {"gt": 2}}]}]},
        lambda one: one["kind"] == "b" or one["size"] > 2,
    ),
    ({"must": [{"is_empty": {"key": "gone"}}], "must_not": [{"is_empty": {"key": "kind"}}]}, lambda _one: True),
    (
        {
            "min_should": {
                "min_count": 2,
                "conditions": [{"key": "new", "match": {"value": True}}, {"key": "kind", "match": {"value": "a"}}],
            }
        },
        lambda one: one["new"] and one["kind"] == "a",
    ),
]


@pytest.mark.parametrize("distance", ["Cosine", "Euclid", "Dot", "Manhattan"])
def test_it_finds_what_a_search_by_hand_finds(shared: Running, distance: str) -> None:
    names = iter(range(10_000))

    @settings(
        max_examples=30, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
    )
    @given(points=SOME_POINTS, asked=VECTORS, chosen=st.sampled_from(FILTERS), limit=st.integers(1, 30))
    def find(points: dict[Any, Any], asked: list[float], chosen: Any, limit: int) -> None:
        at = make(shared, f"{distance}{next(names)}", distance)
        batch = [{"id": one, "vector": vector, "payload": payload} for one, (vector, payload) in points.items()]
        must(shared, "PUT", f"{at}/points", {"points": batch})
        filter_, passes = chosen
        body = {"query": asked, "limit": limit, "filter": filter_, "with_payload": True}
        found = must(shared, "POST", f"{at}/points/query", body)["points"]
        wanted = {
            one: nearness(distance, vector, asked) for one, (vector, payload) in points.items() if passes(payload)
        }
        assert len(found) == min(limit, len(wanted))
        for one in found:
            assert one["score"] == pytest.approx(wanted[one["id"]], rel=1e-3, abs=1e-2)
            assert one["payload"] == points[one["id"]][1]
        # of equals any may come first
        best = sorted(wanted.values(), reverse=distance in ("Cosine", "Dot"))[: len(found)]
        assert [one["score"] for one in found] == pytest.approx(best, rel=1e-3, abs=1e-2)
        assert must(shared, "POST", f"{at}/points/count", {"filter": filter_}) == {"count": len(wanted)}
        must(shared, "DELETE", at)

    find()


def test_what_is_put_in_comes_out(shared: Running) -> None:
    at = make(shared, "round")
    number = iter(range(10**9))

    @settings(
        max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
    )
    @given(
        points=st.dictionaries(
            IDS, st.tuples(VECTORS, st.dictionaries(TEXTS, JSON, max_size=4)), min_size=1, max_size=8
        )
    )
    def put(points: dict[Any, Any]) -> None:
        next(number)
        batch = [{"id": one, "vector": vector, "payload": payload} for one, (vector, payload) in points.items()]
        must(shared, "PUT", f"{at}/points", {"points": batch})
        body = {"ids": list(points), "with_payload": True, "with_vector": True}
        for one in must(shared, "POST", f"{at}/points", body):
            vector, payload = points[one["id"]]
            assert one["vector"] == [short(value) for value in vector]
            assert alike(one["payload"], payload)
            assert alike(must(shared, "GET", f"{at}/points/{one['id']}")["payload"], payload)
        must(shared, "POST", f"{at}/points/delete", {"points": list(points)})
        assert must(shared, "POST", f"{at}/points/count", {}) == {"count": 0}

    put()
    must(shared, "DELETE", at)


def alike(found: Any, wanted: Any) -> bool:
    """The same, but for the last digit of a fraction: so the engine reads what it keeps."""
    if isinstance(wanted, dict):
        return list(found) == list(wanted) and all(alike(found[name], wanted[name]) for name in wanted)
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(alike, found, wanted))
    if isinstance(wanted, float):
        return isinstance(found, float) and math.isclose(found, wanted, rel_tol=1e-15)
    return type(found) is type(wanted) and bool(found == wanted)


def test_pages_show_each_point_once(shared: Running) -> None:
    at = make(shared, "pages")
    must(shared, "PUT", f"{at}/points", {"points": [{"id": n, "vector": [n, 1, 1]} for n in range(57)]})
    seen: list[int] = []
    offset = None
    while True:
        page = must(shared, "POST", f"{at}/points/scroll", {"limit": 10, "offset": offset})
        seen += [one["id"] for one in page["points"]]
        offset = page["next_page_offset"]
        if offset is None:
            break
    assert seen == list(range(57))
    must(shared, "DELETE", at)


def test_many_at_once_are_answered_one_after_the_other(shared: Running) -> None:
    at = make(shared, "busy")
    wrong: list[Any] = []

    def write(number: int) -> None:
        for batch in range(20):
            points = [{"id": number * 1000 + batch * 10 + one, "vector": [number, batch, one]} for one in range(10)]
            for method, path, body in (
                ("PUT", f"{at}/points", {"points": points}),
                ("POST", f"{at}/points/query", {"query": VECTOR, "limit": 5}),
            ):
                status, said = ask(shared, method, path, body)
                if status != 200:
                    wrong.append(said)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert must(shared, "POST", f"{at}/points/count", {}) == {"count": 1600}
    must(shared, "DELETE", at)
