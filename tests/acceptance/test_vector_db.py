"""Vector databases on a whole stack: every request of the seed, Qdrant's own client, and a store that is killed."""

from __future__ import annotations

import re
import shlex
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
from schemathesis import GenerationMode

from app.stack.processes import engines
from app.stack.roles import ENGINE
from tests.acceptance.test_openapi import CHECKS
from tests.standins import QDRANT
from tests.support import plain_http
from tests.support.embedded import wait_until
from tests.support.stacks import Stack, stack

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]
SEED = Path(__file__).parents[1] / "support" / "vector_db_requests.sh"
BATCH = 50


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(tmp_path_factory.mktemp("vectors") / "state", HOSTLER_QDRANT_COMMAND=QDRANT) as made:
        made.up()
        yield made
        made.must("down")
        assert not made.living()


def ask(up: Stack, method: str, path: str, **more: Any) -> httpx2.Response:
    headers = {"X-API-Key": up.key, **more.pop("headers", {})}
    return plain_http.request(method, f"{up.url}/api/v1{path}", headers=headers, timeout=60, trust_env=False, **more)


def service(up: Stack, recipe: str = "vector-db/qdrant-edge", **more: Any) -> str:
    """A vector database that answers; its id."""
    made = ask(up, "POST", "/services", json={"recipe_name": recipe, **more}, headers={"Prefer": "wait=60"})
    assert made.status_code == 201, made.text
    service_id: str = made.json()["service_id"]
    await_ready(up, service_id)
    return service_id


def await_ready(up: Stack, service_id: str) -> None:
    """Until the gateway leads to it: the agent hears of a new replica a moment after its task has ended."""
    wait_until(lambda: ask(up, "GET", f"/vector-db/{service_id}/collections").status_code == 200, 60, "the store")


@pytest.fixture(scope="module")
def store(up: Stack) -> str:
    return service(up, name="documents")


def replica_of(up: Stack, service_id: str) -> dict[str, Any]:
    found = ask(up, "GET", f"/services/{service_id}").json()["replicas"]
    assert len(found) == 1
    one: dict[str, Any] = ask(up, "GET", f"/replicas/{found[0]['replica_id']}").json()
    return one


def client_of(up: Stack, service_id: str) -> QdrantClient:
    """Qdrant's own client, given the address and the key as its documentation says, and nothing else."""
    replica_id = replica_of(up, service_id)["replica_id"]
    with warnings.catch_warnings():
        # it says that the key goes over plain HTTP
        warnings.simplefilter("ignore", UserWarning)
        # it asks for the server's version in a thread of its own, which outlives a store that is restarted
        proxy = f"{up.url}/api/v1/replicas/{replica_id}/proxy"
        return QdrantClient(url=proxy, api_key=up.key, https=False, check_compatibility=False)


def requests_of_the_seed() -> list[list[str]]:
    """The arguments of each ``curl`` of the seed's vector database and its metrics."""
    text = SEED.read_text().replace("\\\n", " ")
    return [shlex.split(line)[1:] for line in re.findall(r"^curl .*?(?=^curl |\Z)", text, re.MULTILINE | re.DOTALL)]


def test_every_request_of_the_seed(up: Stack, store: str) -> None:
    answered = []
    for words in requests_of_the_seed():
        method, url, body = "GET", "", None
        rest = iter(words)
        for word in rest:
            if word == "-X":
                method = next(rest)
            elif word == "-d":
                body = next(rest)
            elif word == "-H":
                assert next(rest) == "Content-Type: application/json"
            else:
                url = word
        path = url.partition("/api/v1")[2].replace("SERVICE_ID", store)
        headers = {"Content-Type": "application/json"} if body else {}
        found = ask(up, method, path, content=body, headers=headers)
        answered.append((method, path.rpartition("/")[2], found.status_code))
        if path.endswith("/search"):
            # the seed searches by four numbers in a collection of 384: Qdrant's word is that they do not fit
            assert "expected dim: 384, got 4" in found.json()["detail"]
    assert answered == [
        ("GET", "collections", 200),
        ("PUT", "my_documents", 200),
        ("PUT", "points", 400),
        ("POST", "search", 400),
        ("GET", "metrics", 200),
    ]


