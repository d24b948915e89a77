"""The gateway's agent: ``python -m app.gateway.agent``. It keeps HAProxy's files and table right, and may die any time.

HAProxy is another process and serves on without it.
"""

from __future__ import annotations

import signal
import sys
import threading

from app.gateway.access_log import Scribe
from app.gateway.places import Places
from app.log import configure
from app.settings import Settings
from app.stack.layout import Layout, ensure_run_dir


def main() -> int:
    """Work until SIGTERM."""
    settings = Settings.load()
    configure(settings, "gateway-agent")
    places, over = Places(Layout(settings.state_dir)), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    ensure_run_dir(settings.state_dir)
    scribe = Scribe(places.access_pipe, places.access_log)
    scribe.start()
    over.wait()
    scribe.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
