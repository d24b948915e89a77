"""HAProxy's own answers as ``application/problem+json``, with ``"source": "gateway"``."""

from __future__ import annotations

import json
from collections.abc import Mapping

from app import errors
from app.errors import HostlerError
from app.gateway.config.text import literal, quoted

MIMETYPE = "application/problem+json"
#: What HAProxy answers by itself -> our error. A section may say another for its own.
BY_STATUS: dict[int, type[HostlerError]] = {
    400: errors.Malformed,
    401: errors.Unauthenticated,
    403: errors.Forbidden,
    404: errors.NotFound,
    405: errors.MethodNotAllowed,
    408: errors.RequestTimedOut,
    413: errors.BodyTooLarge,
    429: errors.RateLimited,
    500: errors.Internal,
    502: errors.BadGateway,
    503: errors.Unavailable,
    504: errors.GatewayTimedOut,
}
#: What a retryable error tells to wait, in seconds.
RETRY_AFTER_S = 1
CHALLENGE = 'Bearer realm="hostler", Basic realm="hostler", charset="UTF-8"'
#: Filled in per request by HAProxy; set by the doors before anything can be refused.
_INSTANCE = "%[var(txn.path),json(utf8s)]"
_REQUEST_ID = "%[var(txn.request_id)]"


def defaults() -> list[str]:
    """``http-error`` lines for every error that HAProxy makes."""
    return [http_error(error, status) for status, error in BY_STATUS.items()]


def http_error(error: type[HostlerError], status: int | None = None, *, detail: str = "") -> str:
    """The line that makes HAProxy's own ``status`` (default: the error's) that problem, in its section."""
    return f"http-error status {status or error.status} {_reply(error, status or error.status, detail)}"


def refuse(error: type[HostlerError], *, detail: str = "", retry_after_s: int = 0) -> str:
    """``return ...``: the end of an ``http-request`` rule that answers with that problem."""
    return f"return status {error.status} {_reply(error, error.status, detail, retry_after_s)}"


def _reply(error: type[HostlerError], status: int, detail: str, retry_after_s: int = 0) -> str:
    headers = {}
    if error.retryable:
        headers["Retry-After"] = str(retry_after_s or RETRY_AFTER_S)
    if status == 400:
        # where the next request would begin may be unknown
        headers["Connection"] = "close"
    if status == 401:
        headers["WWW-Authenticate"] = CHALLENGE
    told = "".join(f" hdr {name} {quoted(literal(value))}" for name, value in headers.items())
    return f"content-type {MIMETYPE} lf-string {quoted(body(error, status, detail))}{told}"


def body(error: type[HostlerError], status: int, detail: str = "") -> str:
    """The log-format string of the problem."""
    said = detail or (error.__doc__ or "").strip()
    members: Mapping[str, object] = {
        "type": f"urn:hostler:problem:{error.code}",
        "title": error.title,
        "status": status,
        "detail": said,
        "instance": "INSTANCE",
        "code": error.code,
        "errors": {},
        "request_id": "REQUEST_ID",
        "error": said,
        "source": "gateway",
    }
    text = literal(json.dumps(members, ensure_ascii=True))
    # after the escaping: these two are HAProxy's to fill in
    return text.replace('"INSTANCE"', f'"{_INSTANCE}"').replace('"REQUEST_ID"', f'"{_REQUEST_ID}"')