def test_what_the_seed_means_to_show(up: Stack, store: str) -> None:
    at = f"/vector-db/{store}/collections/four"
    made = ask(up, "PUT", at, json={"vector_size": 4, "distance": "Cosine"})
    assert (made.status_code, made.json()["result"], made.json()["success"]) == (200, True, True)
    points = [
        {"id": 1, "vector": [0.1, 0.2, 0.3, 0.4], "payload": {"text": "First document"}},
        {"id": 2, "vector": [0.4, 0.5, 0.6, 0.7], "payload": {"text": "Second document"}},
    ]
    assert ask(up, "PUT", f"{at}/points", json={"points": points}).json()["result"]["status"] == "completed"
    found = ask(up, "POST", f"{at}/points/search", json={"query_vector": [0.1, 0.2, 0.3, 0.4], "limit": 5}).json()
    assert [(one["id"], one["payload"]["text"]) for one in found["result"]] == [
        (1, "First document"),
        (2, "Second document"),
    ]
    assert found["result"][0]["score"] == pytest.approx(1)
    assert "four" in ask(up, "GET", f"/vector-db/{store}/collections").json()["collections"]
    info = ask(up, "GET", at).json()["result"]
    assert (info["points_count"], info["config"]["params"]["vectors"]) == (2, {"size": 4, "distance": "Cosine"})
    # a name does as well as an id
    assert ask(up, "POST", "/vector-db/documents/collections/four/points/count", json={}).json()["result"] == {
        "count": 2
    }


def test_it_is_listed_as_a_vector_database_and_as_no_model(up: Stack, store: str) -> None:
    listed = ask(up, "GET", "/vector-db/services").json()
    [one] = [one for one in listed["services"] if one["id"] == store]
    assert (one["status"], one["recipe_name"], one["endpoints"][:1]) == (
        "running",
        "vector-db/qdrant-edge",
        [replica_of(up, store)["base_url"]],
    )
    headers = {"X-API-Key": up.key}
    models_of_door = plain_http.get(f"{up.url}/v1/models", headers=headers, trust_env=False).json()["data"]
    assert "qdrant" not in {one["id"] for one in models_of_door}
    assert "qdrant" not in {
        one["id"] for one in plain_http.get(f"{up.url}/models", headers=headers, trust_env=False).json()["models"]
    }
    chat = {"model": "qdrant", "messages": []}
    refused = plain_http.post(f"{up.url}/v1/chat/completions", json=chat, headers=headers, trust_env=False)
    assert (refused.status_code, refused.json()["code"]) == (404, "model_not_found")


def test_metrics_carry_service_and_replica(up: Stack, store: str) -> None:
    page = ask(up, "GET", f"/vector-db/{store}/metrics").text
    replica_id = replica_of(up, store)["replica_id"]
    assert re.search(rf'^collections_total{{.*replica="{replica_id}".*}} \d+$', page, re.MULTILINE), page
    assert f'service="{store}"' in page


def test_qdrants_own_client_through_the_proxy(up: Stack, store: str) -> None:
    client = client_of(up, store)
    try:
        assert client.create_collection(
            "own", vectors_config=models.VectorParams(size=3, distance=models.Distance.EUCLID)
        )
        points = [models.PointStruct(id=n, vector=[n, 0, 0], payload={"even": n % 2 == 0}) for n in range(20)]
        client.upsert("own", points=points, wait=True)
        even = models.Filter(must=[models.FieldCondition(key="even", match=models.MatchValue(value=True))])
        near = client.query_points("own", query=[5.2, 0, 0], query_filter=even, limit=2).points
        assert [one.id for one in near] == [6, 4]
        seen, offset = [], None
        while True:
            page, offset = client.scroll("own", limit=7, offset=offset)
            seen += [one.id for one in page]
            if offset is None:
                break
        assert seen == list(range(20))
        client.delete("own", points_selector=models.FilterSelector(filter=even), wait=True)
        assert client.count("own").count == 10
        with pytest.raises(UnexpectedResponse) as refused:
            client.upsert("own", points=[models.PointStruct(id=1, vector=[1.0])])
        assert refused.value.status_code == 400
        assert client.delete_collection("own")
    finally:
        client.close()


