"""The bytes of a probe, without a socket."""

from __future__ import annotations

import pytest

from workers.probes.wire import MAX_ANSWER_BYTES, Answer, NotHttp, ProbeTarget, parse_answer, request_bytes, verdict

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_a_request_is_one_get_with_its_key() -> None:
    lines = request_bytes(ProbeTarget("127.0.0.1", 8001, "/up", "secret")).split(b"\r\n")
    assert lines[0] == b"GET /up HTTP/1.1"
    assert b"Host: 127.0.0.1:8001" in lines
    assert b"Authorization: Bearer secret" in lines
    assert lines[-2:] == [b"", b""]
    assert b"Authorization" not in request_bytes(ProbeTarget("127.0.0.1", 8001))


@pytest.mark.parametrize("target", [ProbeTarget("h", 1, "/a\r\nX: y"), ProbeTarget("h", 1, key="a\nb")])
def test_a_request_holds_no_smuggled_line(target: ProbeTarget) -> None:
    with pytest.raises(ValueError, match="line breaks"):
        request_bytes(target)


@pytest.mark.parametrize("end", range(len(OK)))
def test_a_part_of_an_answer_is_not_an_answer(end: int) -> None:
    assert parse_answer(OK[:end]) is None
    assert parse_answer(OK) == Answer(200, reusable=True)


@pytest.mark.parametrize(
    "data, answer",
    [
        (b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", Answer(503, reusable=True)),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", Answer(200, reusable=False)),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", Answer(200, reusable=False)),
        (b"HTTP/1.1 302 Found\r\nLocation: http://x/\r\nContent-Length: 0\r\n\r\n", Answer(302, reusable=True)),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Answer(200, reusable=False)),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", Answer(200, reusable=False)),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", Answer(200, reusable=False)),
        (OK + b"HTTP/1.1 500", Answer(200, reusable=False)),
    ],
)
def test_an_answer_and_whether_its_connection_is_kept(data: bytes, answer: Answer) -> None:
    assert parse_answer(data) == answer


@pytest.mark.parametrize(
    "data",
    [b"SSH-2.0-OpenSSH", b"HTTP/2", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200" + b" " * MAX_ANSWER_BYTES],
)
def test_what_is_not_http_is_told_at_once(data: bytes) -> None:
    with pytest.raises(NotHttp):
        parse_answer(data)


@pytest.mark.parametrize("status, ok", [(200, True), (204, True), (301, False), (401, False), (503, False)])
def test_only_2xx_is_good(status: int, ok: bool) -> None:
    assert verdict(status, 1.0).ok is ok


def test_an_address_of_ipv6_stands_in_brackets_as_http_wants_it() -> None:
    lines = request_bytes(ProbeTarget("fd00::7", 8001)).split(b"\r\n")
    assert b"Host: [fd00::7]:8001" in lines
