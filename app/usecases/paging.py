"""Cursors of keyset pages: the last row's sort key, opaque to the caller."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from app.errors import InvalidConfig


def encode(values: Sequence[Any]) -> str:
    """The cursor behind a row with this sort key."""
    plain = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    return base64.urlsafe_b64encode(json.dumps(plain, separators=(",", ":")).encode()).decode().rstrip("=")


def decode(cursor: str | None, kinds: Sequence[type]) -> list[Any] | None:
    """The sort key in ``cursor``, checked against ``kinds`` (datetime, str or int); None for the first page.

    Raises InvalidConfig for what ``encode`` never made.
    """
    if not cursor:
        return None
    try:
        found = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        if not isinstance(found, list) or len(found) != len(kinds):
            raise ValueError("another shape")
        return [_typed(value, kind) for value, kind in zip(found, kinds, strict=True)]
    except (ValueError, binascii.Error, RecursionError) as error:
        raise InvalidConfig(
            "cursor: not one of ours. Take `next_cursor` of the page before, or leave it out.",
            errors={"cursor": ["Not a cursor of this list."]},
        ) from error


def _typed(value: Any, kind: type) -> Any:
    if kind is datetime:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        if moment is None or moment.tzinfo is None:
            raise ValueError("not a time")
        return moment
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError("another type")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError("out of range")
    if isinstance(value, str) and "\0" in value:
        raise ValueError("a NUL character")
    return value
