"""The local end of a replica that is gone goes on listening, as long as others need the connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _cancel_nothing(_: Callable[..., Any]) -> Callable[..., Any]:
    return lambda connection, port, far: None


PATCHES: dict[str, Callable[[Any], Any]] = {"workers.tunnels.connection:Connection.cancel": _cancel_nothing}
