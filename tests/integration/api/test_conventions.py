"""What holds for every route: problems, keys, roles, request ids, bodies, idempotency, ETags."""

from __future__ import annotations

import base64
import json

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.settings import Settings
from tests.integration.api.conftest import Caller
from tests.support.problems import assert_problem

POOL = {"name": "dh1", "backend": "mock", "slots": 4}


def test_open_routes_need_no_key(anybody: FlaskClient) -> None:
    for path in ("/", "/health", "/ready", "/docs", "/openapi.json", "/docs/swagger-ui-bundle.js", "/docs/start.js"):
        assert anybody.get(path).status_code == 200, path


def test_every_other_route_asks_for_a_key(anybody: FlaskClient, web: Flask) -> None:
    open_routes = {"/", "/health", "/ready", "/docs", "/docs/<name>", "/openapi.json"}
    for rule in web.url_map.iter_rules():
        if rule.rule in open_routes:
            continue
        path = rule.rule.replace("<replica_id:replica_id>", "0" * 12).replace("<path:name>", "x")
        path = path.replace("<name>", "x").replace("<task_id>", "x").replace("<key_id>", "x")
        for method in rule.methods - {"HEAD", "OPTIONS"}:
            answer = anybody.open(path, method=method)
            assert_problem(answer, 401, "unauthenticated")
            assert "Bearer" in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("form", ["x-api-key", "bearer", "basic"])
def test_a_key_is_taken_in_three_forms(anybody: FlaskClient, admin_key: str, form: str) -> None:
    basic = base64.b64encode(f"anyone:{admin_key}".encode()).decode()
    headers = {
        "x-api-key": {"X-API-Key": admin_key},
        "bearer": {"Authorization": f"Bearer {admin_key}"},
        "basic": {"Authorization": f"Basic {basic}"},
    }[form]
    assert anybody.get("/api/v1/pools", headers=headers).status_code == 200


@pytest.mark.parametrize("header", ["Basic !!!", "Basic", "Bearer", "Digest x", "Bearer  ", "Basic YQ==", "\xff\xfe"])
def test_broken_credentials_are_401(anybody: FlaskClient, header: str) -> None:
    assert_problem(anybody.get("/api/v1/pools", headers={"Authorization": header}), 401, "unauthenticated")


def test_a_wrong_key_is_401(anybody: FlaskClient) -> None:
    for key in ("x" * 40, "y" * 600, "ü" * 30):
        answer = anybody.get("/api/v1/pools", headers={"X-API-Key": key.encode().decode("latin-1")})
        assert_problem(answer, 401, "unauthenticated")


def test_roles(caller) -> None:  # type: ignore[no-untyped-def]
    reader, infer, operator = caller("read"), caller("infer"), caller("operate")
    assert reader.get("/api/v1/pools").status_code == 200
    assert_problem(infer.get("/api/v1/pools"), 403, "forbidden")
    assert operator.get("/api/v1/pools").status_code == 200
    assert_problem(reader.post("/api/v1/pools", POOL), 403, "forbidden")
    assert_problem(operator.post("/api/v1/pools", POOL), 403, "forbidden")
    assert_problem(operator.get("/api/v1/keys"), 403, "forbidden")
    # the role is checked before the body: strangers learn nothing from validation
    assert_problem(reader.post("/api/v1/pools", {}), 403, "forbidden")


def test_unknown_route_and_method(admin: Caller, anybody: FlaskClient) -> None:
    assert_problem(anybody.get("/api/v1/nothing"), 401, "unauthenticated")
    assert_problem(admin.get("/api/v1/nothing"), 404, "not_found")
    assert_problem(anybody.get("/favicon.ico"), 404, "not_found")
    answer = admin("PUT", "/api/v1/pools")
    assert_problem(answer, 405, "method_not_allowed")
    assert {"GET", "POST"} <= {one.strip() for one in answer.headers["Allow"].split(",")}


@pytest.mark.parametrize("noun", ["replica", "task", "pool", "model", "node", "key"])
@pytest.mark.parametrize("name", ["zzz", "0123456789ABC", "000000000000", "a%09b", "%F0%9F%9A%82", "x" * 500])
def test_what_is_not_there_is_said_by_its_noun(admin: Caller, anybody: FlaskClient, noun: str, name: str) -> None:
    answer = admin.get(f"/api/v1/{noun}s/{name}")
    assert_problem(answer, 404, "not_found")
    detail = answer.get_json()["detail"]
    assert f"There is no {noun} " in detail
    assert f"`hostler {noun} list`" in detail
    assert_problem(anybody.get(f"/api/v1/{noun}s/{name}"), 401, "unauthenticated")


