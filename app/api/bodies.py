"""Read requests strictly, in the promised order: 400 unreadable, missing or contradicting; then 422."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import Any, NoReturn

import marshmallow as ma
from flask import Request, g, request
from webargs.flaskparser import FlaskParser

from app.errors import BodyTooLarge, InvalidConfig, Malformed, WrongMediaType

#: Deeper bodies are refused: nothing here nests so far, and every walk over them would have to fear it.
DEEPEST = 64
#: What 64 bits hold, with a sign or without: a point of a vector database may be named by a hash.
LEAST_INTEGER, LARGEST_INTEGER = -(2**63), 2**64 - 1
_LONGEST_INTEGER = 20

_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_ESCAPED_NUL = re.compile(rb"\\u0000")
UNKNOWN_FIELD = "Unknown field."


class Parser(FlaskParser):
    """webargs with our answers. Unknown names are errors in queries too: a mistyped filter must not match all."""

    def use_args(self, argmap: Any, req: Any = None, *, location: str | None = None, **_: Any) -> Callable[..., Any]:
        """Hand the view what the schema makes of the body or query. webargs would ask much that is always so here."""
        schema: ma.Schema = argmap
        read = self.load_querystring if location == "query" else self._raw_load_json

        def decorate(view: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(view)
            def with_arguments(*args: Any, **kwargs: Any) -> Any:
                try:
                    loaded = schema.load(read(request, schema))
                except ma.ValidationError as error:
                    raise invalid(error, schema) from error
                return view(loaded, *args, **kwargs)

            return with_arguments

        return decorate

    def _raw_load_json(self, req: Request, *_: Any) -> Any:
        raw = req.get_data(cache=True)
        if req.content_length is None and len(raw) >= (req.max_content_length or math.inf):
            # werkzeug cuts a chunked body there, and what is left could pass for a request
            raise BodyTooLarge()
        if not raw.strip():
            return {}
        if not req.is_json:
            raise WrongMediaType(f"The body is {req.mimetype or 'untyped'}. Send `Content-Type: application/json`.")
        g.body = parse_json(raw)
        return g.body


def invalid(error: ma.ValidationError, schema: ma.Schema) -> InvalidConfig:
    """The 422 that names every wrong field."""
    errors = flatten(error.messages, schema)
    first = next(iter(errors), "body")
    return InvalidConfig(f"{first}: {errors[first][0]}" if errors else "", errors=errors)


def parse_json(raw: bytes) -> Any:
    """The value of a JSON body. Raises Malformed, also for what only Python takes (NaN) or what nobody can hold."""
    try:
        found = _DECODER.decode(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Malformed(f"The body is not valid JSON: {_why(error)}") from error
    if raw.count(b"[") + raw.count(b"{") > DEEPEST and _depth(found, DEEPEST) > DEEPEST:
        raise Malformed(f"The body nests deeper than {DEEPEST} levels.")
    if _ESCAPED_NUL.search(raw) and any("\0" in one for one in _strings(found)):
        raise InvalidConfig("body: NUL characters cannot be stored.", errors={"body": ["NUL characters"]})
    if _ESCAPED_SURROGATE.search(raw) and not all(_is_unicode(one) for one in _strings(found)):
        raise Malformed("The body holds half of a surrogate pair, which is no character.")
    return found


def flatten(messages: Any, schema: ma.Schema | None = None, prefix: str = "") -> dict[str, list[str]]:
    """marshmallow's nested messages as ``{"job.job_priority": [...]}``, with near matches for unknown names."""
    if not isinstance(messages, Mapping):
        return {prefix or "body": [str(one) for one in messages] if isinstance(messages, list) else [str(messages)]}
    found: dict[str, list[str]] = {}
    for name, value in messages.items():
        label = "body" if name == "_schema" else str(name)
        path = f"{prefix}.{label}" if prefix else label
        if value == [UNKNOWN_FIELD]:
            found[path] = [UNKNOWN_FIELD + _did_you_mean(str(name), schema)]
        else:
            found.update(flatten(value, _below(schema, str(name)), path))
    return found


def _below(schema: ma.Schema | None, name: str) -> ma.Schema | None:
    field = schema.fields.get(name) if schema is not None else None
    return field.schema if isinstance(field, ma.fields.Nested) else None


def _did_you_mean(name: str, schema: ma.Schema | None) -> str:
    near = difflib.get_close_matches(name, schema.fields if schema is not None else [], n=1)
    return f" Did you mean {near[0]}?" if near else ""


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("a number is out of range")
    return value


def _integer(digits: str) -> int:
    # the length first: reading very long ones takes long
    value = int(digits) if len(digits) <= _LONGEST_INTEGER else LARGEST_INTEGER + 1
    if not LEAST_INTEGER <= value <= LARGEST_INTEGER:
        raise ValueError("a number is out of range")
    return value


#: made once: json.loads would build one for every body
_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_float, parse_int=_integer)


def _why(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"it nests deeper than {DEEPEST} levels"
    return "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)


def _depth(value: Any, limit: int) -> int:
    """How deep ``value`` nests; stops counting past ``limit``."""
    level, depth = [value], 0
    while level and depth <= limit:
        inner = [one for one in level if isinstance(one, dict | list)]
        level = [child for one in inner for child in (one.values() if isinstance(one, dict) else one)]
        depth += bool(inner)
        if not inner:
            break
    return depth


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
