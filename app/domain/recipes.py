"""Recipes: what one says, how a request is laid over it, and what its parameters may be. See docs/recipes.md."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

#: Members of a recipe's file that are about the recipe itself; the rest is what a request may be laid over.
ABOUT = ("name", "category", "description", "version", "engine", "parameters", "ports")
MODEL, MODEL_NAME = ("model",), ("model_name",)

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}\Z")
_NUMBER = re.compile(r"[+-]?([0-9]{1,18}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][+-]?[0-9]{1,3})?\Z")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True)
class Parameter:
    """One thing that a request may set. ``sets`` is the path of what it sets in the rendered settings."""

    name: str
    type: str
    description: str = ""
    default: Any = None
    required: bool = False
    minimum: float | None = None
    maximum: float | None = None
    exclusive_minimum: float | None = None
    enum: tuple[Any, ...] = ()
    pattern: str = ""
    max_length: int = 32768
    environment: str = ""
    sets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """A recipe that was checked. ``settings`` are what a request is laid over; treat them as frozen."""

    category: str
    name: str
    version: str
    description: str
    engine: str
    parameters: tuple[Parameter, ...] = ()
    ports: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def full_name(self) -> str:
        return f"{self.category}/{self.name}"

    def by_environment(self) -> dict[str, Parameter]:
        """Parameters by the environment name that sets them."""
        return {one.environment: one for one in self.parameters if one.environment}


def recipe_of(document: Mapping[str, Any], category: str, name: str) -> Recipe:
    """The recipe of a document that fits the schema."""
    found = [parameter_of(one, said) for one, said in (document.get("parameters") or {}).items()]
    return Recipe(
        category,
        name,
        document.get("version") or "1",
        document.get("description") or "",
        document["engine"],
        tuple(found),
        document.get("ports") or {},
        {key: value for key, value in document.items() if key not in ABOUT},
    )


def parameter_of(name: str, said: Mapping[str, Any]) -> Parameter:
    known = {key: value for key, value in said.items() if key not in ("sets", "enum")}
    sets = tuple(said["sets"].split(".")) if "sets" in said else ("engine_config", name)
    return Parameter(name, enum=tuple(said.get("enum") or ()), sets=sets, **known)


def merged(below: Any, above: Any) -> Any:
    """``above`` laid over ``below`` by the rules of JSON Merge Patch (RFC 7396); changes neither.

    Objects are merged member by member, a null removes the member, everything else (lists too) is replaced whole.
    """
    if not isinstance(above, Mapping):
        return above
    found = dict(below) if isinstance(below, Mapping) else {}
    for name, value in above.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = merged(found.get(name), value)
    return found


def read_numbers(value: Any, schema: Mapping[str, Any]) -> Any:
    """``value`` with texts read as numbers where ``schema`` asks for numbers: requests may write ``"gpu": "4"``.

    What cannot be read stays as it is, and the schema says so.
    """
    if isinstance(value, Mapping):
        known = schema.get("properties", {})
        return {name: read_numbers(one, known[name]) if name in known else one for name, one in value.items()}
    kinds = schema.get("type", ())
    kinds = (kinds,) if isinstance(kinds, str) else kinds
    if isinstance(value, float) and "integer" in kinds and value.is_integer():
        # one number in JSON, and another kind of it here
        return int(value)
    if isinstance(value, str) and "string" not in kinds:
        for kind in ("integer", "number"):
            found = _read(kind, value.strip()) if kind in kinds else None
            if found is not None:
                return found
    return value


def value_problem(parameter: Parameter, value: Any) -> str:
    """Why ``value`` (as ``read_value`` gives it) is not one of ``parameter``; empty when it is."""
    if parameter.enum:
        words = ", ".join(str(one) for one in parameter.enum)
        return "" if any(_same(one, value) for one in parameter.enum) else f"{value!r} is none of: {words}."
    if isinstance(value, str):
        return _text_problem(parameter, value)
    if isinstance(value, bool):
        return ""
    low, above, high = parameter.minimum, parameter.exclusive_minimum, parameter.maximum
    if (low is not None and value < low) or (above is not None and value <= above):
        return f"{value:g} is too small: {_bounds(parameter)}."
    if high is not None and value > high:
        return f"{value:g} is too large: {_bounds(parameter)}."
    return ""


def read_value(parameter: Parameter, value: Any) -> tuple[Any, str]:
    """(the value in its type, why it is none). Numbers and booleans may be texts, as environments have them."""
    if parameter.type == "string":
        if isinstance(value, str):
            return value, ""
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _plain(value), ""
        return None, "Must be a string."
    found = _read(parameter.type, value.strip() if isinstance(value, str) else value)
    if found is None:
        article = {"integer": "a whole number", "number": "a number", "boolean": "true or false"}[parameter.type]
        return None, f"{value!r} is not {article}."
    return found, ""


def environment_text(value: Any) -> str:
    """A value of an environment as text: numbers and booleans as one writes them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else _plain(value)


def count_of(gpus: int, per_replica: int | None, replicas: int | None) -> tuple[int, int]:
    """(how many replicas, GPUs of each). ``replicas`` is what a request asks for by number; None: it does not."""
    if not per_replica or not gpus:
        return 1 if replicas is None else replicas, gpus
    return gpus // per_replica if replicas is None else replicas, per_replica


def set_at(settings: dict[str, Any], path: Iterable[str], value: Any) -> None:
    """Set the member at ``path``; objects on the way are made."""
    *way, last = path
    for step in way:
        inner = settings.get(step)
        settings[step] = inner = dict(inner) if isinstance(inner, Mapping) else {}
        settings = inner
    settings[last] = value


def _read(kind: str, value: Any) -> Any:
    """The value as that kind, or None."""
    if kind == "boolean":
        return value if isinstance(value, bool) else _BOOLEANS.get(value.lower()) if isinstance(value, str) else None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str):
        if _WHOLE.match(value):
            return int(value)
        if kind == "integer" or not _NUMBER.match(value):
            return None
        value = float(value)
    if not math.isfinite(value):
        return None
    if kind == "integer":
        return int(value) if value == int(value) else None
    return value


def _same(one: Any, other: Any) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _text_problem(parameter: Parameter, value: str) -> str:
    if "\0" in value:
        return "Must not hold a NUL character."
    if len(value) > parameter.max_length:
        return f"Longer than {parameter.max_length} characters."
    if parameter.pattern and not re.fullmatch(parameter.pattern, value):
        return f"{value[:200]!r} does not match {parameter.pattern}."
    return ""


def _bounds(parameter: Parameter) -> str:
    low = f"from {parameter.minimum:g}" if parameter.minimum is not None else ""
    above = f"above {parameter.exclusive_minimum:g}" if parameter.exclusive_minimum is not None else ""
    high = f"to {parameter.maximum:g}" if parameter.maximum is not None else ""
    return " ".join(part for part in (low or above, high) if part)


def _plain(value: float) -> str:
    # 4.0 and 4 are one number in JSON, and programs want 4
    return str(int(value)) if abs(value) < 1e15 and value == int(value) else str(value)
