"""Flower behind the door: with a key that may read, and by no other way."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest

from app.stack.secrets import flower_password
from tests.support.public_door import Door, public_door

ROLES = {role: f"{role}-{'k' * 32}" for role in ("read", "infer", "register", "operate", "admin")}
EXPIRED = f"expired-{'k' * 32}"


@pytest.fixture(scope="module")
def keyed() -> Iterator[Door]:
    records = {key: f"0123456789ab|{role}|all|0|0|0" for role, key in ROLES.items()}
    with public_door(keys=records | {EXPIRED: "0123456789ab|admin|all|1000|0|0"}) as door:
        yield door


@pytest.fixture
def guarded(keyed: Door) -> Door:
    keyed.behind.clear()
    keyed.flower.clear()
    return keyed


def basic(password: str) -> str:
    return f"Basic {base64.b64encode(f'anybody:{password}'.encode()).decode()}"


@pytest.mark.parametrize("role", ["read", "operate", "admin"])
def test_who_may_read_may_look(guarded: Door, role: str) -> None:
    key = ROLES[role]
    for header in ({"X_API_Key": key}, {"Authorization": f"Bearer {key}"}, {"Authorization": basic(key)}):
        guarded.flower.clear()
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in header.items())
        assert guarded.send(f"GET /flower/workers?x=1 HTTP/1.1\r\nHost: a\r\n{lines}\r\n".encode()).status == 200
        [request] = guarded.flower.seen
        assert request.startswith(b"GET /flower/workers?x=1 ")
        own = base64.b64encode(f"hostler:{flower_password(guarded.settings)}".encode())
        assert b"authorization: Basic " + own + b"\r\n" in request
        assert key.encode() not in request
        assert base64.b64encode(f"anybody:{key}".encode()) not in request


@pytest.mark.parametrize("role", ["infer", "register"])
def test_other_roles_may_not(guarded: Door, role: str) -> None:
    """Who may ask models may not see what others do."""
    assert guarded.get("/flower/", X_API_Key=ROLES[role]).problem["code"] == "forbidden"
    assert guarded.flower.seen == []


@pytest.mark.parametrize("key", ["", "unknown-" + "k" * 32, EXPIRED])
def test_without_a_key_a_browser_is_asked_for_one(guarded: Door, key: str) -> None:
    for path in ("/flower/", "/flower", "/flower/metrics", "/flower/healthcheck", "/flower/api/tasks"):
        answer = guarded.get(path, **({"X_API_Key": key} if key else {}))
        assert answer.problem["code"] == "unauthenticated"
        assert "Basic" in answer.headers["WWW-Authenticate"]
    assert guarded.flower.seen == []


@pytest.mark.parametrize("way", ["..", "%2e%2e", "%2E.", "..%2f", "..;"])
def test_no_path_leads_out_of_it(guarded: Door, way: str) -> None:
    answer = guarded.get(f"/flower/{way}/api/v1/keys", X_API_Key=ROLES["read"])
    assert answer.problem["code"] == "malformed"
    assert guarded.flower.seen == guarded.behind.seen == []


@pytest.mark.parametrize("path", ["//flower/", "/%66lower/", "/Flower/", "/flowers", "/a/../flower/"])
def test_what_only_looks_like_it_is_the_apis(guarded: Door, path: str) -> None:
    assert guarded.get(path).status == 200
    assert guarded.flower.seen == []
    assert len(guarded.behind.seen) == 1


def test_the_name_alone_leads_to_it(guarded: Door) -> None:
    answer = guarded.get("/flower", X_API_Key=ROLES["read"])
    assert (answer.status, answer.headers["Location"]) == (302, "/flower/")


def test_a_page_that_stays_open_may_change_the_protocol(guarded: Door) -> None:
    lines = f"X-API-Key: {ROLES['read']}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    lines += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    guarded.flower.answer = (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nframe"
    )
    with guarded.connect() as connection:
        connection.sendall(f"GET /flower/stream HTTP/1.1\r\nHost: a\r\n{lines}\r\n".encode())
        found = b""
        while not found.endswith(b"frame"):
            more = connection.recv(4096)
            assert more, found
            found += more
    assert found.startswith(b"HTTP/1.1 101 ")
