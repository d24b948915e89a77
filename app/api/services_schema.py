"""The JSON Schema of a file of services, made from the create that the API's own document describes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

EXTENSION = "hostler-services-schema"
_COMPONENTS = "#/components/schemas/"
_CREATE = "ServiceCreate"
_SERVICE = {"$ref": f"#/$defs/{_CREATE}"}


def of_document(document: Mapping[str, Any]) -> dict[str, Any]:
    """One service, a list of them, or ``services: [...]``; ``document`` is the OpenAPI document."""
    components = document["components"]["schemas"]
    definitions = {name: _moved(components[name]) for name in sorted({_CREATE, *_named(components, _CREATE)})}
    create = definitions[_CREATE]
    create["properties"].pop("dry_run")
    # without a name the next time would make another one
    create["required"] = sorted({*create["required"], "name"})
    many = {"type": "array", "items": _SERVICE}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Services of Hostler",
        "description": "What `hostler apply -f` takes: a service per document, or several.",
        "anyOf": [
            _SERVICE,
            many,
            {
                "type": "object",
                "required": ["services"],
                "properties": {"services": many},
                "additionalProperties": False,
            },
        ],
        "$defs": definitions,
    }


def _named(components: Mapping[str, Any], name: str) -> Iterator[str]:
    for inner in _references(components[name]):
        yield inner
        yield from _named(components, inner)


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name == "$ref":
                yield str(inner).removeprefix(_COMPONENTS)
            else:
                yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def _moved(value: Any) -> Any:
    """A copy whose references lead into ``$defs``."""
    if isinstance(value, Mapping):
        return {
            name: str(inner).replace(_COMPONENTS, "#/$defs/") if name == "$ref" else _moved(inner)
            for name, inner in value.items()
        }
    return [_moved(inner) for inner in value] if isinstance(value, list) else value
