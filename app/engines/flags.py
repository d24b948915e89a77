"""Engines that are started with flags: which member of ``replica_config`` becomes which flag, and of what kind."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

#: A name on the hub, ``organisation/model`` or ``model``: no path, no address, nothing that looks like a flag.
HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")
#: A word of an engine's own vocabulary (a parser, a kind of quantization), which grows with each of its versions.
#: (``$`` would let a line end pass.)
WORD = {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}(?![\s\S])"}
#: A branch, tag or commit. It becomes a part of paths: nothing that climbs.
REVISION = {
    "type": "string",
    "pattern": r"^(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._/-]{0,127}(?![\s\S])",
    "description": "Branch, tag or commit on the hub.",
}
#: Jinja, which engines render in a sandbox.
TEMPLATE = {"type": "string", "maxLength": 262144}
ADMIN_FLAGS = {
    "type": "array",
    "items": {"type": "string", "minLength": 1, "maxLength": 4096},
    "maxItems": 64,
    "x-admin": True,
}


@dataclass(frozen=True)
class Flag:
    """One member of the config. ``schema`` is its JSON Schema with a description.

    ``off`` is the flag that a False of a boolean becomes; empty: none. An object is handed over as JSON.
    """

    flag: str
    schema: Mapping[str, Any]
    off: str = ""


def count(description: str, maximum: int = 2**31 - 1, minimum: int = 1) -> dict[str, Any]:
    """Schema of a whole number."""
    return {"type": "integer", "minimum": minimum, "maximum": maximum, "description": description}


def share(description: str) -> dict[str, Any]:
    """Schema of a part of 1, which must be more than nothing."""
    return {"type": "number", "exclusiveMinimum": 0, "maximum": 1, "description": description}


def yes_no(description: str) -> dict[str, Any]:
    """Schema of a boolean."""
    return {"type": "boolean", "description": description}


def one_of(description: str, *words: str) -> dict[str, Any]:
    """Schema of a choice."""
    return {"type": "string", "enum": list(words), "description": description}


def schema_of(flags: Mapping[str, Flag], **more: Mapping[str, Any]) -> dict[str, Any]:
    """The engine's ``config_schema``: the flags' members and ``more``."""
    properties = {name: dict(one.schema) for name, one in flags.items()}
    return {"type": "object", "properties": {**properties, **{name: dict(one) for name, one in more.items()}}}


def argv_of(flags: Mapping[str, Flag], config: Mapping[str, Any]) -> list[str]:
    """The arguments that ``config`` comes to. No value is taken for a flag: what starts with - is tied to its own."""
    argv: list[str] = []
    for name, one in flags.items():
        value = config.get(name)
        if value is None:
            continue
        if isinstance(value, bool):
            argv += [word for word in (one.flag if value else one.off,) if word]
            continue
        word = json.dumps(dict(value), separators=(",", ":")) if isinstance(value, Mapping) else str(value)
        argv += [f"{one.flag}={word}"] if word.startswith("-") else [one.flag, word]
    return argv


def own_flags(words: Iterable[str], ours: frozenset[str], field: str) -> dict[str, list[str]]:
    """Errors of an admin's extra arguments: a flag that Hostler sets itself would point it somewhere else."""
    errors: dict[str, list[str]] = {}
    for index, word in enumerate(words):
        name = word.partition("=")[0].replace("_", "-")
        # both programs take a flag by its beginning too
        taken = [one for one in sorted(ours) if name.startswith("--") and len(name) > 2 and one.startswith(name)]
        if taken:
            errors[f"{field}.{index}"] = [f"{taken[0]} is set by Hostler itself; leave it out"]
        elif "\0" in word:
            errors[f"{field}.{index}"] = ["must not hold NUL"]
    return errors
