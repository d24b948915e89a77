"""What the slow lane does with a request: read it whole, find its model, judge it, send it on."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from gevent import Timeout

from app.domain.routing import hashed
from app.errors import (
    BadGateway,
    BodyTooLarge,
    HostlerError,
    MethodNotAllowed,
    MissingFields,
    ModelForbidden,
    ModelNotFound,
    NoReadyReplica,
    NotFound,
    RequestTimedOut,
    WrongEncoding,
)
from app.gateway.config.slots import REPLAYABLE
from app.gateway.slow_lane.bodies import may_name_one, model_in
from app.gateway.slow_lane.replay import Gone, Replay
from app.gateway.slow_lane.room import Place, Room
from app.gateway.slow_lane.table import Known, Name, Table

log = logging.getLogger(__name__)

Environ = dict[str, Any]
StartResponse = Callable[..., Any]

_MIMETYPE = "application/problem+json"
_PIECE = 256 * 1024
_LIST = "/v1/models"
_READ_ONLY = ("GET", "HEAD")
#: The agent writes a change within a tenth of a second.
_SOON_S = 0.4
_LOOK_S = 0.02


@dataclass(frozen=True)
class Limits:
    """``max_body`` is in bytes, ``body_s`` how long a body may take to arrive, ``seen_s`` how long it takes HAProxy's
    checks to see that a replica is gone."""

    max_body: int
    body_s: float
    retries: int
    seen_s: float


@dataclass(frozen=True)
class Caller:
    """Who asks, as the public door judged it."""

    key_id: str
    limited: bool
    request_id: str


class SlowLane:
    """The WSGI application. HAProxy is the only one who can reach it."""

    def __init__(self, table: Table, room: Room, limits: Limits, door: str) -> None:
        self._table, self._room, self._limits, self._door = table, room, limits, door

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        caller = Caller(
            environ.get("HTTP_X_HOSTLER_KEY_ID", ""),
            environ.get("HTTP_X_HOSTLER_SCOPE") != "all",
            environ.get("HTTP_X_REQUEST_ID", ""),
        )
        try:
            path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")
            if _is_list(path) and environ.get("HTTP_X_HOSTLER_LANE") == "v1":
                return _answer(start_response, environ, self._models(environ, path, caller))
            return self._send_on(environ, start_response, caller)
        except HostlerError as error:
            return _refuse(start_response, error, environ, caller)
        except Gone:
            # nobody is there to be answered
            raise ConnectionError("the caller went away") from None

    def _models(self, environ: Environ, path: str, caller: Caller) -> Mapping[str, Any]:
        if environ["REQUEST_METHOD"] not in _READ_ONLY:
            raise MethodNotAllowed()
        known = self._table.read()
        shown = {name.name: _model(name) for name in _visible(known, caller) if name.ready}
        if path.rstrip("/") == _LIST:
            return {"object": "list", "data": [shown[name] for name in sorted(shown)]}
        wanted = path.removeprefix(f"{_LIST}/")
        if wanted in shown:
            return shown[wanted]
        raise _no_model(known, wanted, caller)

    def _send_on(self, environ: Environ, start_response: StartResponse, caller: Caller) -> Iterable[bytes]:
        place = self._room.take(self._size(environ))
        try:
            body = self._read(environ, place)
            target = self._target(environ, body, caller)
            once = "X-Hostler-Replica" in target or environ["REQUEST_METHOD"] != "POST"
            replayable = not once and environ["PATH_INFO"] in REPLAYABLE
            tries = 1 + (self._limits.retries if replayable else 0)
            replay = Replay(self._door, environ, target, body, tries=tries, seen_s=self._limits.seen_s)
        except BaseException:
            place.leave()
            raise
        del body
        return replay.run(start_response, place)

    def _size(self, environ: Environ) -> int:
        if environ.get("HTTP_CONTENT_ENCODING"):
            raise WrongEncoding()
        if environ.get("HTTP_TRANSFER_ENCODING"):
            return self._limits.max_body
        written = environ.get("CONTENT_LENGTH") or "0"
        size = int(written) if re.fullmatch("[0-9]{1,18}", written) else self._limits.max_body + 1
        if size > self._limits.max_body:
            raise BodyTooLarge()
        return size

    def _read(self, environ: Environ, place: Place) -> bytes:
        pieces: list[bytes] = []
        size = 0
        with Timeout(self._limits.body_s, RequestTimedOut()):
            while piece := environ["wsgi.input"].read(_PIECE):
                size += len(piece)
                if size > self._limits.max_body:
                    raise BodyTooLarge()
                pieces.append(piece)
        place.shrink(size)
        declared = environ.get("CONTENT_LENGTH")
        if declared and not environ.get("HTTP_TRANSFER_ENCODING") and size != int(declared):
            raise Gone()
        return b"".join(pieces)

    def _target(self, environ: Environ, body: bytes, caller: Caller) -> dict[str, str]:
        """The headers for the inside door. Raises what the caller is told instead."""
        known = self._table.read()
        content_type = environ.get("CONTENT_TYPE") or "application/json"
        replica, service = environ.get("HTTP_X_HOSTLER_REPLICA"), environ.get("HTTP_X_HOSTLER_SERVICE")
        if replica or service:
            if caller.limited:
                behind = known.replicas.get(replica, "") if replica else known.services.get(_utf8(service or ""), "")
                if not known.may(caller.key_id, behind):
                    raise ModelForbidden()
                named = may_name_one(body, content_type) if body else None
                if named is not None and not known.may_name(caller.key_id, named):
                    raise ModelForbidden(f"The key may not ask the model {named!r} that the body names.")
            return {"X-Hostler-Replica": replica} if replica else {"X-Hostler-Service": service or ""}
        if not body:
            if environ["REQUEST_METHOD"] == "POST":
                raise MissingFields("The body is empty: send one with `model`.", errors={"model": ["Missing."]})
            raise NotFound("A route of /v1 without a body needs X-Hostler-Service or X-Hostler-Replica.")
        model = model_in(body, content_type)
        if model is None:
            raise MissingFields(
                "The body names no `model`; `GET /v1/models` lists them.", errors={"model": ["Missing."]}
            )
        if caller.limited and not known.may_name(caller.key_id, model):
            raise ModelForbidden(f"The key may not ask the model {model!r}. Ask an admin for one that may.")
        found = known.names.get(model)
        if found is None:
            raise _no_model(known, model, caller)
        if not found.ready and not self._ready_soon(model):
            raise NoReadyReplica(
                f"No replica of {model!r} is ready. Try again; `hostler replica list` shows what is there.",
                retry_after_s=1,
            )
        return {"X-Hostler-Route": hashed(model)}

    def _ready_soon(self, model: str) -> bool:
        """Whether it is within a moment: who was told that a replica is ready may be faster than the agent."""
        until = time.monotonic() + _SOON_S
        while time.monotonic() < until:
            time.sleep(_LOOK_S)
            found = self._table.read().names.get(model)
            if found is not None and found.ready:
                # the file comes before HAProxy
                time.sleep(_LOOK_S)
                return True
        return False


def _is_list(path: str) -> bool:
    return path.rstrip("/") == _LIST or path.startswith(f"{_LIST}/")


def _visible(known: Known, caller: Caller) -> list[Name]:
    if not caller.limited:
        return list(known.names.values())
    return [name for name in known.names.values() if known.may_name(caller.key_id, name.name)]


def _no_model(known: Known, wanted: str, caller: Caller) -> HostlerError:
    visible = [name.name for name in _visible(known, caller) if name.name != wanted]
    near = known.near(wanted, visible)
    asked = f" Did you mean {', '.join(repr(name) for name in near)}?" if near else ""
    return ModelNotFound(
        f"No model {wanted[:200]!r} is served here.{asked} `GET /v1/models` lists those that are.",
        extra={"near_matches": near},
    )


def _model(name: Name) -> dict[str, Any]:
    # OpenAI's clients want a time; ours is not kept where this is read
    return {"id": name.name, "object": "model", "created": 0, "owned_by": "hostler"}


def _utf8(header: str) -> str:
    return header.encode("latin-1", "replace").decode("utf-8", "replace")


def _answer(start_response: StartResponse, environ: Environ, body: Mapping[str, Any]) -> list[bytes]:
    content = json.dumps(body).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(content)))])
    return _unless_head(environ, content)


def _unless_head(environ: Environ, content: bytes) -> list[bytes]:
    # gunicorn would send it, and it would be taken for the next answer
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [content]


def _refuse(start_response: StartResponse, error: HostlerError, environ: Environ, caller: Caller) -> list[bytes]:
    if isinstance(error, BadGateway):
        log.warning("[%s] %s", caller.request_id, error.detail)
    body = dict(error.extra) | {
        "type": f"urn:hostler:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "instance": environ.get("PATH_INFO", ""),
        "code": error.code,
        "errors": error.errors,
        "request_id": caller.request_id,
        "error": error.detail,
        "source": "gateway",
    }
    content = json.dumps(body).encode()
    headers = [("Content-Type", _MIMETYPE), ("Content-Length", str(len(content)))]
    wait_s = error.retry_after_s or (1 if error.retryable else None)
    if wait_s:
        headers.append(("Retry-After", str(wait_s)))
    if error.status in (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE):
        # what of the body was not read must not be taken for the next request
        headers.append(("Connection", "close"))
    if isinstance(error, MethodNotAllowed):
        headers.append(("Allow", ", ".join(_READ_ONLY)))
    start_response(f"{error.status} {HTTPStatus(error.status).phrase}", headers)
    return _unless_head(environ, content)
