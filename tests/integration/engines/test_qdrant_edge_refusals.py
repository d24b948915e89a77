"""What the small server over Qdrant's engine refuses: in Qdrant's words and codes, and never by breaking."""

from __future__ import annotations

import http.client
import uuid
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.engines import HOST, KEY, Running
from tests.support.qdrant_edge import DOT, VECTOR, ask, make, must

POINTS, QUERY = "/collections/w/points", "/collections/w/points/query"


WRONG: list[tuple[str, str, Any, int, str]] = [
    ("PUT", "/collections/w", {"vectors": DOT}, 409, "already exists"),
    ("PUT", "/collections/v", {"vectors": {"size": 3, "distance": "dot"}}, 400, "unknown variant `dot`"),
    ("PUT", "/collections/v", {"vectors": {"size": 3, "distance": ["Dot"]}}, 400, "expected a string"),
    ("PUT", "/collections/v", {"vectors": {"size": 0, "distance": "Dot"}}, 422, "value 0 invalid"),
    ("PUT", "/collections/v", {"vectors": {"size": 65537, "distance": "Dot"}}, 422, "65537"),
    ("PUT", "/collections/v", {"vectors": {"distance": "Dot"}}, 400, "missing field `size`"),
    ("PUT", "/collections/v", {"vectrs": {}}, 400, "unknown field `vectrs`"),
    ("PUT", "/collections/v", {"vectors": {**DOT, "multivector_config": {}}}, 400, "use the engine qdrant"),
    ("PUT", "/collections/" + "v" * 256, {"vectors": DOT}, 422, "1 to 255"),
    ("PUT", "/collections/a%2Fb", {"vectors": DOT}, 422, "character"),
    ("PUT", "/collections/%ff", {"vectors": DOT}, 400, "UTF-8"),
    ("GET", "/collections/none", None, 404, "Collection `none` doesn't exist!"),
    ("POST", "/collections/none/points/query", {"query": VECTOR}, 404, "doesn't exist"),
    ("PUT", POINTS, {"points": [{"id": 1, "vector": [1.0]}]}, 400, "expected dim: 3, got 1"),
    ("PUT", POINTS, {"points": [{"id": 1, "vector": []}]}, 400, "expected dim: 3, got 0"),
    ("PUT", POINTS, {"points": [{"id": 1, "vector": {"a": VECTOR}}]}, 400, "Not existing vector name"),
    ("PUT", POINTS, {"points": [{"id": 1, "vector": [1e39, 0, 0]}]}, 400, "32-bit"),
    ("PUT", POINTS, {"points": [{"id": 1, "vector": [True, 0, 0]}]}, 400, "list of numbers"),
    ("PUT", POINTS, {"points": [{"id": "x", "vector": VECTOR}]}, 400, "is not a valid point ID"),
    ("PUT", POINTS, {"points": [{"id": -1, "vector": VECTOR}]}, 400, "is not a valid point ID"),
    ("PUT", POINTS, {"points": [{"id": 2**64, "vector": VECTOR}]}, 400, "is not a valid point ID"),
    ("PUT", POINTS, {"points": [{"id": 1.5, "vector": VECTOR}]}, 400, "is not a valid point ID"),
    ("PUT", POINTS, {"points": [{"vector": VECTOR}]}, 400, "missing field `id`"),
    ("PUT", POINTS, {"points": [{"id": 1}]}, 400, "missing field `vector`"),
    ("PUT", POINTS, {"points": []}, 422, "must not be empty"),
    ("PUT", POINTS, {"points": 1}, 400, "expected a list"),
    ("PUT", POINTS, {"batch": {"ids": [1], "vectors": []}}, 422, "must match"),
    ("PUT", POINTS, b'{"points": [{"id": 1, "vector": [NaN, 1, 1]}]}', 400, "NaN is no number"),
    ("PUT", POINTS, b'{"points": [{"id": 1, "vector": [1e999, 1, 1]}]}', 400, "out of range"),
    ("PUT", POINTS, b'{"points": [{"id": 1, "vector": [1], "payload": {"a": "\\ud800"}}]}', 400, "surrogates"),
    ("PUT", POINTS, b"{", 400, "Format error in JSON body"),
    ("PUT", POINTS, b"[" * 100_000, 400, "recursion limit"),
    ("PUT", POINTS, b"[]", 400, "expected an object"),
    ("PUT", POINTS, b"", 400, "Format error"),
    ("PUT", POINTS, b"\xff\xfe", 400, "Format error"),
    ("POST", QUERY, {"query": [1.0]}, 400, "expected dim: 3, got 1"),
    ("POST", QUERY, {"query": VECTOR, "limit": 0}, 422, "must be 1 or larger"),
    ("POST", QUERY, {"query": VECTOR, "limit": -1}, 400, "unsigned integer"),
    ("POST", QUERY, {"query": VECTOR, "using": "other"}, 400, "Not existing vector name"),
    ("POST", QUERY, {"query": 99}, 404, "No point with id 99"),
    ("POST", QUERY, {"query": {"recommend": {}}}, 400, "use the engine qdrant"),
    ("POST", QUERY, {"query": {"fusion": "rrf"}}, 400, "without prefetches"),
    ("POST", QUERY, {"query": VECTOR, "filter": {"must": [{}]}}, 400, "did not match any variant"),
    ("POST", QUERY, {"query": VECTOR, "filter": {"most": []}}, 400, "unknown field `most`"),
    ("POST", QUERY, {"filter": {"must": [{"key": "a[", "match": {"value": 1}}]}}, 400, "JSON path"),
    ("POST", QUERY, {"filter": {"must": [{"key": "a", "match": {"any": [1, "x"]}}]}}, 400, "strings only"),
    ("POST", f"{POINTS}/scroll", {"order_by": "unindexed"}, 400, "No range index"),
    ("POST", "/collections/w/points/search", {"vector": VECTOR}, 400, "missing field `limit`"),
    ("POST", "/collections/w/points/delete", {}, 400, "`points` or `filter`"),
    ("GET", "/collections/w/points/7", None, 404, "Point with id 7 does not exists!"),
    ("GET", "/collections/w/points/seven", None, 400, "is not a valid point ID"),
    ("POST", "/collections", {}, 405, "does not take POST"),
    ("GET", "/cluster", None, 404, "no route"),
]  # fmt: skip


