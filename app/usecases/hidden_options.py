"""What of options that only role admin may set is kept from roles that may not operate: the options themselves, and
texts that name their values.

Hosts, users, folders, sockets, images: they say how the ground below the stack is laid, and who only reads needs none
of them. Which options those are, the backends' own schemas say (``x-admin``; ``x-folders`` for those that anybody may
set and that name folders of a host all the same). Words of a backend quote them ("login1 cannot be reached: ..."), so a
text in which one stands is not shown at all: ssh's words around it tell as much.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sqlalchemy import text

from app.usecases.context import Context

#: In the place of a text that names such a value.
NOT_SHOWN = "Not shown: it names what only keys of role operate or admin may see. Ask one who has such a key."
#: Members whose text a backend may have written.
_TEXTS = frozenset({"message", "detail", "error", "text", "why", "command", "stop_trouble"})
#: What users wrote themselves, and what engines did.
_USERS = frozenset({"labels", "environment", "capabilities", "log_tail", "payload", "parameters"})
#: A backend's own handle of an attempt.
_HANDLE = "backend_ref"
#: Shorter words stand in too many texts, and so do these.
_SHORTEST = 3
_EVERYDAY = frozenset({"host", "bridge", "none", "default", "true", "false"})
_REPLICA_ID = re.compile(r"\b[0-9a-f]{12}\b")
_READ = text(
    """
SELECT backend, options FROM pools
UNION ALL
SELECT backend, spec->'resolved'->'backend_options' FROM replicas WHERE id = ANY(:ids)
UNION ALL
SELECT r.backend, before FROM replicas r, jsonb_array_elements(r.spec->'resolved'->'places_before') AS before
WHERE r.id = ANY(:ids)
UNION ALL
SELECT place->>'backend', place->'options' FROM events e, jsonb_array_elements(e.data->'places') AS place
WHERE e.replica_id = ANY(:ids) AND e.kind = 'replica_deleted'
"""
)
_SCHEMAS = text("SELECT name, options_schema->'properties' AS properties FROM backends")


def places_of(spec: Mapping[str, Any], backend: str) -> list[dict[str, Any]]:
    """What a replica's events may name after it was deleted: the options that it had, those before them too."""
    settled = spec.get("resolved") or {}
    found = [settled.get("backend_options"), *settled.get("places_before", ())]
    return [{"backend": backend, "options": options} for options in found if options]


def hide(ctx: Context, body: Any) -> Any:
    """The same body without such options and without texts that name them. Raises Unavailable."""
    ids = sorted(set(_ids(body)))
    with ctx.database.read() as connection:
        schemas = {row.name: row.properties or {} for row in connection.execute(_SCHEMAS)}
        rows = list(connection.execute(_READ, {"ids": ids}))
    marked = {name: _marked(schema) for name, schema in schemas.items()}
    words: set[str] = set()
    for row in rows:
        for option, value in (row.options or {}).items():
            if option in marked.get(row.backend, ()):
                words.update(_words(value, schemas[row.backend][option]))
    kept = sorted((word for word in words if len(word) >= _SHORTEST and word not in _EVERYDAY), key=len, reverse=True)
    naming = re.compile("|".join(rf"(?<![\w.-]){re.escape(word)}(?![\w-])" for word in kept)) if kept else None
    return _covered(body, marked, naming)


def _covered(value: Any, marked: Mapping[str, frozenset[str]], naming: re.Pattern[str] | None) -> Any:
    if isinstance(value, Mapping):
        backend = value.get("backend")
        found: dict[str, Any] = {}
        for name, inner in value.items():
            if name == _HANDLE:
                found[name] = None
            elif name == "options" and isinstance(backend, str) and isinstance(inner, Mapping):
                found[name] = _without(inner, marked.get(backend, frozenset()))
            elif name == "backend_options" and isinstance(inner, Mapping):
                found[name] = _without(inner, frozenset().union(*marked.values()))
            elif name in _USERS:
                found[name] = inner
            elif name in _TEXTS and isinstance(inner, str):
                found[name] = NOT_SHOWN if naming is not None and naming.search(inner) else inner
            else:
                found[name] = _covered(inner, marked, naming)
        return found
    if isinstance(value, list | tuple):
        return [_covered(inner, marked, naming) for inner in value]
    return value


def _without(options: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in names}


def _marked(schema: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(name for name, rule in schema.items() if rule.get("x-admin") or rule.get("x-folders"))


def _words(value: Any, rule: Mapping[str, Any]) -> Iterator[str]:
    """Texts in an option's value, but for those of a closed list."""
    if isinstance(value, str):
        if "enum" not in rule:
            yield value
            # USER@NAME, ssh://USER@NAME:PORT: each part is told by itself as well
            if "@" in value or "://" in value:
                yield from re.split(r"://|[@:/]", value)
    elif isinstance(value, Mapping):
        known = rule.get("properties") or {}
        for name, inner in value.items():
            if name not in known:
                yield name
            yield from _words(inner, known.get(name) or {})
    elif isinstance(value, list):
        for inner in value:
            yield from _words(inner, rule.get("items") or {})


def _ids(value: Any) -> Iterable[str]:
    """Replicas that a body is about."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if isinstance(inner, str):
                if name == "replica_id" or name in _TEXTS:
                    yield from _REPLICA_ID.findall(inner)
            elif name not in _USERS:
                yield from _ids(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _ids(inner)
