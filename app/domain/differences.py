"""What differs between two nested values, by dotted name. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

#: Stands where there is nothing.
ABSENT = None


@dataclass(frozen=True)
class Difference:
    """One field. ``is_new`` and ``is_gone`` tell a null that is there from none."""

    field: str
    before: Any
    after: Any
    is_new: bool = False
    is_gone: bool = False


def differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> Iterator[Difference]:
    """Each field that is not the same in both, in the order of the names."""
    for name in sorted({*before, *after}):
        path = f"{prefix}{name}"
        old, new = before.get(name, ABSENT), after.get(name, ABSENT)
        nested = all(isinstance(one, Mapping) or name not in side for one, side in ((old, before), (new, after)))
        if nested and (old or new):
            yield from differences(old or {}, new or {}, f"{path}.")
        elif old != new or (name in before) != (name in after) or isinstance(old, bool) != isinstance(new, bool):
            yield Difference(path, old, new, name not in before, name not in after)
