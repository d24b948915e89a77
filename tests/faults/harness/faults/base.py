"""What a fault must say about itself."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Protocol


class Fault(Protocol):
    """One way of breaking a running stack. ``inject`` and ``heal`` may fail to find their target: that is no error."""

    name: str

    def draw(self, rng: random.Random) -> Mapping[str, Any]:
        """Arguments of one use, as JSON values; depends on nothing but ``rng``."""

    def inject(self, stack: Any, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Break it. Returns what was hit, for the journal and for ``heal``."""

    def heal(self, stack: Any, hit: Mapping[str, Any]) -> None:
        """Undo what does not end by itself. Safe to call twice."""
