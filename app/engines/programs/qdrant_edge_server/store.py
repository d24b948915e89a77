"""The collections of one storage folder, and how one comes and goes at one moment.

``collections/<random>/collection.json`` is what makes a folder a collection: it is written last, by a rename, and
removed first. What has none is left over from a create or delete that was killed, and is cleared away at the start.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil

import qdrant_edge as engine

from .collection import Collection
from .reading import Fields
from .refusals import Refused, unknown_collection, wrong_input
from .shape import read_shape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_DEED = "collection.json"
_SHARD = "shard"
#: Each has files, maps and a thread of its own.
MOST_COLLECTIONS = 500
#: As Qdrant takes them.
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
LONGEST_NAME = 255


class Damaged(Exception):
    """The storage holds what cannot be read."""


class Store:
    """Raises Damaged where the folder holds a collection that cannot be opened: it is not served without it."""

    def __init__(self, folder: str) -> None:
        self._root = os.path.join(folder, "collections")
        os.makedirs(self._root, mode=0o700, exist_ok=True)
        self._found: dict[str, tuple[str, Collection]] = {}
        for place in sorted(os.listdir(self._root)):
            self._open(os.path.join(self._root, place))

    def _open(self, folder: str) -> None:
        deed = os.path.join(folder, _DEED)
        if not os.path.exists(deed):
            shutil.rmtree(folder, ignore_errors=True)
            return
        try:
            with open(deed, encoding="utf-8") as file:
                kept = json.load(file)
            shape = read_shape(kept["params"])
            shard = engine.EdgeShard.load(os.path.join(folder, _SHARD), shape.config())
        except Exception as error:
            # the engine raises nothing narrower
            raise Damaged(f"cannot open the collection in {folder}: {error}") from error
        self._found[kept["name"]] = (folder, Collection(kept["name"], shape, shard))

    def names(self) -> list[str]:
        return sorted(self._found)

    def has(self, name: str) -> bool:
        return name in self._found

    def get(self, name: str) -> Collection:
        if name not in self._found:
            raise unknown_collection(name)
        return self._found[name][1]

    def each(self) -> Iterator[Collection]:
        for _, collection in self._found.values():
            yield collection

    def create(self, name: str, body: dict[str, Any]) -> bool:
        """True once it is on disk. Raises Refused: 400, 409 or 422."""
        _check_name(name)
        shape = read_shape(body)
        if name in self._found:
            raise Refused(409, f"Wrong input: Collection `{name}` already exists!")
        if len(self._found) >= MOST_COLLECTIONS:
            raise wrong_input(f"there are {MOST_COLLECTIONS} collections already; delete one")
        folder = os.path.join(self._root, secrets.token_hex(8))
        os.mkdir(folder, 0o700)
        try:
            shard = engine.EdgeShard.create(os.path.join(folder, _SHARD), shape.config())
            _write(os.path.join(folder, _DEED), {"name": name, "params": shape.shown()})
            _sync(self._root)
        except Exception as error:
            # the engine raises nothing narrower
            shutil.rmtree(folder, ignore_errors=True)
            raise Refused(500, f"Service internal error: {error}") from error
        self._found[name] = (folder, Collection(name, shape, shard))
        return True

    def update(self, name: str, body: dict[str, Any]) -> bool:
        """Only how Qdrant's server should work can be changed, and here that changes nothing."""
        self.get(name)
        fields = Fields(body)
        fields.ignore("optimizers_config", "hnsw_config", "quantization_config", "metadata")
        fields.end()
        return True

    def delete(self, name: str) -> bool:
        """False when there is none. It is gone from the moment its deed is."""
        found = self._found.pop(name, None)
        if found is None:
            return False
        folder, collection = found
        os.unlink(os.path.join(folder, _DEED))
        _sync(folder)
        collection.close()
        shutil.rmtree(folder, ignore_errors=True)
        return True

    def flush(self) -> list[str]:
        """Write down what changed; returns what went wrong, a line each. What was answered is in the log anyway."""
        troubles = []
        for collection in self.each():
            if collection.dirty:
                try:
                    collection.flush()
                except Refused as error:
                    troubles.append(f"cannot flush {collection.name}: {error.message}")
        return troubles

    def close(self) -> list[str]:
        troubles = self.flush()
        for collection in self.each():
            try:
                collection.close()
            except Refused as error:
                troubles.append(f"cannot close {collection.name}: {error.message}")
        return troubles


def _check_name(name: str) -> None:
    if not 1 <= len(name) <= LONGEST_NAME:
        raise Refused(422, f"Validation error in path: [name: must be 1 to {LONGEST_NAME} characters long]")
    if _FORBIDDEN.search(name) or not name.isprintable():
        raise Refused(422, "Validation error in path: [name: holds a character that no collection's name may hold]")


def _write(path: str, content: dict[str, Any]) -> None:
    descriptor = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(f"{path}.new", path)
    _sync(os.path.dirname(path))


def _sync(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
