"""Request bodies: what is missing or contradicts is told before what is merely wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import marshmallow as ma

from app.api.bodies import UNKNOWN_FIELD, flatten
from app.errors import Contradiction, MissingFields

MISSING = "Missing data for required field."


class Body(ma.Schema):
    """A JSON object. Unknown fields are errors: a mistyped option must not be dropped silently."""

    class Meta:
        unknown = ma.RAISE

    def required_by(self, data: Mapping[str, Any]) -> tuple[str, ...]:
        """Names that this very body needs beside the fields marked required."""
        return ()

    def contradictions(self, data: Mapping[str, Any]) -> dict[str, list[str]]:
        """Messages by field for options that exclude each other; empty when there are none."""
        return {}

    def refuse(self, data: Mapping[str, Any]) -> None:
        """Raise what is wrong in a way of its own, before the fields are looked at one by one."""

    @ma.pre_load
    def check_first(self, data: Any, **_: Any) -> Any:
        """400 before 422: all missing fields at once, then contradictions."""
        if not isinstance(data, Mapping):
            return data
        always = [name for name, field in self.load_fields.items() if field.required]
        missing = [name for name in dict.fromkeys((*always, *self.required_by(data))) if name not in data]
        if missing:
            # a mistyped name is often why one is missing
            known = {field.data_key or name for name, field in self.load_fields.items()}
            strange = [str(name) for name in data if name not in known] if self.unknown == ma.RAISE else []
            told = f" Unknown: {', '.join(name[:100] for name in strange[:5])}." if strange else ""
            raise MissingFields(
                f"Missing: {', '.join(missing)}.{told} Add what is missing and send the request again.",
                errors={
                    **{name: [MISSING] for name in missing},
                    **flatten({name: [UNKNOWN_FIELD] for name in strange}, self),
                },
            )
        against = self.contradictions(data)
        if against:
            raise Contradiction(f"{', '.join(against)}: send only one of them.", errors=against)
        self.refuse(data)
        return data


class Answer(ma.Schema):
    """What is sent. Further members may come with later versions: clients must not stumble over them."""

    class Meta:
        unknown = ma.INCLUDE


class Page(Answer):
    """A page of a list."""

    total = ma.fields.Integer(required=True, metadata={"description": "Rows on all pages."})
    next_cursor = ma.fields.String(
        required=True, allow_none=True, metadata={"description": "`cursor` of the next page; null on the last."}
    )
