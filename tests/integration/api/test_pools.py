"""Pools through the API: options by the backend's schema, capacity as units, drain and resume, what forbids delete."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import text

from app.usecases.context import Context
from tests.integration.api.conftest import Caller
from tests.integration.api.test_conventions import POOL
from tests.support.problems import assert_problem


def capacity(ctx: Context, kind: str, pool: str) -> int:
    query = text("SELECT count(*) FROM units WHERE kind = :kind AND scope = :pool AND NOT retired")
    with ctx.database.read() as connection:
        return int(connection.execute(query, {"kind": kind, "pool": pool}).scalar_one())


def test_two_pools_are_there_from_the_start(admin: Caller) -> None:
    body = admin.get("/api/v1/pools").get_json()
    assert {pool["name"]: (pool["backend"], pool["slots"]) for pool in body["pools"]} == {
        "local": ("process", 64),
        "mock": ("mock", 20000),
    }
    assert body["total"] == 2
    assert body["next_cursor"] is None


def test_a_pool_lives(admin: Caller, ctx: Context) -> None:
    made = admin.post("/api/v1/pools", POOL | {"gpus": 2, "labels": {"site": "a"}})
    assert made.status_code == 201
    assert made.headers["Location"] == "/api/v1/pools/dh1"
    assert made.get_json()["state"] == "active"
    assert (capacity(ctx, "slot", "dh1"), capacity(ctx, "pool_gpu", "dh1")) == (4, 2)
    changed = admin("PATCH", "/api/v1/pools/dh1", {"slots": 2, "gpus": None, "options": {}})
    assert changed.status_code == 200
    assert (changed.get_json()["slots"], changed.get_json()["gpus"]) == (2, None)
    assert (capacity(ctx, "slot", "dh1"), capacity(ctx, "pool_gpu", "dh1")) == (2, 0)
    assert admin.post("/api/v1/pools/dh1/drain").get_json()["state"] == "draining"
    assert admin.post("/api/v1/pools/dh1/drain", {}).get_json()["state"] == "draining"
    assert admin.post("/api/v1/pools/dh1/resume").get_json()["state"] == "active"
    assert admin("DELETE", "/api/v1/pools/dh1").status_code == 204
    assert_problem(admin.get("/api/v1/pools/dh1"), 404, "not_found")
    assert_problem(admin("DELETE", "/api/v1/pools/dh1"), 404, "not_found")
    # its units are retired, not gone: the same name can come back
    assert admin.post("/api/v1/pools", POOL).status_code == 201
    assert capacity(ctx, "slot", "dh1") == 4
    kinds = [event["kind"] for event in admin.get("/api/v1/events?pool=dh1").get_json()["events"]]
    assert kinds == ["pool_created", "pool_deleted", "pool_resumed", "pool_draining", "pool_changed", "pool_created"]


def test_gpus_alone_are_enough(admin: Caller) -> None:
    made = admin.post("/api/v1/pools", {"name": "g", "backend": "mock", "gpus": 3}).get_json()
    assert (made["slots"], made["gpus"]) == (3, 3)


def test_unknown_backend_names_the_near_one(admin: Caller) -> None:
    body = assert_problem(admin.post("/api/v1/pools", POOL | {"backend": "proces"}), 422, "invalid_config")
    assert "Did you mean process?" in body["errors"]["backend"][0]


def test_unknown_pool_names_the_near_one(admin: Caller) -> None:
    assert "Did you mean 'local'" in assert_problem(admin.get("/api/v1/pools/locl"), 404, "not_found")[
        "detail"
    ].replace("local?", "'local'")


def test_options_are_checked_by_the_backends_schema(admin: Caller, ctx: Context) -> None:
    schema = {
        "type": "object",
        "properties": {"delay_s": {"type": "number", "minimum": 0}},
        "additionalProperties": False,
    }
    with ctx.database.begin() as connection:
        connection.execute(
            text("UPDATE backends SET options_schema = CAST(:schema AS jsonb) WHERE name = 'mock'"),
            {"schema": json.dumps(schema)},
        )
    body = assert_problem(admin.post("/api/v1/pools", POOL | {"options": {"delay_s": -1}}), 422, "invalid_config")
    assert list(body["errors"]) == ["options.delay_s"]
    assert_problem(admin.post("/api/v1/pools", POOL | {"options": {"dely_s": 1}}), 422, "invalid_config")
    assert admin.post("/api/v1/pools", POOL | {"options": {"delay_s": 1}}).status_code == 201
    assert_problem(admin("PATCH", "/api/v1/pools/dh1", {"options": {"delay_s": "x"}}), 422, "invalid_config")


def test_secret_options_are_masked(admin: Caller) -> None:
    made = admin.post("/api/v1/pools", POOL | {"options": {"api_token": "s3cret-value", "host": "h"}})
    assert made.get_json()["options"] == {"api_token": "***", "host": "h"}


def test_a_change_can_be_laid_over_what_the_pool_has(admin: Caller) -> None:
    ssh = {"host": "h", "user": "u"}
    options = {"api_token": "s3cret-value", "ssh": ssh, "old": [1]}
    labels = {"site": "a", "kind": "b"}
    admin.post("/api/v1/pools", POOL | {"options": options, "labels": labels, "defaults": {"replica_config": {"a": 1}}})
    change = {
        "options": {"ssh": {"user": "v"}, "old": None, "never": None, "new": [2]},
        "labels": {"kind": None, "more": "c"},
        "defaults": {"replica_config": {"b": 2}},
    }
    changed = admin("PATCH", "/api/v1/pools/dh1", {"slots": 2, "merge": change}).get_json()
    assert changed["options"] == {"api_token": "***", "ssh": {"host": "h", "user": "v"}, "new": [2]}
    assert (changed["slots"], changed["labels"]) == (2, {"site": "a", "more": "c"})
    assert changed["defaults"] == {"replica_config": {"a": 1, "b": 2}}
    emptied = admin("PATCH", "/api/v1/pools/dh1", {"merge": {"defaults": {"replica_config": None}}}).get_json()
    assert emptied["defaults"] == {}
    assert emptied["labels"] == changed["labels"]
    (event, *_) = admin.get("/api/v1/events?pool=dh1&kind=pool_changed&order=asc").get_json()["events"]
    assert event["message"] == "defaults, labels, options, slots"


def test_what_is_shown_of_a_pool_can_be_sent_back_and_keeps_its_secret(admin: Caller, ctx: Context) -> None:
    shown = admin.post("/api/v1/pools", POOL | {"options": {"api_token": "s3cret-value"}}).get_json()["options"]
    assert admin("PATCH", "/api/v1/pools/dh1", {"options": shown | {"host": "h"}}).status_code == 200
    with ctx.database.read() as connection:
        kept = connection.execute(text("SELECT options FROM pools WHERE name = 'dh1'")).scalar_one()
    assert kept == {"api_token": "s3cret-value", "host": "h"}
    body = assert_problem(
        admin("PATCH", "/api/v1/pools/dh1", {"merge": {"options": {"other_token": "***"}}}), 422, "invalid_config"
    )
    assert list(body["errors"]) == ["merge.options.other_token"]


def test_a_merge_is_checked_like_all_else(admin: Caller) -> None:
    admin.post("/api/v1/pools", POOL | {"labels": {f"l{number}": "" for number in range(64)}})
    for wrong, field in (
        ({"slots": 3}, "merge.slots"),
        ({"options": []}, "merge.options"),
        ({"options": None}, "merge.options"),
        ({"labels": {"a b": "c"}}, "merge.labels.a b"),
        ({"labels": {"a": 1}}, "merge.labels.a"),
        ({"labels": {"a": "c"}}, "merge.labels"),
        ({"defaults": {"slots": None}}, "merge.defaults.slots"),
    ):
        body = assert_problem(admin("PATCH", "/api/v1/pools/dh1", {"merge": wrong}), 422, "invalid_config")
        assert list(body["errors"]) == [field], wrong
    for both in ({"options": {}, "merge": {"options": {"a": 1}}}, {"labels": {}, "merge": {"labels": {}}}):
        assert_problem(admin("PATCH", "/api/v1/pools/dh1", both), 400, "contradicting_options")
    assert admin("PATCH", "/api/v1/pools/dh1", {"merge": {}}).status_code == 200


def test_defaults_are_what_a_create_can_use(admin: Caller) -> None:
    for useless in ({"replica_config": "x"}, {"slots": 3}, {"timeouts": {}}, []):
        assert_problem(admin.post("/api/v1/pools", POOL | {"defaults": useless}), 422, "invalid_config")
    made = admin.post("/api/v1/pools", POOL | {"defaults": {"replica_config": {"n_ctx": 64}}})
    assert made.get_json()["defaults"] == {"replica_config": {"n_ctx": 64}}


def test_the_default_pool_stays(admin: Caller) -> None:
    assert_problem(admin("DELETE", "/api/v1/pools/local"), 409, "conflict")


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_pages(admin: Caller, limit: int) -> None:
    for name in ("a", "b", "c"):
        admin.post("/api/v1/pools", POOL | {"name": name})
    found, path = [], f"/api/v1/pools?limit={limit}"
    cursor: str | None = ""
    while cursor is not None:
        body = admin.get(path + (f"&cursor={cursor}" if cursor else "")).get_json()
        assert len(body["pools"]) <= limit
        assert body["total"] == 5
        found += [pool["name"] for pool in body["pools"]]
        cursor = body["next_cursor"]
    assert found == ["a", "b", "c", "local", "mock"]
    assert [pool["name"] for pool in admin.get("/api/v1/pools?backend=process").get_json()["pools"]] == ["local"]
