"""Acts of threads that must outlast the database's bad moments."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from app.errors import Collided, Unavailable

log = logging.getLogger(__name__)

#: After an act that could not be done.
PAUSE_S = 1.0


def guarded(stop: threading.Event, act: Callable[..., object], *arguments: Any) -> None:
    """Do ``act``; where the database is away or all collided, say so, and wait a moment or until ``stop``."""
    try:
        act(*arguments)
    except (Collided, Unavailable) as error:
        log.warning("%s", error)
        stop.wait(PAUSE_S)
