"""The answer that is held open for as long as something is registered: server-sent events without a greenlet.

What goes over the wire is what the registry's contract shows: ``data: {"status": ...}`` lines and nothing else.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

from flask import Response
from gunicorn.workers.base_async import ALREADY_HANDLED

from app.api import sse
from app.api.streams import Stream, Streams, notice_cut_networks
from app.settings import REGISTERED_ALIVE_S

CRLF = "\r\n"


def line(**members: str) -> bytes:
    """One event."""
    return f"data: {json.dumps(members)}\n\n".encode()


ALIVE = line(status="alive")
_streams: Streams | None = None


def streams() -> Streams:
    """The held streams of this process; made when the first one comes, after the fork."""
    global _streams
    if _streams is None:
        _streams = Streams(ALIVE)
    return _streams


class Hold(Response):
    """Sends ``first`` and holds the stream. ``on_end`` is called once it has ended, whoever ended it.

    ``on_begin`` is handed what ends it from our side. Under gunicorn the socket is taken over and the greenlet of the
    request ends; a server that does not hand its socket over, or that encrypts, keeps a thread or greenlet for it.
    """

    def __init__(
        self,
        first: bytes,
        *,
        silence_s: float,
        on_begin: Callable[[Callable[[], None]], None],
        on_end: Callable[[], None],
    ) -> None:
        super().__init__(self._wait(), mimetype=sse.MIMETYPE)
        self.headers["Cache-Control"] = "no-cache"
        # nginx would hold the stream back
        self.headers["X-Accel-Buffering"] = "no"
        self._first = first
        self._silence_s = silence_s
        self._on_begin = on_begin
        self._on_end = on_end
        self._cut = threading.Event()
        self.call_on_close(on_end)

    def __call__(self, environ: Any, start_response: Any) -> Any:
        connection = environ.get("gunicorn.socket")
        if connection is None or hasattr(connection, "getpeercert"):
            self._on_begin(self._cut.set)
            return super().__call__(environ, start_response)
        is_chunked = environ["SERVER_PROTOCOL"] == "HTTP/1.1"
        notice_cut_networks(connection, self._silence_s)
        stream = streams().open(
            connection, self._head(environ, is_chunked), self._first, is_chunked=is_chunked, on_end=self._on_end
        )
        self._on_begin(lambda: _close(stream))
        return ALREADY_HANDLED

    def _head(self, environ: Any, is_chunked: bool) -> bytes:
        headers = self.get_wsgi_headers(environ)
        headers["Connection"] = "close"
        if is_chunked:
            headers["Transfer-Encoding"] = "chunked"
        lines = [f"{environ['SERVER_PROTOCOL']} 200 OK", *(f"{name}: {value}" for name, value in headers)]
        return CRLF.join([*lines, "", ""]).encode("latin-1")

    def _wait(self) -> Iterator[bytes]:
        yield self._first
        while not self._cut.wait(REGISTERED_ALIVE_S):
            yield ALIVE


def _close(stream: Stream) -> None:
    streams().close(stream, line(status="ended"))
