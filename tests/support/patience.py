"""How long a test waits before it fails: limits are for a machine of its own, and CI runs many tests side by side.

``WAIT_FACTOR`` makes all limits that much longer. What comes in time is not waited for any longer by it.
"""

from __future__ import annotations

import os

_FACTOR = float(os.environ.get("WAIT_FACTOR", "1"))


def patience(limit_s: float) -> float:
    return limit_s * _FACTOR
