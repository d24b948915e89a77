"""The door does not look at which models a key may ask; what the slow lane reads it still judges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _check_nothing(original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda options: [line for line in original(options) if "is_limited" not in line]


PATCHES: dict[str, Callable[[Any], Any]] = {"app.gateway.config.bodies:_checked": _check_nothing}
