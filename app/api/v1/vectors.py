"""``/api/v1/vector-db``: collections and points of services that are vector databases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Response, g, request

from app.api import answers, joined_metrics, paging
from app.api.auth import actor, context
from app.api.blueprint import Blueprint
from app.api.inference.caller import Caller, CallerLeft
from app.api.inference.door import Door
from app.api.inference.routes import GONE
from app.api.inference.store import Store, Told, collection_path, name_problem
from app.api.paging import PageQuery
from app.api.schemas import vectors as schemas
from app.errors import CollectionNotFound, InvalidConfig, StoreRefused
from app.stack.layout import Layout
from app.usecases import vector_services

blueprint = Blueprint("vectors", "Vector databases: collections, their points, and what is near.")

ID = "<service_ref:service_id>"
COLLECTION = f"/vector-db/{ID}/collections/<collection>"
POINTS = f"{COLLECTION}/points"
#: What may come of asking a store; 503 is among every route's.
ERRORS = (409, 429, 501, 502, 504)
#: A batch of points may be larger than what else this API takes; larger ones go through the replica's proxy.
LARGEST_BATCH = 8 * 1024 * 1024


@blueprint.before_request
def _make_room() -> None:
    if request.method == "PUT" and request.path.endswith("/points"):
        request.max_content_length = max(LARGEST_BATCH, context().settings.max_body_bytes)


@blueprint.operation("/vector-db/services", "GET", "read", also=("infer",), conditional=True)
@blueprint.arguments(PageQuery(), location="query")
@blueprint.response(200, schemas.VectorServicePage)
def list_vector_services(query: dict[str, Any]) -> Response:
    """List services that are vector databases

    Those that start are among them, cancelled ones are not.
    """
    _, limit, cursor = paging.split(query)
    found, total, more = vector_services.page(context(), limit, cursor)
    return answers.read({"services": found, "total": total, "next_cursor": more})


@blueprint.operation(f"/vector-db/{ID}/metrics", "GET", "read", also=("infer",), errors=ERRORS)
@blueprint.response(200, {"type": "string"}, content_type="text/plain")
def get_metrics_of_vectors(service_id: str) -> Response:
    """Show a vector database's own counters, for Prometheus

    As Qdrant writes them, with the labels `service` and `replica`.
    """
    found = vector_services.find(context(), actor(), service_id)
    return joined_metrics.answer(context(), found.service_id, found.members)


@blueprint.operation(f"/vector-db/{ID}/collections", "GET", "read", also=("infer",), errors=ERRORS)
@blueprint.response(200, schemas.CollectionList)
def list_collections(service_id: str) -> Response:
    """List the collections of a vector database"""
    store = _store(service_id)
    told = store.ask("GET", "/collections")
    names = sorted(one["name"] for one in told.result["collections"])
    return _answer(store, told, collections=names, total=len(names))


@blueprint.operation(COLLECTION, "GET", "read", also=("infer",), errors=ERRORS)
@blueprint.response(200, schemas.CollectionInfo)
def get_collection(service_id: str, collection: str) -> Response:
    """Show a collection"""
    return _asked(service_id, collection, "GET")


@blueprint.operation(COLLECTION, "PUT", "infer", errors=ERRORS, replays=False)
@blueprint.arguments(schemas.CollectionBody())
@blueprint.response(200, schemas.CollectionChanged)
def create_collection(body: dict[str, Any], service_id: str, collection: str) -> Response:
    """Create a collection; 409 when there is one of that name"""
    problem = name_problem(collection)
    if problem:
        raise InvalidConfig(f"collection: {problem}", errors={"collection": [problem]})
    vectors = {"size": body["vector_size"], "distance": body["distance"]}
    if "on_disk" in body:
        vectors["on_disk"] = body["on_disk"]
    return _asked(service_id, collection, "PUT", body={"vectors": vectors})


@blueprint.operation(COLLECTION, "DELETE", "infer", errors=ERRORS, replays=False)
@blueprint.response(200, schemas.CollectionChanged)
def delete_collection(service_id: str, collection: str) -> Response:
    """Delete a collection and all its points"""
    store = _store(service_id)
    told = store.ask("DELETE", collection_path(collection))
    if told.result is not True:
        raise CollectionNotFound(
            f"Collection `{collection}` doesn't exist! `GET .../collections` lists those there are."
        )
    return _answer(store, told, collection=collection)


@blueprint.operation(POINTS, "PUT", "infer", errors=ERRORS, replays=False)
@blueprint.arguments(schemas.PointsBody())
@blueprint.response(200, schemas.PointsChanged)
def upsert_points(body: dict[str, Any], service_id: str, collection: str) -> Response:
    """Write points

    All of them or none: what is answered with 200 is stored and found by the next search.
    """
    # what was checked is Qdrant's own form already: writing it anew would take longer than all else here
    return _asked(service_id, collection, "PUT", "points", body=request.get_data(), query="?wait=true")


@blueprint.operation(POINTS, "POST", "infer", errors=ERRORS, replays=False)
@blueprint.arguments(schemas.PointsQuery())
@blueprint.response(200, schemas.PointList)
def get_points(body: dict[str, Any], service_id: str, collection: str) -> Response:
    """Show points by their ids; those that are not there are left out"""
    return _asked(service_id, collection, "POST", "points", body=body)


@blueprint.operation(f"{POINTS}/<point>", "GET", "infer", errors=ERRORS)
@blueprint.response(200, schemas.PointInfo)
def get_point(service_id: str, collection: str, point: str) -> Response:
    """Show a point"""
    if not schemas.POINT_ID.fullmatch(point):
        raise StoreRefused(f"{point!r} is no id of a point: an unsigned integer or a UUID is.")
    return _asked(service_id, collection, "GET", "points", point)


@blueprint.operation(f"{POINTS}/search", "POST", "infer", errors=ERRORS, replays=False)
@blueprint.arguments(schemas.SearchBody())
@blueprint.response(200, schemas.PointList)
def search_points(body: dict[str, Any], service_id: str, collection: str) -> Response:
    """Find the points nearest to a vector, the nearest first"""
    query = {"query": body.pop("query_vector"), **_said(body)}
    store = _store(service_id)
    told = store.ask("POST", collection_path(collection, "points", "query"), query)
    return _answer(store, told, collection=collection, result=told.result["points"])


@blueprint.operation(f"{POINTS}/scroll", "POST", "infer", errors=ERRORS, replays=False)
@blueprint.arguments(schemas.ScrollBody())
@blueprint.response(200, schemas.PointPage)
def scroll_points(body: dict[str, Any], service_id: str, collection: str) -> Response:
    """Show points by their ids, page by page"""
    return _asked(service_id, collection, "POST", "points", "scroll", body=_said(body))


@blueprint.operation(f"{POINTS}/count", "POST", "infer", errors=ERRORS, replays=False)
@blueprint.arguments(schemas.CountBody())
@blueprint.response(200, schemas.PointCount)
def count_points(body: dict[str, Any], service_id: str, collection: str) -> Response:
    """Count points"""
    return _asked(service_id, collection, "POST", "points", "count", body=_said(body))


@blueprint.operation(f"{POINTS}/delete", "POST", "infer", errors=ERRORS, replays=False)
@blueprint.arguments(schemas.DeleteBody())
@blueprint.response(200, schemas.PointsChanged)
def delete_points(body: dict[str, Any], service_id: str, collection: str) -> Response:
    """Delete points by their ids, or those that a filter chooses"""
    return _asked(service_id, collection, "POST", "points", "delete", body=body, query="?wait=true")


@blueprint.errorhandler(CallerLeft)
def _gone(_left: CallerLeft) -> Response:
    return Response(status=GONE)


def _store(ref: str) -> Store:
    found = vector_services.find(context(), actor(), ref)
    return Store(
        Door(Layout(context().settings.state_dir).inside_socket),
        found.service_id,
        {"X-Hostler-Key-Id": actor().key_id, "X-Request-Id": g.request_id},
        Caller.of_request(),
    )


def _asked(
    ref: str, collection: str, method: str, *more: str, body: Mapping[str, Any] | bytes | None = None, query: str = ""
) -> Response:
    store = _store(ref)
    told = store.ask(method, collection_path(collection, *more) + query, body)
    return _answer(store, told, collection=collection)


def _answer(store: Store, told: Told, **more: Any) -> Response:
    shown = {
        "success": True,
        "result": told.result,
        "status": told.status,
        "time": told.time_s,
        "service_id": store.service_id,
        "replica_id": told.replica_id,
    }
    return answers.answer({**shown, **more}, headers={"X-Hostler-Replica": told.replica_id} if told.replica_id else {})


def _said(body: Mapping[str, Any]) -> dict[str, Any]:
    """Without what was left out."""
    return {name: value for name, value in body.items() if value is not None}
