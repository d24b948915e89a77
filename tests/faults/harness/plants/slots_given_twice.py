"""A slot is given to a route though another one has it: who asks for the one model may be answered by the other's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _share(original: Callable[..., Any]) -> Callable[..., Any]:
    def assign(table: Any, before: Any, names: Any, resting: Any = ()) -> Any:
        found = original(table, before, names, resting)
        shared = min(found.slots.values(), default="")
        return type(found)(dict.fromkeys(found.slots, shared), found.homeless)

    return assign


PATCHES: dict[str, Callable[[Any], Any]] = {"app.gateway.assignment:assign": _share}
