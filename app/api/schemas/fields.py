"""Fields that take what they say: no "yes" for true, no true for 1, no number in quotes."""

from __future__ import annotations

import math
import re
from typing import Any

import marshmallow as ma
from marshmallow import validate

#: Tab and newline are the only control characters that any text of ours needs.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class Text(ma.fields.String):
    """A string without control characters, between ``shortest`` and ``longest`` characters."""

    def __init__(self, shortest: int = 0, longest: int = 1000, pattern: str | None = None, **kwargs: Any) -> None:
        checks: list[Any] = [validate.Length(shortest, longest)]
        if pattern is not None:
            checks.append(validate.Regexp(rf"^(?:{pattern})\Z"))
        super().__init__(validate=checks, **kwargs)
        if pattern is not None:
            # what OpenAPI shows: JSON Schema has no \Z
            self.metadata = {"pattern": f"^({pattern})$", **self.metadata}

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        found: str = super()._deserialize(value, attr, data, **kwargs)
        if _CONTROL.search(found):
            raise ma.ValidationError("Control characters are not allowed.")
        return found


class Flag(ma.fields.Boolean):
    """true or false."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class QueryFlag(ma.fields.Boolean):
    """``true`` or ``false`` in a query."""

    truthy = {"true", "1"}
    falsy = {"false", "0"}


class Whole(ma.fields.Integer):
    """A whole number in a range."""

    def __init__(self, low: int, high: int, **kwargs: Any) -> None:
        super().__init__(strict=True, validate=validate.Range(low, high), **kwargs)

    def _validated(self, value: Any) -> int:
        if isinstance(value, bool | str):
            raise self.make_error("invalid", input=value)
        return super()._validated(value)


class Number(ma.fields.Float):
    """A number in a range; ``low`` itself is out of it when ``above`` is set."""

    def __init__(self, low: float, high: float, *, above: bool = False, **kwargs: Any) -> None:
        super().__init__(validate=validate.Range(low, high, min_inclusive=not above), **kwargs)

    def _validated(self, value: Any) -> float:
        if isinstance(value, bool | str) or (isinstance(value, float) and not math.isfinite(value)):
            raise self.make_error("invalid", input=value)
        return super()._validated(value)


class Seconds(Number):
    """A duration in seconds."""


class JsonObject(ma.fields.Dict):
    """Any JSON object; what it may hold is for whoever reads it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(keys=ma.fields.String(), **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.make_error("invalid")
        return value


class StringMap(ma.fields.Dict):
    """An object of strings, bounded in number and size; with ``removes`` null too, for a change that removes one."""

    def __init__(
        self, *, name_pattern: str, longest_value: int, most: int, removes: bool = False, **kwargs: Any
    ) -> None:
        self._name = re.compile(rf"(?:{name_pattern})\Z")
        self._longest_value = longest_value
        self._most = most
        self._removes = removes
        shown = {"maxProperties": most} | kwargs.pop("metadata", {})
        values = ma.fields.String(allow_none=removes)
        super().__init__(keys=ma.fields.String(), values=values, metadata=shown, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> dict[str, str | None]:
        if not isinstance(value, dict):
            raise self.make_error("invalid")
        if len(value) > self._most:
            raise ma.ValidationError(f"More than {self._most} entries.")
        errors: dict[str, list[str]] = {}
        for name, text in value.items():
            if text is None and self._removes:
                continue
            if not self._name.match(name):
                errors[name] = [f"Not a valid name (it must match {self._name.pattern[3:-3]})."]
            elif not isinstance(text, str):
                errors[name] = ["Not a valid string."]
            elif len(text) > self._longest_value:
                errors[name] = [f"Longer than {self._longest_value} characters."]
        if errors:
            raise ma.ValidationError(errors)
        return value
