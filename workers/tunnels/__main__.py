"""``python -m workers.tunnels``: keep this host's tunnels until SIGTERM."""

from __future__ import annotations

import os
import signal
import sys

from app.log import configure
from app.settings import Settings
from app.usecases.context import Context
from workers.tunnels.role import Tunnels


def main() -> int:
    settings = Settings.load()
    configure(settings, "tunnels")
    os.umask(0o077)
    role = Tunnels(Context.open(settings, pool_size=2, application_name="hostler-tunnels"))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, role.stop)
    role.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
