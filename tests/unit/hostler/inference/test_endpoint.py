"""Where a server is, and the question what it speaks."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hostler.errors import BadInput, ServerFailed
from hostler.inference.endpoint import async_protocol_of, checked_protocol, parse_endpoint, protocol_of


@pytest.mark.parametrize(
    "text, authority, protocol, tls",
    [
        ("localhost:50051", "localhost:50051", "", False),
        ("10.0.0.1:1", "10.0.0.1:1", "", False),
        ("[::1]:8000", "[::1]:8000", "", False),
        ("http://h:8000", "h:8000", "http", False),
        ("http://h", "h:80", "http", False),
        ("https://h", "h:443", "http", True),
        ("grpc://h:1", "h:1", "grpc", False),
        ("grpcs://h:1", "h:1", "grpc", True),
    ],
)
def test_endpoints(text: str, authority: str, protocol: str, tls: bool) -> None:
    found = parse_endpoint(text)
    assert (found.text, found.authority, found.protocol, found.tls) == (text, authority, protocol, tls)
    assert parse_endpoint(text, "grpc").protocol == "grpc"


@pytest.mark.parametrize(
    "text",
    ["", "h", "h:", "h:0", "h:x", "h:99999", "grpc://h", "unix:/tmp/x", "ftp://h:1", "http://u:p@h:1", "[::1", ":1"],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - urllib's own words, or ours
        parse_endpoint(text)


def test_protocols() -> None:
    assert checked_protocol(None) == ""
    with pytest.raises(BadInput, match="grpc, http"):
        checked_protocol("GRPC")


@contextmanager
def answering(words: bytes, *, reset: bool = False) -> Iterator[str]:
    """A server that reads what comes, says ``words``, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                if not reset:
                    connection.recv(1000)
                # closed with something unread, the kernel sends a reset
                connection.sendall(words)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join()


SETTINGS = b"\0\0\x06\x04\0\0\0\0\0" + b"\0\x03\0\0\0\x64"


@pytest.mark.parametrize(
    "words, protocol",
    [
        (SETTINGS, "grpc"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "http"),
        (b"", "http"),
        (b"\0\0\x06", "http"),
        (b"\0\0\x06\x04\0\0\0\0\x01", "http"),
    ],
    ids=repr,
)
def test_what_it_speaks(words: bytes, protocol: str) -> None:
    with answering(words) as endpoint:
        assert protocol_of(parse_endpoint(endpoint)) == protocol
    with answering(words) as endpoint:
        assert asyncio.run(async_protocol_of(parse_endpoint(endpoint))) == protocol


def test_one_that_hangs_up_is_there() -> None:
    with answering(b"", reset=True) as endpoint:
        assert protocol_of(parse_endpoint(endpoint)) == "http"
    with answering(b"", reset=True) as endpoint:
        assert asyncio.run(async_protocol_of(parse_endpoint(endpoint))) == "http"


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        endpoint = parse_endpoint(f"127.0.0.1:{closed.getsockname()[1]}")
    with pytest.raises(ServerFailed) as caught:
        protocol_of(endpoint)
    assert not caught.value.sent
    with pytest.raises(ServerFailed) as caught:
        asyncio.run(async_protocol_of(endpoint))
    assert not caught.value.sent
