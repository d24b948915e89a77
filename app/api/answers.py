"""How answers are made: JSON, reads with an ETag, accepted work with where to look."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any

from flask import Response, request

from app.api.shown import shown

#: How soon a client should look at accepted work again.
RETRY_AFTER_S = 1


def answer(body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer. Times become RFC 3339 in UTC."""
    response = Response(dumps(body), status, mimetype="application/json")
    if headers:
        response.headers.update(headers)
    return response


def read(body: Mapping[str, Any] | Sequence[Any]) -> Response:
    """A read of what its caller may see: 200 with an ETag of its content, or 304 when the caller has it already."""
    content = dumps(shown(body))
    etag = blake2b(content.encode(), digest_size=12).hexdigest()
    if request.if_none_match.contains_weak(etag):
        response = Response(status=304)
    else:
        response = Response(content, mimetype="application/json")
    response.set_etag(etag)
    response.headers["Cache-Control"] = "private, no-cache"
    return response


def created(body: Mapping[str, Any], location: str, *, replayed: bool = False) -> Response:
    """A new record: 201 and where it is."""
    return mark_replayed(answer(body, 201, {"Location": location}), replayed)


def accepted(body: Mapping[str, Any], location: str, task_id: str, *, replayed: bool = False) -> Response:
    """Work for a worker: 202, the resource, its task and when to look again."""
    task_url = task_path(task_id)
    content = {**body, "task_id": task_id, "task_url": task_url}
    headers = {
        "Location": location,
        "Link": f'<{task_url}>; rel="monitor"',
        "Retry-After": str(RETRY_AFTER_S),
    }
    return mark_replayed(answer(content, 202, headers), replayed)


def gone(*, replayed: bool = False) -> Response:
    """204: the record was deleted."""
    return mark_replayed(Response(status=204), replayed)


def mark_replayed(response: Response, replayed: bool) -> Response:
    """Say that an Idempotency-Key was seen before and nothing was done again."""
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return response


def task_path(task_id: str) -> str:
    return f"/api/v1/tasks/{task_id}"


def replica_path(replica_id: str) -> str:
    return f"/api/v1/replicas/{replica_id}"


def dumps(body: Any) -> str:
    """Compact JSON in ASCII, so that no stored text can make it unsendable."""
    return json.dumps(body, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not JSON")
