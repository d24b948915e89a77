"""Where a registered server is and what it speaks: gRPC or HTTP."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from hostler.errors import BadInput, ServerFailed

GRPC, HTTP = "grpc", "http"
PROTOCOLS = (GRPC, HTTP)
CONNECT_TIMEOUT_S = 5.0
#: How a client that speaks HTTP/2 without asking first begins: the preface, and an empty SETTINGS frame.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_FRAME_HEAD_BYTES = 9
_SETTINGS = 4
_SCHEMES = {"": ("", False), "http": (HTTP, False), "https": (HTTP, True), "grpc": (GRPC, False), "grpcs": (GRPC, True)}


@dataclass(frozen=True)
class Endpoint:
    """One server. ``protocol`` is empty where only the server itself can say what it speaks."""

    text: str
    host: str
    port: int
    protocol: str = ""
    tls: bool = False
    #: what stands before ``/v2`` over HTTP
    path: str = ""

    @property
    def authority(self) -> str:
        """``host:port``, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether it is on this host, where no proxy may come between."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")


def parse_endpoint(text: str, protocol: str = "") -> Endpoint:
    """``host:port``, or a URL of http, https, grpc or grpcs. ValueError for anything else.

    ``protocol`` is what the caller knows about the server; it goes before what the scheme says.
    """
    parts = urlsplit(text if "://" in text else f"//{text}")
    if parts.scheme not in _SCHEMES or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError(f"{text!r} is no endpoint")
    told, tls = _SCHEMES[parts.scheme]
    port = parts.port or ({"http": 80, "https": 443}.get(parts.scheme))
    if not port:
        raise ValueError(f"{text!r} names no port")
    return Endpoint(text, parts.hostname, port, protocol or told, tls, parts.path.rstrip("/"))


def checked_protocol(protocol: str | None) -> str:
    """``grpc``, ``http``, or empty for whatever the server speaks. BadInput for another."""
    if protocol not in (None, *PROTOCOLS):
        raise BadInput(f"{protocol!r} is no protocol; there are: {', '.join(PROTOCOLS)}")
    return protocol or ""


def protocol_of(endpoint: Endpoint) -> str:
    """What the server speaks, asked of it. Raises ServerFailed when it is not there."""
    try:
        with socket.create_connection((endpoint.host, endpoint.port), CONNECT_TIMEOUT_S) as connection:
            head = _told(connection)
    except OSError as error:
        raise _away(endpoint, error) from error
    return _spoken(head)


async def async_protocol_of(endpoint: Endpoint) -> str:
    """The same for asyncio."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
            try:
                writer.write(_PREFACE)
                head = await reader.readexactly(_FRAME_HEAD_BYTES)
            except (asyncio.IncompleteReadError, ConnectionError):
                head = b""
            finally:
                writer.close()
    except OSError as error:
        raise _away(endpoint, error) from error
    return _spoken(head)


def _told(connection: socket.socket) -> bytes:
    head = b""
    try:
        connection.sendall(_PREFACE)
        while len(head) < _FRAME_HEAD_BYTES and (more := connection.recv(_FRAME_HEAD_BYTES - len(head))):
            head += more
    except ConnectionError:
        # it was there, and hung up on what it does not speak
        return b""
    return head


def _spoken(head: bytes) -> str:
    # a server of HTTP/2 begins with SETTINGS on stream 0; one of HTTP/1 says 400 or 505, or hangs up
    whole = len(head) == _FRAME_HEAD_BYTES
    return GRPC if whole and head[3] == _SETTINGS and not any(head[5:9]) else HTTP


def _away(endpoint: Endpoint, error: OSError) -> ServerFailed:
    # nothing of the call was sent, whatever happened
    reason = "no answer in time" if isinstance(error, TimeoutError) else error.strerror or str(error) or "cut off"
    return ServerFailed(reason, endpoint=endpoint.text, status="unreachable", sent=False)
