"""Fewer of many alike: CI breaks off at each nth line of what is killed at each, and plants each nth bug.

``LINES_EVERY=1``, which is how it is without the variable, is every line.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def sampled(lines: Sequence[T]) -> list[T]:
    """Every nth of them, the last one in any case."""
    every = int(os.environ.get("LINES_EVERY", "1"))
    return list(lines[::-every])[::-1]
