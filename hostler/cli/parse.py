"""What people type, as values: K=V pairs, nested settings, durations, request files."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

#: NAME=VALUE up to the next comma; a value in quotes is JSON's string and may hold commas.
_CONDITION = re.compile(r'([^=,"]+)=("(?:[^"\\]|\\.)*"|[^,"]*)(?=,|$)')
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?")


class Duration(click.ParamType):
    """Seconds, or a text like ``90s``, ``5m``, ``1h30m``, ``2d``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, (int, float)):
            return float(value)
        match = _DURATION.fullmatch(value.strip())
        if not value.strip() or match is None:
            self.fail(f"{value!r} is no duration; examples: 90, 90s, 5m, 1h30m", param, ctx)
        days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def number(value: float) -> int | float:
    """``value`` without a fraction that says nothing, as requests are written."""
    return int(value) if value == int(value) else value


def pairs(values: Sequence[str], flag: str) -> dict[str, str]:
    """``K=V`` texts as a dict; the last of equal names holds."""
    found: dict[str, str] = {}
    for value in values:
        name, equals, rest = value.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{value!r} is not NAME=VALUE", param_hint=flag)
        found[name] = rest
    return found


def environment(values: Sequence[str], flag: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Like ``pairs``; a bare NAME takes its value from ``environ``, where other users cannot read it."""
    found: dict[str, str] = {}
    for value in values:
        if "=" in value:
            found.update(pairs([value], flag))
        elif value in environ:
            found[value] = environ[value]
        else:
            raise click.BadParameter(f"{value!r} is not NAME=VALUE, and not set in your environment", param_hint=flag)
    return found


def settings(values: Sequence[str], flag: str) -> dict[str, Any]:
    """``a.b=V`` texts and whole JSON objects as one nested dict. V is JSON where it parses, else text."""
    found: dict[str, Any] = {}
    for value in values:
        if value.lstrip().startswith("{"):
            merge(found, _object(value, flag))
            continue
        for name, text in pairs([value], flag).items():
            nested: Any = _json_or_text(text)
            for part in reversed(name.split(".")):
                nested = {part: nested}
            merge(found, nested)
    return found


def changes(values: Sequence[str], flag: str, read: Callable[[Sequence[str], str], dict[str, Any]]) -> dict[str, Any]:
    """What ``read`` makes of them, with None where a ``NAME-`` (``a.b-`` below) says that there is to be none."""
    removed = [value for value in values if value.endswith("-") and "=" not in value and value[:1] not in ("{", "-")]
    found = read([value for value in values if value not in removed], flag)
    for value in removed:
        nested: Any = None
        for part in reversed(value[:-1].split(".") if read is settings else [value[:-1]]):
            nested = {part: nested}
        merge(found, nested)
    return found


def capability(text: str, flag: str) -> dict[str, Any]:
    """``model=llama,type=chat`` or a JSON object. A value in double quotes is text; a bare number or boolean is one."""
    if text.lstrip().startswith("{"):
        return _object(text, flag)
    found: dict[str, Any] = {}
    at = 0
    while at <= len(text):
        match = _CONDITION.match(text, at)
        if match is None or match[1] in found:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE[,NAME=VALUE...]", param_hint=flag)
        found[match[1]] = _scalar(match[2])
        at = match.end() + 1
    return found


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Lay ``above`` over ``below``, dict by dict; changes and returns ``below``."""
    for name, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(name), dict):
            merge(below[name], value)
        else:
            below[name] = value
    return below


def read_body(path: str | None, flag: str = "-f") -> dict[str, Any]:
    """The request in a file of JSON or YAML (``-``: stdin); empty without one."""
    if path is None:
        return {}
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"cannot read {path}: {error}", param_hint=flag) from error
    try:
        body = json.loads(text)
    except ValueError:
        body = _from_yaml(text, path, flag)
    if not isinstance(body, dict):
        raise click.BadParameter(f"{path} holds no JSON or YAML object", param_hint=flag)
    return body


def _from_yaml(text: str, path: str, flag: str) -> object:
    from hostler.cli.yaml_reading import Unreadable, read_documents

    try:
        found = read_documents(text)
    except Unreadable as error:
        raise click.BadParameter(f"{path} is neither JSON nor YAML that is taken: {error}", param_hint=flag) from error
    if len(found) > 1:
        raise click.BadParameter(f"{path} holds {len(found)} documents of YAML, and takes one", param_hint=flag)
    return found[0] if found else None


def _object(text: str, flag: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no JSON: {error}", param_hint=flag) from error
    if not isinstance(value, dict):
        raise click.BadParameter(f"{text!r} is no JSON object", param_hint=flag)
    return value


def _scalar(text: str) -> Any:
    """A number, a boolean, a text in quotes, or the text as it stands."""
    try:
        value = json.loads(text, parse_constant=lambda word: word)
    except ValueError:
        return text
    # 1e999 is no number that JSON could carry on; null and lists are nothing that a server can do
    finite = isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))
    return value if finite else text


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