def wrongs(at: str) -> list[tuple[str, str, Any, int, str]]:
    """(method, path, body, status, code)"""
    vector = [0.0, 0.0, 1.0]
    point = {"id": 1, "vector": vector}
    huge = {"query_vector": vector, "limit": 10**9}
    return [
        ("PUT", at, {"vector_size": 3, "distance": "Cosine"}, 409, "collection_exists"),
        ("PUT", f"{at}x", {"vector_size": 3, "distance": "cosine"}, 422, "invalid_config"),
        ("PUT", f"{at}x", {"vector_size": 0, "distance": "Cosine"}, 422, "invalid_config"),
        ("PUT", f"{at}x", {"distance": "Cosine"}, 400, "missing_fields"),
        ("PUT", f"{at}%3A", {"vector_size": 3, "distance": "Cosine"}, 422, "invalid_config"),
        ("GET", f"{at}-none", None, 404, "collection_not_found"),
        ("DELETE", f"{at}-none", None, 404, "collection_not_found"),
        ("PUT", f"{at}-none/points", {"points": [point]}, 404, "collection_not_found"),
        ("POST", f"{at}-none/points/search", {"query_vector": vector}, 404, "collection_not_found"),
        ("PUT", f"{at}/points", {"points": [{**point, "vector": [1.0]}]}, 400, "store_refused"),
        ("PUT", f"{at}/points", {"points": []}, 422, "invalid_config"),
        ("PUT", f"{at}/points", {}, 400, "missing_fields"),
        ("PUT", f"{at}/points", {"points": [{**point, "id": "abc"}]}, 422, "invalid_config"),
        ("PUT", f"{at}/points", {"points": [{**point, "id": -1}]}, 422, "invalid_config"),
        ("PUT", f"{at}/points", {"points": [{**point, "id": True}]}, 422, "invalid_config"),
        ("PUT", f"{at}/points", {"points": [{**point, "vector": [1e39, 0, 0]}]}, 422, "invalid_config"),
        ("PUT", f"{at}/points", {"points": [{**point, "vector": ["1", 0, 0]}]}, 422, "invalid_config"),
        ("PUT", f"{at}/points", {"points": [{**point, "payload": [1]}]}, 422, "invalid_config"),
        ("PUT", f"{at}/points", {"points": [{**point, "more": 1}]}, 422, "invalid_config"),
        ("PUT", f"{at}/points", b'{"points": [{"id": 1, "vector": [NaN, 0, 0]}]}', 400, "malformed"),
        ("POST", f"{at}/points/search", {"query_vector": [1.0]}, 400, "store_refused"),
        ("POST", f"{at}/points/search", {"query_vector": []}, 422, "invalid_config"),
        ("POST", f"{at}/points/search", {"query_vector": vector, "limit": 0}, 422, "invalid_config"),
        ("POST", f"{at}/points/search", huge, 422, "invalid_config"),
        ("POST", f"{at}/points/search", {"query_vector": vector, "filter": {"must": [{}]}}, 400, "store_refused"),
        ("POST", f"{at}/points/search", {"query_vector": vector, "using": "other"}, 400, "store_refused"),
        ("GET", f"{at}/points/99", None, 404, "point_not_found"),
        ("GET", f"{at}/points/abc", None, 400, "store_refused"),
        ("POST", f"{at}/points/delete", {}, 400, "missing_fields"),
        ("POST", f"{at}/points/delete", {"points": [1], "filter": {}}, 400, "contradicting_options"),
    ]


