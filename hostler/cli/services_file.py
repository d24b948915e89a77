"""A file of services: what ``hostler apply`` reads and ``hostler export`` writes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
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
    from hostler.cli.yaml_reading import written_document

    return "---\n".join(written_document(dict(one)) for one in services)


def _documents(path: str) -> Iterator[Json]:
    """The services in a file: one or several documents, each an object, a list of them, or ``services: [...]``."""
    from hostler.cli.yaml_reading import Unreadable, read_documents

    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
        documents = read_documents(text)
    except Unreadable as error:
        raise UnusableFile(f"{path} is no YAML that is taken: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableFile(f"cannot read {path}: {error}") from error
    for document in documents:
        if isinstance(document, dict) and set(document) == {"services"}:
            document = document["services"]
        for one in document if isinstance(document, list) else [document]:
            # an empty document, as behind the last ---, says nothing
            if one is not None:
                yield one


def _checked(document: Any, place: str) -> str:
    if not isinstance(document, dict):
        raise UnusableFile(f"{place}: not an object with name and recipe_name")
    unknown = [str(name) for name in document if name not in FIELDS]
    if unknown:
        raise UnusableFile(f"{place}: unknown: {', '.join(unknown)}; there are: {', '.join(FIELDS)}")
    for name in ("name", "recipe_name"):
        if not isinstance(document.get(name), str) or not document[name]:
            raise UnusableFile(f"{place}: {name} is missing or no text")
    return str(document["name"])
