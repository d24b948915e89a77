"""Programs that do one thing for the command line, on this host and with its database, and end: gc, reaching, ..."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from app.errors import Collided, Unavailable
from app.settings import Settings
from workers.bootstrap import Runtime

#: Exit code of one that could not ask the database.
NO_DATABASE = 3


def run_errand(role: str, errand: Callable[[Runtime], object]) -> int:
    """Do it with a runtime of that role. Returns the exit code: 0, or NO_DATABASE after a line on stderr that says why.

    Whatever else it raises is a defect, and ends the program with its traceback.
    """
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    runtime: Runtime | None = None
    try:
        runtime = Runtime(Settings.load(), role)
        errand(runtime)
    except (Collided, Unavailable) as error:
        sys.stderr.write(f"{error}\n")
        return NO_DATABASE
    finally:
        if runtime is not None:
            runtime.ctx.close()
    return 0
