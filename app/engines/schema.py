"""Check a config against an engine's schema and say what is wrong by field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator


def check(value: Any, schema: Mapping[str, Any], field: str) -> dict[str, list[str]]:
    """Errors by dotted field name, the whole value being ``field``; empty when ``value`` fits."""
    errors: dict[str, list[str]] = {}
    for error in Draft202012Validator(schema).iter_errors(_plain(value)):
        name = ".".join([field, *map(str, error.absolute_path)])
        errors.setdefault(name, []).append(error.message)
    return errors


def _plain(value: Any) -> Any:
    """As JSON has it: the validator takes only dicts and lists for objects and arrays."""
    if isinstance(value, Mapping):
        return {name: _plain(member) for name, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(member) for member in value]
    return value
