"""A slot is given to the next route at once, and the names that led to it before still do.

Taken out: the rest of an emptied slot, and the change of a name whose replicas are gone. What goes wrong is that who
asks for the one model is answered by the other's replicas.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: Known, and nothing of it is ready.
_NONE = "-|"
_first: dict[str, str] = {}


def _no_rest(_original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, shown, before: set()


def _keep_names(original: Callable[..., Any]) -> Callable[..., Any]:
    def make(table: Any, assignment: Any) -> Any:
        maps = original(table, assignment)
        for key, value in maps["routes.map"].items():
            if value.startswith(_NONE):
                maps["routes.map"][key] = _first.get(key, value)
            else:
                _first[key] = value
        return maps

    return make


PATCHES: dict[str, Callable[[Any], Any]] = {
    "app.gateway.keeping:Keeper._resting": _no_rest,
    "app.gateway.maps:make_maps": _keep_names,
}
