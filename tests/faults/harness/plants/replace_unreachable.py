"""A replica that cannot be asked is taken for dead and replaced; it may run all the while.

Taken out: that ``unreachable`` is a state of the living. What stays: the suspicion of whole hosts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _dead_when_silent(original: Any) -> Any:
    return property(lambda member: original.fget(member) and member.state != "unreachable")


PATCHES: dict[str, Callable[[Any], Any]] = {"app.domain.services.members:Observed.live": _dead_when_silent}