def test_what_is_wrong_is_told_and_changes_nothing(up: Stack, store: str) -> None:
    at = f"/vector-db/{store}/collections/wrong"
    assert ask(up, "PUT", at, json={"vector_size": 3, "distance": "Cosine"}).status_code == 200
    for method, path, body, status, code in wrongs(at):
        sent = (
            {"content": body, "headers": {"Content-Type": "application/json"}}
            if isinstance(body, bytes)
            else {"json": body}
        )
        found = ask(up, method, path, **(sent if body is not None else {}))
        assert (found.status_code, found.json()["code"]) == (status, code), (method, path, body, found.text)
        assert found.headers["Content-Type"] == "application/problem+json"
    assert ask(up, "POST", f"{at}/points/count", json={}).json()["result"] == {"count": 0}


def test_who_may(up: Stack, store: str) -> None:
    def key(role: str, **more: Any) -> dict[str, str]:
        made = ask(up, "POST", "/keys", json={"name": f"{role}-{more}"[:60], "role": role, **more})
        return {"X-API-Key": made.json()["key"]}

    at = f"/vector-db/{store}/collections"
    reader, infers, others = key("read"), key("infer"), key("infer", models=["another"])
    search = {"query_vector": [0.1, 0.2, 0.3, 0.4]}
    assert ask(up, "GET", at, headers=reader).status_code == 200
    assert ask(up, "PUT", f"{at}/no", json={"vector_size": 2}, headers=reader).status_code == 403
    assert ask(up, "POST", f"{at}/four/points/search", json=search, headers=reader).status_code == 403
    assert ask(up, "POST", f"{at}/four/points/search", json=search, headers=infers).status_code == 200
    assert ask(up, "GET", at, headers=others).json()["code"] == "model_forbidden"
    assert ask(up, "GET", at, headers=key("infer", models=["qdrant"])).status_code == 200
    assert ask(up, "GET", at, headers={"X-API-Key": "x" * 40}).status_code == 401


def test_names_of_collections_mean_what_they_say(up: Stack, store: str) -> None:
    at = f"/vector-db/{store}/collections"
    for name in ("a b", "größe", "50%", "a+b", "#1", "a;b=c", "points", "日本", "x" * 255):
        path = f"{at}/{quote(name, safe='')}"
        assert ask(up, "PUT", path, json={"vector_size": 2}).status_code == 200, name
        assert name in ask(up, "GET", at).json()["collections"]
        assert ask(up, "GET", path).json()["collection"] == name
        assert ask(up, "DELETE", path).status_code == 200
        assert name not in ask(up, "GET", at).json()["collections"]
    for name in ("a/b", "..", ".", "a?b", 'a"b', "x" * 256, "a\x7fb"):
        refused = ask(up, "PUT", f"{at}/{quote(name, safe='').replace('.', '%2E')}", json={"vector_size": 2})
        assert refused.status_code in (400, 404, 405, 422), (name, refused.text)
    assert "four" in ask(up, "GET", at).json()["collections"]


