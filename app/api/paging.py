"""Keyset pages: the query parameters that every list takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import marshmallow as ma
from marshmallow import validate

from app.api.schemas.fields import Text

DEFAULT_LIMIT = 50
LARGEST_LIMIT = 1000


class PageQuery(ma.Schema):
    """How much of a list, and from where."""

    limit = ma.fields.Integer(
        load_default=DEFAULT_LIMIT,
        validate=validate.Range(1, LARGEST_LIMIT),
        metadata={"description": "Rows per page."},
    )
    cursor = Text(0, 500, metadata={"description": "`next_cursor` of the page before."})


def split(query: Mapping[str, Any]) -> tuple[dict[str, Any], int, str | None]:
    """(filters, limit, cursor) of a loaded query."""
    filters = {name: value for name, value in query.items() if name not in ("limit", "cursor")}
    return filters, query["limit"], query.get("cursor") or None
