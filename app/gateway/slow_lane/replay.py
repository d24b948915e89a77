"""One request sent on through the inside door, its answer handed back as it comes.

HAProxy tries another replica by itself where the whole request is in its buffer; what is larger is sent again from
here, before the first byte of an answer. A caller that goes away ends the request upstream at once.
"""

from __future__ import annotations

import http.client
import logging
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

import gevent
from gevent.socket import wait_read

from app.errors import BadGateway, Unavailable
from app.gateway.config.slots import FAILED
from app.gateway.slow_lane.room import Place

log = logging.getLogger(__name__)

#: Between this hop and the next, not for whoever is at the ends.
_HOP = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_PIECE = 64 * 1024
#: With every answer of a replica, and with none of HAProxy's own.
REPLICA = "X-Hostler-Replica"
#: HAProxy's own limits end a request long before.
_SILENT_S = 24 * 3600


class Gone(Exception):
    """The caller went away."""


class Replay:
    """A request whose target is known. ``target`` are the headers that tell the inside door where to; after ``seen_s``
    a replica that is gone is not chosen any more."""

    def __init__(
        self,
        door: str,
        environ: Mapping[str, Any],
        target: Mapping[str, str],
        body: bytes,
        *,
        tries: int,
        seen_s: float,
    ) -> None:
        self._door, self._body, self._tries, self._seen_s = door, body, tries, seen_s
        self._method, self._uri = environ["REQUEST_METHOD"], environ["RAW_URI"]
        self._headers = _headers(environ) | dict(target)
        self._caller: socket.socket = environ["gunicorn.socket"]

    def run(self, start_response: Callable[..., Any], place: Place) -> Iterable[bytes]:
        """The answer. Gives ``place`` back when the body is not needed any more.

        Raises BadGateway, Unavailable and Gone.
        """
        try:
            connection, answer = self._ask()
        finally:
            self._body = b""
            place.leave()
        headers = [
            (name, value) for name, value in answer.getheaders() if name.lower() not in _HOP - {"content-length"}
        ]
        start_response(f"{answer.status} {answer.reason}", headers)
        return _Stream(connection, answer, self._caller)

    def _ask(self) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        for left in range(self._tries - 1, -1, -1):
            connection = _Connection(self._door)
            watch = Watch(self._caller, connection)
            try:
                answer = self._once(connection)
            except BaseException:
                connection.close()
                if watch.gone:
                    raise Gone() from None
                raise
            finally:
                watch.end()
            if not left or not _may_be_tried_again(answer):
                return connection, answer
            log.info("a replica failed before its first byte; %d tries are left", left)
            connection.close()
            if left == 1:
                # what fails at once is the least loaded of its route, and would be chosen for the last try too
                gevent.sleep(self._seen_s)
        raise AssertionError("the last try returns")

    def _once(self, connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
        try:
            connection.connect()
        except OSError as error:
            raise Unavailable("The gateway's inside door does not answer. Try again.", retry_after_s=1) from error
        try:
            connection.request(self._method, self._uri, self._body or None, self._headers)
        except (BrokenPipeError, ConnectionResetError) as error:
            # it may have answered before it had read all: a full queue, a key that is out
            log.debug("the inside door stopped reading: %s", error)
        try:
            return connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise BadGateway("The gateway's inside door ended the connection. Try again.") from error


def _may_be_tried_again(answer: http.client.HTTPResponse) -> bool:
    """As HAProxy does it where it can: a connection that ended without an answer, and an engine that still loads."""
    if answer.status == HTTPStatus.BAD_GATEWAY:
        return FAILED in answer.headers
    return answer.status == HTTPStatus.SERVICE_UNAVAILABLE and REPLICA in answer.headers


class Watch:
    """Cuts ``connection`` when ``caller`` goes away."""

    def __init__(self, caller: socket.socket, connection: http.client.HTTPConnection) -> None:
        self.gone = False
        self._caller, self._connection = caller, connection
        self._greenlet = gevent.spawn(self._look)

    def end(self) -> None:
        self._greenlet.kill()

    def _look(self) -> None:
        try:
            wait_read(self._caller.fileno())
            left = self._caller.recv(1, socket.MSG_PEEK) == b""
        except OSError:
            left = True
        if left:
            self.gone = True
            if self._connection.sock is not None:
                # closing alone would leave whoever reads from it waiting
                self._connection.sock.shutdown(socket.SHUT_RDWR)


class _Stream:
    """The body of an answer, piece by piece as it comes."""

    def __init__(
        self, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse, caller: socket.socket
    ) -> None:
        self._connection, self._answer = connection, answer
        self._watch = Watch(caller, connection)

    def __iter__(self) -> Iterator[bytes]:
        while piece := self._answer.read1(_PIECE):
            yield piece
        if self._answer.length:
            # the caller must see that it is not whole: the connection is cut
            raise ConnectionError("the answer ended early")

    def close(self) -> None:
        self._watch.end()
        self._connection.close()


class _Connection(http.client.HTTPConnection):
    """To a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("gateway", timeout=_SILENT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_SILENT_S)
        self.sock.connect(self._path)


def _headers(environ: Mapping[str, Any]) -> dict[str, str]:
    found = {
        name[5:].replace("_", "-").title(): value
        for name, value in environ.items()
        if name.startswith("HTTP_") and isinstance(value, str)
    }
    if environ.get("CONTENT_TYPE"):
        found["Content-Type"] = environ["CONTENT_TYPE"]
    kept = {
        name: value
        for name, value in found.items()
        if name.lower() not in _HOP and (not name.startswith("X-Hostler-") or name == "X-Hostler-Key-Id")
    }
    return kept | {"Connection": "close"}
