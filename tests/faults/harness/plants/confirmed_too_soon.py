"""A gateway that confirms before HAProxy does: rows go as soon as their servers are not wanted any more.

HAProxy holds a server as long as it has a connection to it, a kept one too; meanwhile its port counts as free.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _let_go_first(original: Callable[..., Any]) -> Callable[..., Any]:
    def apply(self: Any, read: Any, shown: Any, picture: Any, begun: float) -> Any:
        from app.usecases import gateways

        unwanted = sorted(read.held - {server for _slot, server in picture.servers})
        if unwanted:
            gateways.let_go(self._ctx, unwanted)
        return original(self, read, shown, picture, begun)

    return apply


PATCHES: dict[str, Callable[[Any], Any]] = {"app.gateway.keeping:Keeper._apply": _let_go_first}
