"""Every error leaves as RFC 9457 ``application/problem+json``, whoever raised it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import psycopg
from flask import Flask, Response, g, request
from gunicorn.http.errors import ParseException
from sqlalchemy.exc import DataError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException

from app.api.shown import shown_problem
from app.errors import (
    BodyTooLarge,
    Conflict,
    HostlerError,
    Internal,
    InvalidConfig,
    Malformed,
    MethodNotAllowed,
    NotFound,
    Unavailable,
    WrongMediaType,
)

log = logging.getLogger(__name__)

MIMETYPE = "application/problem+json"
#: Browsers ask for the key by themselves when Basic is offered; programs read the first.
CHALLENGE = 'Bearer realm="hostler", Basic realm="hostler", charset="UTF-8"'

#: Werkzeug's own errors under our codes: the phrases of HTTP change between versions of Python.
_BY_STATUS: dict[int, HostlerError] = {
    400: Malformed(),
    404: NotFound("There is no such route. `/docs` shows all of them."),
    405: MethodNotAllowed(),
    413: BodyTooLarge(),
    415: WrongMediaType(),
}


def problem(
    status: int,
    code: str,
    title: str,
    detail: str,
    *,
    errors: Mapping[str, Sequence[str]] | None = None,
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Response:
    """The answer of one error. ``extra`` members stand beside the standard ones and never replace them."""
    body = dict(extra or {}) | members(
        status, code, title, detail, instance=request.path, request_id=g.get("request_id", ""), errors=errors
    )
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.CONFLICT:
        # what a backend said may be in there; refusals of requests are our own words, and many
        body = dict(shown_problem(body))
    answer = Response(json.dumps(body, default=str), status, mimetype=MIMETYPE)
    if status == HTTPStatus.UNAUTHORIZED:
        answer.headers["WWW-Authenticate"] = CHALLENGE
    answer.headers.update(headers or {})
    return answer


def members(
    status: int,
    code: str,
    title: str,
    detail: str,
    *,
    instance: str,
    request_id: str,
    errors: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """What stands in every problem."""
    return {
        "type": f"urn:hostler:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": instance,
        "code": code,
        "errors": dict(errors or {}),
        "request_id": request_id,
        # two of the seeds promise a string under this name
        "error": detail,
    }


def install(app: Flask) -> None:
    """Make ``app`` answer every error as a problem."""
    app.register_error_handler(HostlerError, answer_to)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(ParseException, _unreadable_body)
    for down in (OperationalError, InterfaceError, PoolTimeout):
        app.register_error_handler(down, _database_down)
    for unfit in (DataError, psycopg.DataError):
        app.register_error_handler(unfit, _data_error)
    for collision in (IntegrityError, psycopg.IntegrityError):
        app.register_error_handler(collision, _integrity_error)
    app.register_error_handler(Exception, _unexpected)


def answer_to(error: HostlerError) -> Response:
    """The problem that one of our errors is told as."""
    retry_after_s = error.retry_after_s or (1 if error.retryable else None)
    headers = {"Retry-After": str(retry_after_s)} if retry_after_s else {}
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.warning("%s %s: %s: %s", request.method, request.path, error.code, error.detail)
    return problem(
        error.status, error.code, error.title, error.detail, errors=error.errors, headers=headers, extra=error.extra
    )


def _http_error(error: HTTPException) -> Response:
    status = error.code or 500
    if status < HTTPStatus.BAD_REQUEST:
        return Response(status=status, headers=dict(error.get_headers()))
    # webargs puts None under "headers" (flask-smorest's own handler makes a 500 of that)
    headers = dict((getattr(error, "data", None) or {}).get("headers") or {})
    headers |= {name: value for name, value in error.get_headers() if name.lower() != "content-type"}
    known = _BY_STATUS.get(status)
    if known is not None:
        return problem(status, known.code, known.title, known.detail, headers=headers)
    title = HTTPStatus(status).phrase
    return problem(status, f"http_{status}", title, error.description or title, headers=headers)


def _unreadable_body(error: ParseException) -> Response:
    # gunicorn reads a chunked body while the view asks for it; it closes the connection by itself
    return answer_to(Malformed(f"The body cannot be read: {error}."))


def _database_down(error: Exception) -> Response:
    log.warning("%s %s: database: %s", request.method, request.path, type(error).__name__)
    return answer_to(Unavailable(retry_after_s=2))


def _data_error(error: Exception) -> Response:
    log.warning("%s %s: a value the database cannot hold", request.method, request.path, exc_info=error)
    return answer_to(InvalidConfig("A value in the request cannot be stored. Send shorter or plainer values."))


def _integrity_error(error: Exception) -> Response:
    log.warning("%s %s: refused by the schema", request.method, request.path, exc_info=error)
    return answer_to(Conflict("The request collides with what is stored. Look at the resource and try again."))


def _unexpected(error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.path, exc_info=error)
    told = Internal()
    return problem(told.status, told.code, told.title, told.detail)
