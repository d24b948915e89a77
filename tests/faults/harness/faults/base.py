"""What a fault must say about itself."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Protocol

from tests.faults.harness.stack import FaultyStack

#: What was hit: JSON values, for the journal and for ``heal``.
Hit = Mapping[str, Any]


class Fault(Protocol):
    """One way of breaking a running stack. That the target is not there (any more) is no error: nothing was hit."""

    #: how often scripts use it, beside the others
    weight: int

    def draw(self, rng: random.Random) -> Mapping[str, Any]:
        """Arguments of one use, JSON values. ``for_s`` says when it is healed, if it must be."""

    def inject(self, stack: FaultyStack, arguments: Mapping[str, Any]) -> Hit:
        """Break it; what was hit."""

    def heal(self, stack: FaultyStack, arguments: Mapping[str, Any], hit: Hit) -> None:
        """Undo what does not end by itself. Called once, at the end of ``for_s`` or of the script."""
