"""What the agent wrote: which names there are, which take requests, and what a limited key may ask."""

from __future__ import annotations

import difflib
import threading
from dataclasses import dataclass, field
from pathlib import Path

from app.domain.routing import RouteKind, RouteTable, hashed
from app.gateway.assignment import is_asked
from app.gateway.files import mark_of, read_file
from app.gateway.keys import KEY_MODELS
from app.gateway.snapshot import from_json


@dataclass(frozen=True)
class Name:
    """A name that may stand in ``model``. ``model`` is what it means; ``ready``: something takes requests for it."""

    name: str
    model: str
    ready: bool


@dataclass(frozen=True)
class Known:
    """All of it at one moment."""

    names: dict[str, Name] = field(default_factory=dict)
    #: service -> the hash of its one model, "" when there are several
    services: dict[str, str] = field(default_factory=dict)
    #: replica -> the hash of its model
    replicas: dict[str, str] = field(default_factory=dict)
    #: ``key id|hash of a model``
    allowed: frozenset[str] = frozenset()

    def may(self, key_id: str, *hashes: str) -> bool:
        """Whether a limited key may ask one of the models of these hashes."""
        return any(f"{key_id}|{one}" in self.allowed for one in hashes if one)

    def may_name(self, key_id: str, name: str) -> bool:
        """Whether it may ask by ``name``: that is among its models, or what it means is."""
        found = self.names.get(name)
        return self.may(key_id, hashed(name), hashed(found.model) if found else "")

    def near(self, name: str, visible: list[str]) -> list[str]:
        """Names that ``name`` may have been meant to be, best first."""
        by_folded = {one.casefold(): one for one in visible}
        return [by_folded[one] for one in difflib.get_close_matches(name.casefold(), by_folded, n=3)]


class Table:
    """The files, read again when they changed."""

    def __init__(self, snapshot: Path, maps: Path) -> None:
        self._snapshot, self._keys = snapshot, maps / KEY_MODELS
        self._lock = threading.Lock()
        self._seen: tuple[object, object] | None = None
        self._known = Known()

    def read(self) -> Known:
        """What is known now; two stats when nothing changed."""
        seen = (mark_of(self._snapshot), mark_of(self._keys))
        with self._lock:
            if seen != self._seen:
                self._known = _known(from_json(read_file(self._snapshot)).table, read_file(self._keys) or "")
                self._seen = seen
            return self._known


def _known(table: RouteTable, keys: str) -> Known:
    names, services = {}, {}
    for route in table.routes:
        if route.kind is RouteKind.SERVICE:
            services[route.name] = hashed(route.model) if route.model else ""
        else:
            names[route.name] = Name(route.name, route.model, is_asked(table, route))
    return Known(
        names,
        services,
        {member.id: hashed(member.model) for member in table.members.values()},
        frozenset(line.rpartition(" ")[0] for line in keys.splitlines()),
    )