def test_points_are_chosen_and_shown_as_asked(up: Stack, store: str) -> None:
    at = f"/vector-db/{store}/collections/chosen"
    assert ask(up, "PUT", at, json={"vector_size": 2, "distance": "Euclid"}).status_code == 200
    one = str(uuid.uuid4())
    points = [{"id": n, "vector": [n, 0], "payload": {"n": n, "kind": "odd" if n % 2 else "even"}} for n in range(10)]
    points.append({"id": one, "vector": [100, 0], "payload": None})
    assert ask(up, "PUT", f"{at}/points", json={"points": points}).status_code == 200
    assert ask(up, "GET", f"{at}/points/{one}").json()["result"]["id"] == one
    odd = {"must": [{"key": "kind", "match": {"value": "odd"}}]}
    body = {"query_vector": [4, 0], "limit": 3, "filter": odd, "with_payload": {"include": ["n"]}, "with_vector": True}
    found = ask(up, "POST", f"{at}/points/search", json=body).json()["result"]
    assert sorted((one["payload"]["n"], one["vector"][0]) for one in found[:2]) == [(3, 3), (5, 5)]
    assert all(set(one["payload"]) == {"n"} for one in found)
    near = ask(up, "POST", f"{at}/points/search", json={"query_vector": [4, 0], "score_threshold": 1.5}).json()[
        "result"
    ]
    assert {one["id"] for one in near} == {3, 4, 5}
    page = ask(up, "POST", f"{at}/points/scroll", json={"limit": 4, "filter": odd}).json()["result"]
    assert ([one["id"] for one in page["points"]], page["next_page_offset"]) == ([1, 3, 5, 7], 9)
    assert ask(up, "POST", f"{at}/points/count", json={"filter": odd}).json()["result"] == {"count": 5}
    assert ask(up, "POST", f"{at}/points/delete", json={"points": [1, 3, 777]}).status_code == 200
    assert ask(up, "POST", f"{at}/points/delete", json={"filter": odd}).status_code == 200
    left = ask(up, "POST", f"{at}/points", json={"ids": [0, 1, 2, 9]}).json()["result"]
    assert [one["id"] for one in left] == [0, 2]


def test_other_services_are_no_vector_databases(up: Stack) -> None:
    made = ask(up, "POST", "/services", json={"recipe_name": "inference/mock", "name": "not-a-store"})
    found = ask(up, "GET", f"/vector-db/{made.json()['service_id']}/collections")
    assert (found.status_code, found.json()["code"]) == (409, "conflict")
    assert ask(up, "GET", "/vector-db/ffffffffffff/collections").status_code == 404
    assert ask(up, "POST", "/services/not-a-store/status", json={"status": "cancelled"}).status_code in (200, 202)


@pytest.mark.parametrize("recipe", ["vector-db/qdrant", "vector-db/qdrant-edge"])
def test_two_replicas_would_be_two_stores(up: Stack, recipe: str) -> None:
    refused = ask(up, "POST", "/services", json={"recipe_name": recipe, "replicas": 2})
    assert (refused.status_code, list(refused.json()["errors"])) == (422, ["replicas"])
    limits = {"recipe_name": recipe, "update": {"max_surge": 1, "max_unavailable": 0}}
    assert list(ask(up, "POST", "/services", json=limits).json()["errors"]) == ["update"]


def test_it_cannot_be_scaled_to_two(up: Stack, store: str) -> None:
    refused = ask(up, "POST", f"/services/{store}/scale", json={"replicas": 2})
    assert (refused.status_code, list(refused.json()["errors"])) == (422, ["replicas"])


def test_the_document_says_what_may_come_of_any_request(up: Stack, store: str, subtests: pytest.Subtests) -> None:
    at = f"/vector-db/{store}/collections/made-up"
    assert ask(up, "PUT", at, json={"vector_size": 3, "distance": "Cosine"}).status_code == 200
    api = schemathesis.openapi.from_url(f"{up.url}/openapi.json")
    for found in api.include(path_regex=r"^/api/v1/vector-db/\{").get_all_operations():
        operation = found.ok()
        for mode in GenerationMode:
            with subtests.test(operation.label, mode=mode.value):
                try_out(operation, mode, up, {"service_id": store, "collection": "made-up", "point": "1"})


def try_out(operation: Any, mode: GenerationMode, up: Stack, known: dict[str, str]) -> None:
    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=15,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def send(case: schemathesis.Case) -> None:
        # every other one to what is there
        there = len(repr(case.body) + repr(case.path_parameters)) % 2
        case.path_parameters = known if there else {**case.path_parameters, "service_id": known["service_id"]}
        if operation.method.upper() == "DELETE":
            case.path_parameters = {**known, "collection": "none"}
        case.call_and_validate(headers={"X-API-Key": up.key}, checks=CHECKS)

    with suppress(Unsatisfiable):
        send()