def test_a_mistyped_replica_id_is_told_what_ids_look_like(admin: Caller) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/stop"), ("GET", "/logs"), ("GET", "/explain")):
        answer = admin(method, f"/api/v1/replicas/abc{path}")
        assert_problem(answer, 404, "not_found")
        assert "twelve hex digits" in answer.get_json()["detail"]
    assert "no such route" in admin.get("/api/v1/replicas/abc/fly").get_json()["detail"]


def test_request_id_comes_back(admin: Caller) -> None:
    assert admin.get("/api/v1/pools", X_Request_Id="my-id.1").headers["X-Request-Id"] == "my-id.1"
    for bad in ("a" * 200, "sp ace", "semi;colon"):
        made = admin.get("/api/v1/pools", X_Request_Id=bad).headers["X-Request-Id"]
        assert made
        assert made != bad


@pytest.mark.parametrize(
    "raw, status, code",
    [
        (b"{", 400, "malformed"),
        (b"\xff\xfe", 400, "malformed"),
        (b'{"name": NaN}', 400, "malformed"),
        (b'{"slots": 1e999}', 400, "malformed"),
        (b'{"slots": ' + b"9" * 5000 + b"}", 400, "malformed"),
        (b'{"slots": 99999999999999999999}', 400, "malformed"),
        (b'{"slots": 18446744073709551616}', 400, "malformed"),
        (b'{"slots": -9223372036854775809}', 400, "malformed"),
        (b'{"name": "a", "backend": "mock", "slots": 18446744073709551615}', 422, "invalid_config"),
        (b"[" * 100_000, 400, "malformed"),
        (b'{"options": ' + b'{"a":' * 80 + b"1" + b"}" * 80 + b"}", 400, "malformed"),
        (b'{"name": "\\ud800", "backend": "mock", "slots": 1}', 400, "malformed"),
        (b"{}", 400, "missing_fields"),
        (b"", 400, "missing_fields"),
        (b"[]", 422, "invalid_config"),
        (b'"x"', 422, "invalid_config"),
        (b"null", 422, "invalid_config"),
        (b'{"name": "a\\u0000b", "backend": "mock", "slots": 1}', 422, "invalid_config"),
        (b'{"name": 7, "backend": "mock", "slots": 1}', 422, "invalid_config"),
        (b'{"name": "A B", "backend": "mock", "slots": 1}', 422, "invalid_config"),
        (b'{"name": "a", "backend": "mock", "slots": true}', 422, "invalid_config"),
        (b'{"name": "a", "backend": "mock", "slots": "1"}', 422, "invalid_config"),
        (b'{"name": "a", "backend": "mock", "slots": -1}', 422, "invalid_config"),
        (b'{"name": "a", "backend": "mock", "slots": 1, "options": []}', 422, "invalid_config"),
        (b'{"name": "a", "backend": "mock", "slots": 1, "labels": {"x": 1}}', 422, "invalid_config"),
        (b'{"name": "a\\n", "backend": "mock", "slots": 1}', 422, "invalid_config"),
    ],
)
def test_bad_bodies(admin: Caller, raw: bytes, status: int, code: str) -> None:
    answer = admin.client.post(
        "/api/v1/pools", data=raw, content_type="application/json", headers={"X-API-Key": admin.key}
    )
    assert_problem(answer, status, code)


def test_all_missing_fields_are_named_before_anything_else(admin: Caller) -> None:
    body = assert_problem(admin.post("/api/v1/pools", {"labels": 7}), 400, "missing_fields")
    assert set(body["errors"]) == {"name", "backend", "slots"}


def test_unknown_fields_are_refused_with_the_near_match(admin: Caller) -> None:
    body = assert_problem(admin.post("/api/v1/pools", POOL | {"lables": {}}), 422, "invalid_config")
    assert body["errors"]["lables"] == ["Unknown field. Did you mean labels?"]


