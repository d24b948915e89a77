"""A file of services: what ``hostler apply`` reads and ``hostler export`` writes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hostler.errors import HostlerError

Json = dict[str, Any]

#: What a document may say, in the order in which it is written.
FIELDS = (
    "name",
    "recipe_name",
    "model_name",
    "replicas",
    "pool",
    "labels",
    "config",
    "update",
    "restart",
    "all_or_nothing",
    "successor_lead_s",
)


class UnusableFile(HostlerError):
    """The file cannot be applied."""


def read(paths: Sequence[str]) -> list[Json]:
    """The services of all files, each with a name of its own. Raises UnusableFile for what can be no service."""
    found: list[Json] = []
    places: dict[str, str] = {}
    for path in paths:
        for number, document in enumerate(_documents(path), 1):
            place = f"{path}, service {number}"
            name = _checked(document, place)
            if name in places:
                raise UnusableFile(f"{name} stands twice: {places[name]}, and {place}")
            places[name] = place
            found.append(document)
    return found


def written(services: Sequence[Mapping[str, Any]]) -> str:
    """A file that ``read`` takes, a document for each service."""
    import yaml

    return "---\n".join(yaml.safe_dump(dict(one), sort_keys=False, allow_unicode=True) for one in services)


def _documents(path: str) -> Iterator[Json]:
    """The services in a file: one or several documents, each an object, a list of them, or ``services: [...]``."""
    import yaml

    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
        _refuse_repeated(path, yaml.compose_all(text, yaml.SafeLoader))
        documents = list(yaml.safe_load_all(text))
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableFile(f"cannot read {path}: {error}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise UnusableFile(f"{path} is no YAML: {error}") from error
    for document in documents:
        if isinstance(document, dict) and set(document) == {"services"}:
            document = document["services"]
        for one in document if isinstance(document, list) else [document]:
            # an empty document, as behind the last ---, says nothing
            if one is not None:
                yield one


def _refuse_repeated(path: str, documents: Iterable[Any]) -> None:
    """Refuse a name that stands twice in one object: YAML takes the last one, and nobody sees which."""
    left = list(documents)
    seen: set[int] = set()
    while left:
        node = left.pop()
        # an alias stands for a node that was looked at
        if id(node) in seen or not isinstance(getattr(node, "value", None), list):
            continue
        seen.add(id(node))
        if node.id == "sequence":
            left += node.value
            continue
        names: set[str] = set()
        for key, value in node.value:
            if str(key.value) in names:
                raise UnusableFile(f"{path}, line {key.start_mark.line + 1}: {key.value!r} is there twice")
            names.add(str(key.value))
            left.append(value)


def _checked(document: Any, place: str) -> str:
    if not isinstance(document, dict):
        raise UnusableFile(f"{place}: not an object with name and recipe_name")
    unknown = [str(name) for name in document if name not in FIELDS]
    if unknown:
        raise UnusableFile(f"{place}: unknown: {', '.join(unknown)}; there are: {', '.join(FIELDS)}")
    for name in ("name", "recipe_name"):
        if not isinstance(document.get(name), str) or not document[name]:
            raise UnusableFile(f"{place}: {name} is missing or no text")
    try:
        json.dumps(document, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UnusableFile(f"{place}: {error}; put dates and the like in quotes") from error
    return str(document["name"])