class Writer:
    """Writes batches one after the other, and knows which were answered."""

    def __init__(self, put: Callable[[list[dict[str, Any]]], bool]) -> None:
        self._put = put
        self.sent = 0
        self.kept: set[int] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(60)

    def _run(self) -> None:
        while not self._over.is_set():
            number, self.sent = self.sent, self.sent + 1
            points = [{"id": number * BATCH + n, "vector": [n, number, 1, 2]} for n in range(BATCH)]
            if self._put(points):
                self.kept.add(number)


@pytest.mark.parametrize("recipe", ["vector-db/qdrant", "vector-db/qdrant-edge"])
def test_what_was_answered_outlives_the_store(up: Stack, recipe: str) -> None:
    """It is killed in the middle of writes, replaced by another replica, and the data are there again."""
    service_id = service(up, recipe)
    at = f"/vector-db/{service_id}/collections/kept"
    assert ask(up, "PUT", at, json={"vector_size": 4, "distance": "Dot"}).status_code == 200

    def put(points: list[dict[str, Any]]) -> bool:
        try:
            found = ask(up, "PUT", f"{at}/points", json={"points": points})
        except httpx2.TransportError:
            return False
        assert found.status_code in (200, 502, 503), found.text
        return found.status_code == 200

    first = replica_of(up, service_id)
    with Writer(put) as writer:
        wait_until(lambda: len(writer.kept) >= 20, 30, "twenty batches")
        for one in engines(up.layout):
            if one.role == ENGINE and one.replica_id == first["replica_id"]:
                one.process.kill()
        wait_until(lambda: replica_of(up, service_id)["replica_id"] != first["replica_id"], 60, "another replica")
        await_ready(up, service_id)
        before = len(writer.kept)
        wait_until(lambda: len(writer.kept) >= before + 5, 60, "more batches")
    whole = stored(up, at, writer.sent)
    assert writer.kept <= whole
    # the same files under a name of their own, wherever it ran
    assert (up.state_dir / "data" / service_id).is_dir()
    assert ask(up, "POST", f"/services/{service_id}/status", json={"status": "cancelled"}).status_code in (200, 202)


def stored(up: Stack, at: str, batches: int) -> set[int]:
    """The batches that are there; asserts that none is there in part."""
    whole = set()
    for number in range(batches):
        ids = [number * BATCH + n for n in range(BATCH)]
        found = ask(up, "POST", f"{at}/points", json={"ids": ids, "with_payload": False}).json()["result"]
        assert len(found) in (0, BATCH), number
        if found:
            whole.add(number)
    return whole


def test_a_restarted_store_has_its_data(up: Stack) -> None:
    service_id = service(up)
    at = f"/vector-db/{service_id}/collections/again"
    assert ask(up, "PUT", at, json={"vector_size": 2, "distance": "Dot"}).status_code == 200
    assert ask(up, "PUT", f"{at}/points", json={"points": [{"id": 7, "vector": [1, 2]}]}).status_code == 200
    replica_id = replica_of(up, service_id)["replica_id"]
    restarted = ask(up, "POST", f"/replicas/{replica_id}/restart", json={}, headers={"Prefer": "wait=60"})
    assert restarted.status_code in (200, 201, 202), restarted.text
    await_ready(up, service_id)
    assert ask(up, "GET", f"{at}/points/7").json()["result"]["vector"] == [1, 2]
    client = client_of(up, service_id)
    try:
        assert client.count("again").count == 1
    except ResponseHandlingException as error:
        raise AssertionError(str(error)) from error
    finally:
        client.close()
    # an update too: the old one goes first, for two cannot have the files open
    changed = ask(up, "PATCH", f"/services/{service_id}", json={"config": {"environment": {"TZ": "UTC"}}})
    assert changed.status_code in (200, 202), changed.text
    wait_until(lambda: ask(up, "GET", f"/services/{service_id}").json()["good_revision"] == 2, 60, "the update")
    await_ready(up, service_id)
    assert ask(up, "POST", f"{at}/points/count", json={}).json()["result"] == {"count": 1}
