"""Idempotency-Key: read it from the request; the use case keeps it in its own transaction."""

from __future__ import annotations

import json
import re
from hashlib import sha256

from flask import g, request

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
    return Idempotency(key=key, method=request.method, path=request.path, body_hash=_body_hash())


def _body_hash() -> str:
    """The same for the same JSON, however it is laid out: of the body as it was parsed, before defaults came in."""
    return sha256(json.dumps(g.get("body"), sort_keys=True).encode()).hexdigest()
