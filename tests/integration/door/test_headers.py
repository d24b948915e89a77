"""What callers may tell those behind the door, and what they learn of them."""

from __future__ import annotations

import re

import pytest

from tests.support.public_door import Door


def seen(door: Door) -> dict[str, str]:
    """The headers of the one request that came through; asserts that none came twice."""
    [request] = door.behind.seen
    lines = request.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
    pairs = [line.split(": ", 1) for line in lines]
    assert len({name for name, _ in pairs}) == len(pairs), pairs
    return dict(pairs)


def test_where_a_request_came_from_is_what_the_door_saw(door: Door) -> None:
    claims = {
        "X_Forwarded_For": "1.1.1.1", "Forwarded": "for=1.1.1.1", "X_Real_Ip": "1.1.1.1", "X_Forwarded_Ssl": "on",
        "X_Forwarded_Proto": "https", "X_Forwarded_Host": "evil", "X_Forwarded_Protocol": "ssl", "Proxy": "http://evil",
    }  # fmt: skip
    door.get("/", **claims)
    found = seen(door)
    assert found["x-forwarded-for"] == "127.0.0.1"
    assert found["x-forwarded-proto"] == "http"
    assert found["x-forwarded-host"] == "door"
    assert set(found) == {"host", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id"}


def test_names_with_underscores_are_not_passed_on(door: Door) -> None:
    """Some servers take them for the same with hyphens, which were cleaned."""
    door.send(b"GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 1.1.1.1\r\nX_Hostler_Route: r\r\n\r\n")
    assert not [name for name in seen(door) if "_" in name]


@pytest.mark.parametrize("name", ["Route", "Key-Id", "Server", "Anything", "Servicex", "Xreplica"])
def test_what_only_our_own_processes_may_say_is_removed(door: Door, name: str) -> None:
    request = f"GET / HTTP/1.1\r\nHost: a\r\nX-Hostler-{name}: 1\r\nx-HOSTLER-{name.upper()}: 2\r\n\r\n"
    door.send(request.encode())
    assert not [header for header in seen(door) if "hostler" in header]


def test_what_is_said_of_one_connection_ends_with_it(door: Door) -> None:
    """A caller could name headers of ours here, for the next server to drop."""
    lines = "Connection: close, X-Forwarded-For, X-Request-Id\r\nKeep-Alive: timeout=5\r\nTE: trailers, gzip\r\n"
    lines += "Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic eDp5\r\nTrailer: X-Hostler-Route\r\n"
    answer = door.send(f"GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n".encode())
    assert answer.closed, "the caller's own wish holds"
    assert set(seen(door)) == {"host", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id"}


@pytest.mark.parametrize("name", ["a", "x" * 128, "Az09._:@/+=-"])
def test_a_request_keeps_the_id_it_came_with(door: Door, name: str) -> None:
    answer = door.get("/", X_Request_Id=name)
    assert answer.headers["X-Request-Id"] == seen(door)["x-request-id"] == name


NO_NAMES = (
    "",
    "X-Request-Id: a b",
    "X-Request-Id: ",
    f"X-Request-Id: {'x' * 129}",
    "X-Request-Id: a\r\nX-Request-Id: b",
    'X-Request-Id: "}',
    "X-Request-Id: ä",
)


@pytest.mark.parametrize("lines", NO_NAMES)
def test_a_request_without_a_good_id_gets_one(door: Door, lines: str) -> None:
    request = f"GET / HTTP/1.1\r\nHost: a\r\n{lines}{chr(13) + chr(10) if lines else ''}\r\n"
    answer = door.send(request.encode())
    assert re.fullmatch(r"[0-9a-f-]{36}", answer.headers["X-Request-Id"])
    assert answer.headers["X-Request-Id"] == seen(door)["x-request-id"]


def test_nobody_learns_what_runs_behind_the_door(door: Door) -> None:
    for answer in (door.get("/"), door.send(b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n"), door.send(b"nonsense\r\n\r\n")):
        assert not {"server", "via", "x-powered-by", "keep-alive"} & {name.lower() for name in answer.headers}
        assert b"haproxy" not in answer.body.lower()
    assert door.get("/").headers["X-Content-Type-Options"] == "nosniff"
