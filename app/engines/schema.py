"""Check a config against an engine's schema and say what is wrong by field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from app.errors import InvalidConfig

#: By the schema's identity, which the validator keeps alive: an engine has one, and making it costs more than using it.
_validators: dict[int, Draft202012Validator] = {}


def check(config: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, list[str]]:
    """Errors by dotted field name below ``replica_config``; empty when ``config`` fits the engine's ``schema``."""
    validator = _validators.get(id(schema))
    if validator is None:
        validator = _validators[id(schema)] = Draft202012Validator(schema)
    errors: dict[str, list[str]] = {}
    for error in validator.iter_errors(config):
        for field, message in _by_field(error):
            errors.setdefault(field, []).append(message)
    return errors


def whole(config: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` with 4096.0 as 4096 where the schema asks for an integer: JSON makes no difference, programs do."""
    known = schema.get("properties", {})
    return {
        name: int(value) if isinstance(value, float) and known.get(name, {}).get("type") == "integer" else value
        for name, value in config.items()
    }


def for_admins(config: Mapping[str, Any], granted: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    """The members of ``config`` that only role admin may set (``x-admin`` in the schema), without those that say what
    ``granted`` says, which an admin set for all."""
    marked = [name for name, one in schema.get("properties", {}).items() if one.get("x-admin")]
    return [name for name in marked if config.get(name) and config[name] != granted.get(name)]


def refuse(errors: Mapping[str, list[str]]) -> None:
    """Raise InvalidConfig unless ``errors`` (as ``check`` gives them) is empty."""
    if errors:
        named = {f"replica_config.{field}": messages for field, messages in errors.items()}
        words = "; ".join(f"{field}: {', '.join(messages)}" for field, messages in named.items())
        raise InvalidConfig(f"The engine cannot run this: {words}", errors=named)


def _by_field(error: ValidationError) -> Iterator[tuple[str, str]]:
    """An error names the object around a missing or unknown member; users look for the member."""
    path = [str(step) for step in error.absolute_path]
    if error.validator == "required":
        for name in error.validator_value:
            if name not in error.instance:
                yield ".".join([*path, name]), "is required"
    elif error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        for name in error.instance:
            if name not in known:
                yield ".".join([*path, name]), f"is unknown; known: {', '.join(known)}"
    else:
        yield ".".join(path), error.message
