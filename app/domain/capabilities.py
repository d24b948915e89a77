"""Capabilities: what a server says it can do, and which servers a query means.

A capability is a flat object of words, numbers and booleans. A query is a list of (name, text) pairs, as a query string
carries them. It matches a server when all its pairs stand in **one** of the server's capabilities. Types are respected:
``1`` and ``1.0`` mean the number 1 and also the word that looks so, ``true`` the boolean and the word.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Generic, TypeVar

Scalar = str | int | float | bool
Capability = Mapping[str, Scalar]
Query = Sequence[tuple[str, str]]
#: A value with its type: values that match each other are equal, and others are not.
Token = tuple[str, str | Decimal | bool]
Key = TypeVar("Key", bound=Hashable)

#: Exponents beyond what a float holds are no numbers that a capability could have.
_NUMBER = re.compile(r"[+-]?([0-9]{1,400}(\.[0-9]{0,400})?|\.[0-9]{1,400})([eE][+-]?[0-9]{1,3})?")
_BOOLEANS = {"true": True, "false": False}


def token(value: Scalar) -> Token:
    """A capability's value as it is compared."""
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, int | float):
        # repr is the shortest text that means this float: what its owner wrote
        return ("number", Decimal(repr(value)))
    return ("word", value)


def meanings(text: str) -> tuple[Token, ...]:
    """Everything that a query's text may mean: the word itself, and the number or boolean that it looks like."""
    found: list[Token] = [("word", text)]
    if _NUMBER.fullmatch(text):
        found.append(("number", Decimal(text)))
    elif text.lower() in _BOOLEANS:
        found.append(("boolean", _BOOLEANS[text.lower()]))
    return tuple(found)


def matches(capability: Capability, query: Query) -> bool:
    """Whether every pair of ``query`` stands in ``capability``. An empty query asks for nothing and matches."""
    return all(name in capability and token(capability[name]) in meanings(text) for name, text in query)


def models_of(capabilities: Iterable[Capability]) -> tuple[str, ...]:
    """The models that they name, each once, in order."""
    named = (capability.get("model") for capability in capabilities)
    return tuple(dict.fromkeys(model for model in named if isinstance(model, str) and model))


def may_serve(model: str, role: str, models: Collection[str] | None, taken: Collection[str]) -> bool:
    """Whether a server that was registered with such a key may get the requests for ``model``.

    ``models`` are the key's, None where it names none; ``taken`` are the names that somebody else serves already. A key
    that names its models serves just those. One that names none serves any when its role may launch replicas too, and
    else only names that are nobody's: it must not draw prompts that were meant for others.
    """
    if models is not None:
        return model in models
    return role in ("operate", "admin") or model not in taken


class Index(Generic[Key]):
    """Servers by what they can do. Finding costs as much as the rarest pair of the query has servers."""

    def __init__(self) -> None:
        self._capabilities: dict[Key, tuple[Capability, ...]] = {}
        #: where each pair stands: (key, number of the capability)
        self._places: dict[tuple[str, Token], set[tuple[Key, int]]] = {}

    def __len__(self) -> int:
        return len(self._capabilities)

    def put(self, key: Key, capabilities: Iterable[Capability]) -> None:
        """Add a server, or replace what it can do."""
        self.remove(key)
        kept = self._capabilities[key] = tuple(capabilities)
        for place, pair in _pairs(key, kept):
            self._places.setdefault(pair, set()).add(place)

    def remove(self, key: Key) -> None:
        """Take a server out; nothing happens when it is not there."""
        for place, pair in _pairs(key, self._capabilities.pop(key, ())):
            places = self._places[pair]
            places.discard(place)
            if not places:
                del self._places[pair]

    def find(self, query: Query, models: Collection[str] | None = None) -> list[Key]:
        """Servers that match, in no order. With ``models`` a capability that names another model does not count."""
        found = self._places_of(query)
        if models is not None:
            found = (place for place in found if is_visible(self._capabilities[place[0]][place[1]], models))
        return list({key: None for key, _ in found})

    def _places_of(self, query: Query) -> Iterable[tuple[Key, int]]:
        if not query:
            return ((key, number) for key, kept in self._capabilities.items() for number in range(len(kept)))
        sets = []
        for name, text in dict.fromkeys(query):
            parts = [self._places[name, one] for one in meanings(text) if (name, one) in self._places]
            if not parts:
                return ()
            sets.append(parts[0] if len(parts) == 1 else set().union(*parts))
        rarest, *others = sorted(sets, key=len)
        return [place for place in rarest if all(place in one for one in others)] if others else rarest


def is_visible(capability: Capability, models: Collection[str] | None) -> bool:
    """Whether a key that is limited to ``models`` (None: to none) may know of it."""
    model = capability.get("model")
    return models is None or model is None or model in models


def _pairs(key: Key, capabilities: Sequence[Capability]) -> Iterator[tuple[tuple[Key, int], tuple[str, Token]]]:
    for number, capability in enumerate(capabilities):
        for name, value in capability.items():
            yield (key, number), (name, token(value))