def test_what_is_wrong_is_refused_as_qdrant_does_and_changes_nothing(shared: Running) -> None:
    at = make(shared, "w")
    for method, path, body, status, words in WRONG:
        found = ask(shared, method, path, body)
        assert found[0] == status, (method, path, body, found)
        assert words in found[1]["status"]["error"], (method, path, body, found)
    assert must(shared, "POST", f"{at}/points/count", {}) == {"count": 0}
    assert must(shared, "GET", "/collections/v/exists") == {"exists": False}
    must(shared, "DELETE", at)


ROUTES = [
    ("PUT", "/collections/fuzz{n}"),
    ("PATCH", "/collections/fuzz"),
    *(("POST", f"/collections/fuzz/points{more}") for more in (
        "", "/delete", "/scroll", "/count", "/search", "/query", "/query/batch", "/search/batch", "/payload",
        "/payload/delete", "/payload/clear",
    )),
    ("PUT", "/collections/fuzz/points"),
    ("PUT", "/collections/fuzz/points/payload"),
    ("PUT", "/collections/fuzz/index"),
]  # fmt: skip
WORDS = [
    "points",
    "batch",
    "ids",
    "vectors",
    "payloads",
    "id",
    "vector",
    "payload",
    "filter",
    "must",
    "should",
    "must_not",
    "min_should",
    "conditions",
    "min_count",
    "key",
    "match",
    "value",
    "any",
    "except",
    "text",
    "range",
    "gte",
    "lt",
    "has_id",
    "is_empty",
    "is_null",
    "nested",
    "query",
    "nearest",
    "using",
    "limit",
    "offset",
    "with_payload",
    "with_vector",
    "include",
    "exclude",
    "prefetch",
    "fusion",
    "order_by",
    "direction",
    "start_from",
    "score_threshold",
    "params",
    "exact",
    "searches",
    "keys",
    "field_name",
    "field_schema",
    "size",
    "distance",
    "sparse_vectors",
    "indices",
    "values",
    "geo_radius",
    "center",
    "lon",
    "lat",
    "radius",
    "values_count",
    "has_vector",
    "sample",
]
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 5),
    st.just(2**64),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["a", "Dot", "rrf", "random", "2020-01-01T00:00:00Z", "k[]", str(uuid.UUID(int=1)), ""]),
    st.just(VECTOR),
)
BODIES = st.dictionaries(
    st.sampled_from(WORDS),
    st.recursive(
        ODD,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(WORDS), inner, max_size=3)
        ),
        max_leaves=8,
    ),
    max_size=5,
)


def test_no_request_is_a_defect(shared: Running) -> None:
    make(shared, "fuzz")
    must(
        shared,
        "PUT",
        "/collections/fuzz/points",
        {"points": [{"id": n, "vector": VECTOR, "payload": {"k": n}} for n in range(5)]},
    )
    number = iter(range(10**9))

    @settings(
        max_examples=1500,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(route=st.sampled_from(ROUTES), body=BODIES)
    def send(route: tuple[str, str], body: Any) -> None:
        method, path = route
        status, said = ask(shared, method, path.format(n=next(number)), body)
        assert status in (200, 400, 404, 409, 422), (route, body, said)

    send()
    assert "Traceback" not in shared.log
    must(shared, "DELETE", "/collections/fuzz")


def test_only_who_has_the_key(shared: Running) -> None:
    for headers, words in (
        ({}, "Must provide an API key"),
        ({"api-key": "x"}, "Invalid"),
        ({"Authorization": "Bearer x"}, "Invalid"),
    ):
        status, said = ask(shared, "GET", "/collections", headers=headers)
        assert (status, words in said) == (401, True)
    # as with Qdrant, api-key comes first
    assert ask(shared, "GET", "/collections", headers={"api-key": "x", "Authorization": f"Bearer {KEY}"})[0] == 401
    assert ask(shared, "GET", "/collections", headers={"Authorization": f"Bearer {KEY}"})[0] == 200
    for path in ("/", "/healthz", "/readyz", "/livez"):
        assert ask(shared, "GET", path, headers={})[0] == 200


def test_a_body_beyond_the_bound_is_refused(shared: Running) -> None:
    connection = http.client.HTTPConnection(HOST, shared.port, timeout=20)
    try:
        connection.putrequest("PUT", "/collections/x/points")
        connection.putheader("api-key", KEY)
        connection.putheader("Content-Length", str(2**40))
        connection.endheaders()
        assert connection.getresponse().status == 413
    finally:
        connection.close()
