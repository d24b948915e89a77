"""The agent's thread that brings services on: woken by what changed, and looking by the clock anyway."""

from __future__ import annotations

import logging
import threading
import time

from app.errors import Collided, Unavailable
from app.usecases import reconciling
from app.usecases.context import Context

log = logging.getLogger(__name__)

#: Between two looks at what is due, when no signal makes it sooner.
LOOK_S = 1.0
#: Least time between two looks: what changes in a crowd is seen in one go.
PACE_S = 0.05


def follow(ctx: Context, stop: threading.Event) -> None:
    """Until ``stop``."""
    with ctx.signals.subscribe("events", "services") as signal:
        while not stop.is_set():
            began = time.monotonic()
            found = _guarded(ctx, stop)
            # half of the time at most: a crowd that changes all the time leaves the host to what it serves
            stop.wait(max(PACE_S, min(LOOK_S, time.monotonic() - began)))
            if found < reconciling.BATCH:
                signal.wait(LOOK_S)


def _guarded(ctx: Context, stop: threading.Event) -> int:
    try:
        return reconciling.turn(ctx)
    except (Collided, Unavailable) as error:
        log.warning("services are not looked after: %s", error)
        stop.wait(LOOK_S)
        return 0
