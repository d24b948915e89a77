"""Idempotency-Key: read it from the request; the use case keeps it in its own transaction."""

from __future__ import annotations

import json
import re
from hashlib import sha256

from flask import request

from app.errors import Malformed
from app.usecases.context import Idempotency

_FORM = re.compile(r"[!-~]{1,255}")


def from_request() -> Idempotency | None:
    """The request's idempotency key with the scope it has here, or None. Raises Malformed."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not _FORM.fullmatch(key):
        raise Malformed("Idempotency-Key must be 1 to 255 visible ASCII characters.")
    return Idempotency(key=key, method=request.method, path=request.path, body_hash=_hash(request.get_data(cache=True)))


def _hash(raw: bytes) -> str:
    """The same for the same JSON, however it is laid out. The body was parsed before."""
    if raw.strip() and request.is_json:
        raw = json.dumps(json.loads(raw), sort_keys=True).encode()
    return sha256(raw).hexdigest()
