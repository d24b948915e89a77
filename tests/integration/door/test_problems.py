"""Every error that the door makes itself is a problem that says so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.errors import (
    BadGateway,
    BodyTooLarge,
    GatewayTimedOut,
    HeadersTooLarge,
    HostlerError,
    Malformed,
    MethodNotAllowed,
    Unavailable,
    UriTooLong,
)
from app.gateway.config.problems import BY_STATUS
from tests.support.embedded import wait_until
from tests.support.public_door import OK, Answer, Door, public_door

BIG = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 33554433\r\n\r\n"


@pytest.fixture(scope="module")
def hasty() -> Iterator[Door]:
    """A door without patience, so that its ends can be waited for."""
    with public_door(control_silence_s=1, header_s=1, caller_silence_s=1) as made:
        yield made


def told(answer: Answer, error: type[HostlerError]) -> dict[str, object]:
    problem = answer.problem
    assert (answer.status, problem["code"], problem["title"]) == (error.status, error.code, error.title)
    assert problem["type"] == f"urn:hostler:problem:{error.code}"
    assert bool(answer.headers["Retry-After"]) == error.retryable
    return problem


def test_what_is_refused_says_why(door: Door) -> None:
    told(door.send(BIG), BodyTooLarge)
    told(door.send(b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n"), MethodNotAllowed)
    told(door.send(b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), Malformed)
    told(door.get("/" + "a" * 5000), UriTooLong)
    told(door.send(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 150 + b"\r\n"), HeadersTooLarge)
    assert door.behind.seen == []


def test_a_body_as_large_as_may_be_is_let_in(door: Door) -> None:
    assert door.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 33554432\r\n\r\n").status == 200


@pytest.mark.parametrize("path", ["/plain", '/a"b\\c', "/%22%0a%00", "/" + "x" * 3000, "/?key=secret"])
def test_a_problem_is_json_whatever_was_asked(door: Door, path: str) -> None:
    answer = door.send(f"TRACE {path} HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine\r\n\r\n".encode())
    assert answer.problem["instance"] == path.partition("?")[0][:1000]
    assert answer.problem["request_id"] == "mine"


def test_a_server_that_hangs_up_is_a_bad_gateway(door: Door) -> None:
    for answer in (b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"):
        door.behind.clear()
        door.behind.answer = answer
        told(door.get("/"), BadGateway)
        assert len(door.behind.seen) == 1, "asked once: it may have been carried out"


def test_a_server_that_says_nothing_ends_in_a_timeout(hasty: Door) -> None:
    hasty.behind.answer = None
    told(hasty.get("/"), GatewayTimedOut)
    hasty.behind.answer = OK


def test_without_the_control_api_its_callers_are_told_until_it_is_back(door: Door) -> None:
    door.behind.stop()
    try:
        assert "goes on" in str(told(door.get("/api/v1/pools"), Unavailable)["detail"])
        # the second time at once: it is known by then
        wait_until(
            lambda: "web is DOWN" in str(door.ask("show servers state control")) or not _up(door), 10, "the check"
        )
        told(door.get("/api/v1/pools"), Unavailable)
    finally:
        door.behind.start()
    wait_until(lambda: door.get("/").status == 200, 5, "the mended API")


def test_slow_headers_end_the_connection(hasty: Door) -> None:
    with hasty.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX-")
        found = b""
        while more := connection.recv(4096):
            found += more
    assert found.startswith(b"HTTP/1.1 408 ")


def test_a_body_that_stops_ends_the_connection(hasty: Door) -> None:
    hasty.behind.answer = None
    with hasty.connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf")
        found = b""
        while more := connection.recv(4096):
            found += more
    hasty.behind.answer = OK
    assert b" 408 " in found or b" 400 " in found or b" 504 " in found
    assert b"application/problem+json" in found


def test_each_status_that_haproxy_makes_has_a_problem() -> None:
    assert {400, 401, 403, 404, 405, 408, 413, 429, 500, 502, 503, 504} == set(BY_STATUS)
    for status, error in BY_STATUS.items():
        assert error.status == status


def _up(door: Door) -> bool:
    lines = [line.split(" ") for line in door.ask("show servers state control").splitlines()]
    [operational] = [line[5] for line in lines if len(line) > 5 and line[3] == "web"]
    return operational == "2"
