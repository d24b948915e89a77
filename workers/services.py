"""The agent's thread that brings services on: woken by what changed, and looking by the clock anyway."""

from __future__ import annotations

import logging
import threading
import time

from app.errors import Collided, Unavailable
from app.usecases import defects, reconciling
from app.usecases.context import Context

log = logging.getLogger(__name__)

#: Between two looks at what is due, when no signal makes it sooner.
LOOK_S = 1.0
#: Longest wait after failures that nobody expected.
LONGEST_WAIT_S = 60.0
#: Least time between two looks: what changes in a crowd is seen in one go.
PACE_S = 0.05


def follow(ctx: Context, stop: threading.Event) -> None:
    """Until ``stop``."""
    failures = 0
    with ctx.signals.subscribe("events", "services") as signal:
        while not stop.is_set():
            began = time.monotonic()
            try:
                found = _guarded(ctx, stop)
                failures = 0
            except Exception as error:  # noqa: BLE001 - nobody else would look after the services of this host
                failures += 1
                _tell(ctx, error)
                stop.wait(min(LONGEST_WAIT_S, LOOK_S * 2**failures))
                continue
            # half of the time at most: a crowd that changes all the time leaves the host to what it serves
            stop.wait(max(PACE_S, min(LOOK_S, time.monotonic() - began)))
            if found < reconciling.BATCH:
                signal.wait(LOOK_S)


def _tell(ctx: Context, error: Exception) -> None:
    log.error("services are not looked after: %s; it is tried again", error, exc_info=error)
    try:
        defects.tell(ctx, "services", error)
    except (Collided, Unavailable) as away:
        log.warning("%s", away)


def _guarded(ctx: Context, stop: threading.Event) -> int:
    try:
        return reconciling.turn(ctx)
    except (Collided, Unavailable) as error:
        log.warning("services are not looked after: %s", error)
        stop.wait(LOOK_S)
        return 0