def test_media_types(admin: Caller) -> None:
    headers = {"X-API-Key": admin.key}
    answer = admin.client.post("/api/v1/pools", data="a=b", headers=headers, content_type="text/plain")
    assert_problem(answer, 415, "unsupported_media_type")
    answer = admin.client.post("/api/v1/pools", data=json.dumps(POOL), headers=headers)
    assert_problem(answer, 415, "unsupported_media_type")
    answer = admin.client.post(
        "/api/v1/pools", data=json.dumps(POOL), headers=headers, content_type="application/json; charset=utf-8"
    )
    assert answer.status_code == 201


def test_too_large_a_body_is_413(admin: Caller, web_settings: Settings) -> None:
    body = POOL | {"labels": {"a": "x" * web_settings.max_body_bytes}}
    assert_problem(admin.post("/api/v1/pools", body), 413, "body_too_large")


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=x",
        "limit=99999999999999999999",
        "cursor=x",
        "cursor=W10",
        "nonsense=1",
        "state=x",
    ],
)
def test_bad_queries_are_422(admin: Caller, query: str) -> None:
    assert_problem(admin.get(f"/api/v1/pools?{query}"), 422, "invalid_config")


def test_nul_in_the_address_is_400(admin: Caller) -> None:
    assert_problem(admin.get("/api/v1/pools?backend=%00"), 400, "malformed")
    assert_problem(admin.get("/api/v1/pools/%00"), 400, "malformed")


def test_etag(admin: Caller) -> None:
    first = admin.get("/api/v1/pools")
    etag = first.headers["ETag"]
    again = admin.get("/api/v1/pools", If_None_Match=etag)
    assert again.status_code == 304
    assert not again.data
    assert admin.get("/api/v1/pools", If_None_Match=f"W/{etag}").status_code == 304
    assert admin.get("/api/v1/pools", If_None_Match='"other"').status_code == 200
    admin.post("/api/v1/pools", POOL)
    assert admin.get("/api/v1/pools", If_None_Match=etag).status_code == 200


def test_idempotency_key(admin: Caller, caller) -> None:  # type: ignore[no-untyped-def]
    first = admin.post("/api/v1/pools", POOL, Idempotency_Key="k1")
    assert first.status_code == 201
    assert "Idempotency-Replayed" not in first.headers
    again = admin.post("/api/v1/pools", POOL, Idempotency_Key="k1")
    assert again.status_code == 201
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["Location"] == first.headers["Location"]
    assert_problem(
        admin.post("/api/v1/pools", POOL | {"slots": 5}, Idempotency_Key="k1"), 422, "idempotency_key_reused"
    )
    taken = assert_problem(admin.post("/api/v1/pools", POOL), 409, "name_taken")
    assert list(taken["errors"]) == ["name"]
    # the scope is key, method and path; another caller's key is another key
    other = caller("admin")
    assert_problem(other.post("/api/v1/pools", POOL, Idempotency_Key="k1"), 409, "name_taken")
    assert admin("PATCH", "/api/v1/pools/dh1", {"slots": 9}, Idempotency_Key="k1").status_code == 200
    for bad in ("", "x" * 256, "ü"):
        answer = admin.post("/api/v1/pools", POOL, Idempotency_Key=bad.encode().decode("latin-1"))
        assert_problem(answer, 400, "malformed")


def test_the_same_json_laid_out_differently_is_the_same_request(admin: Caller) -> None:
    headers = {"X-API-Key": admin.key, "Idempotency-Key": "layout", "Content-Type": "application/json"}
    assert admin.client.post("/api/v1/pools", data=json.dumps(POOL), headers=headers).status_code == 201
    shuffled = json.dumps(dict(reversed(POOL.items())), indent=4)
    again = admin.client.post("/api/v1/pools", data=shuffled, headers=headers)
    assert again.headers["Idempotency-Replayed"] == "true"


def test_errors_are_not_remembered(admin: Caller) -> None:
    assert_problem(admin.post("/api/v1/pools", POOL | {"backend": "moc"}, Idempotency_Key="k"), 422, "invalid_config")
    assert admin.post("/api/v1/pools", POOL, Idempotency_Key="k").status_code == 201


def test_a_trailing_slash_is_no_redirect(admin: Caller) -> None:
    assert admin.get("/api/v1/pools/").status_code == 200
    assert admin.get("//api/v1/pools").status_code in (404, 401)
