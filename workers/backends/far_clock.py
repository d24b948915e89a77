"""Another host's time since it started, from ours: what comes too late here must be late there too."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class FarClock:
    """What the far host's boot clock showed between two moments of ours. All in nanoseconds."""

    boot_id: str
    ns: int
    asked_ns: int
    heard_ns: int

    def there(self, ns: int) -> int:
        """A moment of our clock on the far one; too early by the time the answer took, never too late."""
        return self.ns + (ns - self.heard_ns)

    @property
    def age_s(self) -> float:
        return (now_ns() - self.asked_ns) / 1e9


def now_ns() -> int:
    """Our boot clock: it goes on while the host sleeps, and nobody sets it."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
