"""Requests whose end two servers could see at different places: refused, or passed on in one form only."""

from __future__ import annotations

import pytest

from tests.support.public_door import Door

POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
BODY = b"\r\n2\r\naa\r\n0\r\n\r\n"

#: Nobody behind the door sees anything of these, and the connection ends.
REFUSED = {
    "two lengths": POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\naaa",
    "two lengths in one line": POST + b"Content-Length: 2, 3\r\n\r\naaa",
    "a length with a sign": POST + b"Content-Length: +2\r\n\r\naa",
    "a negative length": POST + b"Content-Length: -2\r\n\r\n",
    "a hexadecimal length": POST + b"Content-Length: 0x2\r\n\r\naa",
    "an empty length": POST + b"Content-Length: \r\n\r\n",
    "a length that overflows to 2": POST + b"Content-Length: 18446744073709551618\r\n\r\naa",
    "a length that overflows": POST + b"Content-Length: 18446744073709551615\r\n\r\naa",
    "a length beyond all numbers": POST + b"Content-Length: 99999999999999999999999\r\n\r\naa",
    "another coding": POST + b"Transfer-Encoding: xchunked\r\n" + BODY,
    "a coding after chunks": POST + b"Transfer-Encoding: chunked, identity\r\n" + BODY,
    "no coding, by name": POST + b"Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\naa",
    "chunks twice": POST + CHUNKED + CHUNKED + BODY,
    "chunks behind a vertical tab": POST + b"Transfer-Encoding: \x0bchunked\r\n" + BODY,
    "a space before the colon": POST + b"Transfer-Encoding : chunked\r\n" + BODY,
    "chunks in HTTP/1.0": b"POST / HTTP/1.0\r\nHost: a\r\n" + CHUNKED + BODY,
    "a lone carriage return in a header": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rContent-Length: 3\r\n\r\n",
    "a carriage return too many": b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
    "NUL in a header": b"GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n",
    "a header without a name": b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
    "a space in a header's name": b"GET / HTTP/1.1\r\nHost: a\r\nX A: b\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "another host in the address": b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "a space in the path": b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    "a fragment in the path": b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
    "a path that is no ASCII": b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "no HTTP": b"\x00\x01\x02\x03\r\n\r\n",
    "headers by the hundreds": b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 400 + b"\r\n",
    "headers beyond all bounds": b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_ambiguous_is_refused(door: Door, case: str) -> None:
    answer = door.send(REFUSED[case])
    assert answer.status == 400
    assert answer.closed, "where the next request would begin is unknown"
    assert door.behind.seen == []


@pytest.mark.parametrize(
    "end", [b"zz\r\naa\r\n0\r\n\r\n", b"2\naa\n0\n\n", b"-1\r\naa\r\n0\r\n\r\n", b"2\r\naaXX0\r\n\r\n"]
)
def test_chunks_that_cannot_be_read_end_the_request(door: Door, end: bytes) -> None:
    answer = door.send(POST + CHUNKED + b"\r\n" + end)
    assert answer.status == 400
    assert answer.closed
    assert not any(b"0\r\n\r\n" in part for part in door.behind.seen), "it never looked whole"


def test_of_chunks_and_a_length_only_the_chunks_are_passed_on(door: Door) -> None:
    """As RFC 9112 6.3 has it; and the connection ends, should the caller have meant the length."""
    answer = door.send(POST + CHUNKED + b"Content-Length: 3\r\n" + BODY)
    assert answer.closed
    [request] = door.behind.seen
    assert b"content-length" not in request.lower()
    assert request.endswith(b"2\r\naa\r\n0\r\n\r\n")


def test_a_length_said_twice_is_passed_on_once(door: Door) -> None:
    for lines in (b"Content-Length: 2\r\nContent-Length: 2\r\n", b"Content-Length: 2, 2\r\n"):
        door.behind.clear()
        assert door.send(POST + lines + b"\r\naa").status == 200
        [request] = door.behind.seen
        assert request.lower().count(b"content-length: 2\r\n") == 1


def test_line_ends_and_folds_are_passed_on_in_one_form(door: Door) -> None:
    for request in (b"GET / HTTP/1.1\nHost: a\nX: b c\n\n", b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n"):
        door.behind.clear()
        assert door.send(request).status == 200
        [seen] = door.behind.seen
        assert seen.count(b"\n") == seen.count(b"\r\n")
        assert b"\r\n " not in seen
        assert b"\r\n\t" not in seen


def test_what_follows_a_request_is_a_request_of_its_own(door: Door) -> None:
    """Judged as the first was: with an id of its own, and without what its caller may not say."""
    second = b"GET /2 HTTP/1.1\r\nHost: a\r\nX-Hostler-Route: x\r\n\r\n"
    with door.connect() as connection:
        connection.sendall(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n" + second)
        found = b""
        while found.count(b"ok") < 2:
            found += connection.recv(65536)
    ids = [line for line in b"".join(door.behind.seen).split(b"\r\n") if line.startswith(b"x-request-id")]
    assert len(set(ids)) == 2
    assert b"x-hostler-route" not in b"".join(door.behind.seen)


@pytest.mark.parametrize("method", ["CONNECT", "TRACE"])
def test_tunnels_and_echoes_are_not_offered(door: Door, method: str) -> None:
    target = "a:80" if method == "CONNECT" else "/"
    answer = door.send(f"{method} {target} HTTP/1.1\r\nHost: a:80\r\n\r\n".encode())
    assert answer.problem["code"] == "method_not_allowed"
    assert door.behind.seen == []


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "hostler"])
def test_no_caller_changes_the_protocol(door: Door, protocol: str) -> None:
    lines = f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    lines += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    assert door.send(f"GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n".encode()).status == 200
    [request] = door.behind.seen
    assert b"upgrade" not in request.lower()
    assert b"http2-settings" not in request.lower()
