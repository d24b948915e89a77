"""The gateway's agent: ``python -m app.gateway.agent``. It keeps HAProxy's files and table right, and may die any time.

HAProxy is another process and serves on without it.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading

from app.gateway.access_log import rotate
from app.gateway.places import Places
from app.log import configure
from app.settings import Settings
from app.stack.layout import Layout

EVERY_S = 2.0

log = logging.getLogger(__name__)


def main() -> int:
    """Work until SIGTERM."""
    settings = Settings.load()
    configure(settings, "gateway-agent")
    places, over = Places(Layout(settings.state_dir)), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    while not over.wait(EVERY_S):
        try:
            rotate(places.access_log)
        except OSError as error:
            log.warning("the access log could not be cut: %s", error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
