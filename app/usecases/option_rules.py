"""What JSON Schema says of a backend's options, and the little that it cannot say."""

from __future__ import annotations

import difflib
import ipaddress
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker, ValidationError
from jsonschema.validators import extend

#: In a schema: this text may hold tabs.
TAKES_TABS = "x-tabs"
#: Of a whole, not of a part of it.
_OF_A_WHOLE = ("required", "dependentRequired", "if", "then", "else")
#: Control characters, ends of lines and halves of characters: no option is of several lines.
_NOT_TEXT = ("Cc", "Cs", "Zl", "Zp")
_FORMATS = FormatChecker(formats=())


def broken_rules(
    schema: Mapping[str, Any], options: Mapping[str, Any], *, partly: bool = False
) -> Iterator[tuple[list[str], str]]:
    """(where, what is wrong there) for each rule that ``options`` break; ``partly``: they are a part of a whole."""
    if partly:
        schema = {name: rule for name, rule in schema.items() if name not in _OF_A_WHOLE}
    for error in _Validator(schema, format_checker=_FORMATS).iter_errors(dict(options)):
        path = [str(part) for part in error.absolute_path]
        if error.validator in ("required", "dependentRequired"):
            name = error.message.split("'")[1]
            described = (error.schema.get("properties") or schema.get("properties") or {}).get(name) or {}
            yield [*path, name], _with_description("Must be set.", described)
        elif error.validator == "additionalProperties":
            known = list(error.schema.get("properties") or ())
            for name in sorted(set(error.instance) - set(known)):
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"Did you mean {close[0]}?" if close else f"There are: {', '.join(known)}."
                yield [*path, name], f"There is no such option. {hint}"
        else:
            yield path, _told(error)


def _told(error: ValidationError) -> str:
    """In words for who typed it, where the library's own are for who wrote the schema."""
    value = repr(error.instance)
    value = value if len(value) <= _LONGEST else f"{value[:_LONGEST]}..."
    if error.validator == "type":
        types = [error.validator_value] if isinstance(error.validator_value, str) else error.validator_value
        return _with_description(f"{value} is not {' or '.join(_TYPES[one] for one in types)}.", error.schema)
    if error.validator == "enum":
        return f"{value} is not one of: {', '.join(map(str, error.validator_value))}."
    if error.validator in ("pattern", "oneOf", "format"):
        return _with_description(f"{value} is nothing that it takes.", error.schema)
    return error.message[:300]


def _with_description(told: str, described: Mapping[str, Any]) -> str:
    description = described.get("description")
    return f"{told} It is: {description}" if description else told


_LONGEST = 100
_TYPES = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "an object",
    "array": "a list",
    "null": "null",
}


def _plain_text(validator: Any, properties: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """``properties``, and no control characters in what they describe."""
    yield from Draft202012Validator.VALIDATORS["properties"](validator, properties, instance, schema)
    if isinstance(instance, Mapping):
        for name, value in instance.items():
            yield from _unprintable(value, properties.get(name) or {}, [name])


def _unprintable(value: Any, schema: Mapping[str, Any], path: list[Any]) -> Iterator[ValidationError]:
    if isinstance(value, str):
        text = value.replace("\t", "") if schema.get(TAKES_TABS) else value
        # the first look is a fast one: what is long is nearly always printable
        if not text.isprintable() and any(unicodedata.category(sign) in _NOT_TEXT for sign in text):
            yield ValidationError("Holds a control character or the end of a line.", path=path)
    elif isinstance(value, Mapping):
        if "properties" not in schema:  # those are checked where they are described
            for name, inner in value.items():
                yield from _unprintable(name, {}, path)
                yield from _unprintable(inner, {}, [*path, name])
    elif isinstance(value, list) and "properties" not in schema.get("items", {}):
        for index, inner in enumerate(value):
            yield from _unprintable(inner, schema, [*path, index])


def _ascending(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    numbers = isinstance(instance, list) and all(isinstance(one, int) for one in instance)
    if wanted and numbers and instance != sorted(instance):
        yield ValidationError("The first must not be above the last.")


@_FORMATS.checks("cidr", raises=ValueError)
def _is_cidr(value: object) -> bool:
    return not isinstance(value, str) or bool(ipaddress.ip_network(value, strict=False))


@_FORMATS.checks("ip", raises=ValueError)
def _is_address(value: object) -> bool:
    return not isinstance(value, str) or bool(ipaddress.ip_address(value))


_Validator = extend(Draft202012Validator, {"properties": _plain_text, "x-ascending": _ascending})
