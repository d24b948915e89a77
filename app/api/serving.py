"""gunicorn's worker, made to answer what never reaches the application as the application would."""

from __future__ import annotations

import json
import secrets
import ssl
from http import HTTPStatus
from typing import Any

from gevent import get_hub
from gunicorn.http import errors as http
from gunicorn.util import write_nonblock
from gunicorn.workers.ggevent import GeventWorker

from app.errors import HeadersTooLarge, HostlerError, Internal, Malformed, UriTooLong


class Worker(GeventWorker):
    """Serves with a greenlet per connection. Its own refusals are problems too, not pages of HTML."""

    def patch(self) -> None:
        super().patch()
        # a caller that speaks no TLS, or goes away, is no defect to be traced in the log
        get_hub().NOT_ERROR += (ssl.SSLError, ConnectionError)

    def is_already_handled(self, respiter: Any) -> bool:
        """A socket that was taken over (``app.api.held``) is no more this greenlet's to read from."""
        if super().is_already_handled(respiter):
            raise StopIteration
        return False

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer a request that could not be read, and close: where the next one would begin is unknown."""
        if isinstance(exc, ssl.SSLError):
            # what is not TLS would not understand an answer either
            self.log.debug("no TLS from %s: %s", addr, exc)
            return
        # loaded before the fork, it would bring sockets and locks along that gevent has not made its own
        from app.api.problem import MIMETYPE, members

        error, request_id = refusal(exc), secrets.token_hex(8)
        if isinstance(error, Internal):
            self.log.error("[%s] a request failed before the application", request_id, exc_info=exc)
        else:
            self.log.debug("[%s] refused a request of %s: %s", request_id, addr, exc)
        path = getattr(req or getattr(exc, "req", None), "path", None) or ""
        body = json.dumps(
            members(error.status, error.code, error.title, error.detail, instance=path, request_id=request_id)
        ).encode()
        head = (
            f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n"
            f"Content-Type: {MIMETYPE}\r\nContent-Length: {len(body)}\r\n"
            f"X-Request-Id: {request_id}\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
        )
        try:
            write_nonblock(client, head.encode() + body)
        except OSError as gone:
            self.log.debug("[%s] nobody heard it: %s", request_id, gone)


def refusal(error: BaseException) -> HostlerError:
    """What gunicorn could not read, as one of our errors."""
    if isinstance(error, http.LimitRequestLine):
        return UriTooLong()
    if isinstance(error, http.LimitRequestHeaders):
        return HeadersTooLarge()
    ours = (http.InvalidResponseHeader, http.InvalidResponseHeaderName, http.ConfigurationProblem)
    if isinstance(error, http.ParseException) and not isinstance(error, ours):
        # it quotes what it could not read: JSON keeps that harmless
        return Malformed(f"The request is no HTTP that can be served: {error}. Send one well-formed HTTP/1.1 request.")
    return Internal()
