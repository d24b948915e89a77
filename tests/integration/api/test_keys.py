"""Keys through the API: shown once, stored hashed, checked by role and expiry, ended at once, never the last admin."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import text

from app.settings import Settings
from app.stack import secrets, starting
from app.stack.errors import PartFailed
from app.usecases import keys
from app.usecases.context import Context
from app.usecases.known_keys import CACHED_S
from tests.integration.api.conftest import Caller
from tests.support.problems import assert_problem


def test_a_key_lives(admin: Caller, ctx: Context) -> None:
    made = admin.post(
        "/api/v1/keys", {"name": "ci", "role": "read", "models": ["tiny"], "limits": {"concurrent_requests": 2}}
    )
    assert made.status_code == 201
    assert made.headers["Cache-Control"] == "no-store"
    body = made.get_json()
    assert body["key"].startswith("hostler_")
    assert body["key"].startswith(body["prefix"])
    with ctx.database.read() as connection:
        stored = connection.execute(text("SELECT * FROM keys WHERE id = :id"), {"id": body["id"]}).one()
    assert stored.hash == keys.hash_key(body["key"])
    assert body["key"] not in str(stored)
    reader = Caller(admin.client, body["key"])
    assert reader.get("/api/v1/pools").status_code == 200
    shown = admin.get(made.headers["Location"]).get_json()
    assert "key" not in shown
    assert shown["models"] == ["tiny"]
    assert shown["last_used_at"] is not None
    taken = assert_problem(admin.post("/api/v1/keys", {"name": "ci", "role": "read"}), 409, "name_taken")
    assert list(taken["errors"]) == ["name"]
    assert admin("DELETE", made.headers["Location"]).status_code == 204
    assert_problem(reader.get("/api/v1/pools"), 401, "unauthenticated")
    assert_problem(admin("DELETE", made.headers["Location"]), 404, "not_found")
    # its name is free again, its record stays
    assert admin.post("/api/v1/keys", {"name": "ci", "role": "read"}).status_code == 201
    assert body["id"] not in [key["id"] for key in admin.get("/api/v1/keys").get_json()["keys"]]
    assert body["id"] in [key["id"] for key in admin.get("/api/v1/keys?revoked=true").get_json()["keys"]]
    history = admin.get("/api/v1/events").get_data(as_text=True)
    assert "key_created" in history
    assert "key_revoked" in history
    assert body["key"] not in history


def test_another_process_forgets_a_revoked_key_within_a_second(admin: Caller, caller, ctx: Context) -> None:  # type: ignore[no-untyped-def]
    reader = caller("read")
    assert reader.get("/api/v1/pools").status_code == 200
    with ctx.database.begin() as connection:
        connection.execute(text("UPDATE keys SET revoked_at = hostler_now() WHERE id = :id"), {"id": reader.key_id})
    deadline = time.monotonic() + CACHED_S + 1
    while reader.get("/api/v1/pools").status_code != 401:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_replay_does_not_show_the_key_again(admin: Caller) -> None:
    body = {"name": "once", "role": "infer"}
    first = admin.post("/api/v1/keys", body, Idempotency_Key="k").get_json()
    again = admin.post("/api/v1/keys", body, Idempotency_Key="k")
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.get_json()["key"] is None
    assert again.get_json()["id"] == first["id"]


def test_own_keys_must_be_long(admin: Caller) -> None:
    assert_problem(admin.post("/api/v1/keys", {"name": "a", "role": "read", "key": "short"}), 422, "invalid_config")
    own = "k" * 24
    assert admin.post("/api/v1/keys", {"name": "a", "role": "read", "key": own}).get_json()["key"] == own
    assert Caller(admin.client, own).get("/api/v1/nodes").status_code == 200
    assert_problem(admin.post("/api/v1/keys", {"name": "b", "role": "read", "key": own}), 409, "name_taken")


def test_expiry(admin: Caller, ctx: Context) -> None:
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    key = admin.post("/api/v1/keys", {"name": "short-lived", "role": "read", "expires_at": soon}).get_json()["key"]
    reader = Caller(admin.client, key)
    assert reader.get("/api/v1/pools").status_code == 200
    with ctx.database.begin() as connection:
        connection.execute(text("UPDATE clock SET shift = interval '2 hours'"))
    keys._known(ctx.database).forget()
    assert_problem(reader.get("/api/v1/pools"), 401, "unauthenticated")
    for bad in ("2020-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "tomorrow", 7):
        body = {"name": "bad", "role": "read", "expires_at": bad}
        assert_problem(admin.post("/api/v1/keys", body), 422, "invalid_config")
    assert_problem(
        admin.post("/api/v1/keys", {"name": "bad", "role": "read", "expires_at": "2030-01-01T00:00:00"}),
        422,
        "invalid_config",
    )


def test_the_last_admin_key_stays(admin: Caller, caller) -> None:  # type: ignore[no-untyped-def]
    (own,) = admin.get("/api/v1/keys?role=admin").get_json()["keys"]
    assert_problem(admin("DELETE", f"/api/v1/keys/{own['id']}"), 409, "conflict")
    other = caller("admin")
    assert other("DELETE", f"/api/v1/keys/{own['id']}").status_code == 204
    assert_problem(other("DELETE", f"/api/v1/keys/{other.key_id}"), 409, "conflict")


def test_the_configured_admin_key_is_made_once(web_settings: Settings, admin: Caller) -> None:
    keys.ensure_admin_key(web_settings, admin.key)
    assert len(admin.get("/api/v1/keys?role=admin").get_json()["keys"]) == 1


def test_another_configured_admin_key_takes_the_place_of_the_one_before(
    web_settings: Settings, admin: Caller, caller, web: Flask
) -> None:  # type: ignore[no-untyped-def]
    """A key that leaked is replaced by setting another: the old one must not work on beside it."""
    colleague, other = caller("admin"), "another-admin-key-of-24-characters"
    keys.ensure_admin_key(web_settings, other, alone=True)
    keys.ensure_admin_key(web_settings, other, alone=True)
    now = Caller(web.test_client(), other)
    live = {key["id"]: key for key in now.get("/api/v1/keys?role=admin").get_json()["keys"]}
    assert set(live) == {colleague.key_id, *(key_id for key_id, key in live.items() if key["name"] == "admin")}
    assert len(live) == 2
    with pytest.raises(keys.KeyEnded):
        keys.ensure_admin_key(web_settings, admin.key, alone=True)
    # what was refused changed nothing
    assert now.get("/api/v1/pools").status_code == 200
    told = [event["kind"] for event in now.get("/api/v1/events?actor=hostler").get_json()["events"]]
    assert sorted(told) == ["key_created", "key_created", "key_revoked"]


def test_a_start_with_a_revoked_key_in_its_state_dir(
    web_settings: Settings, admin: Caller, caller, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    """Revoking the made key must not keep the stack from starting: there is another one by then."""
    settings = replace(web_settings, state_dir=tmp_path)
    secrets.store_secret(tmp_path, secrets.ADMIN_KEY, admin.key)
    assert starting.migrate(settings) == ""
    (own,) = admin.get("/api/v1/keys?role=admin").get_json()["keys"]
    assert caller("admin")("DELETE", f"/api/v1/keys/{own['id']}").status_code == 204
    assert "was revoked" in starting.migrate(settings)
    with pytest.raises(PartFailed, match="HOSTLER_API_KEY"):
        starting.migrate(replace(settings, api_key=admin.key))


def test_pages(admin: Caller) -> None:
    for number in range(5):
        admin.post("/api/v1/keys", {"name": f"k{number}", "role": "read"})
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        body = admin.get("/api/v1/keys?role=read&limit=2" + (f"&cursor={cursor}" if cursor else "")).get_json()
        found += [key["name"] for key in body["keys"]]
        cursor = body["next_cursor"]
    assert found == [f"k{number}" for number in range(5)]
