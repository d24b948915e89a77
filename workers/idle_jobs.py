"""Jobs that wait for a next replica which will not come: ``python -m workers.idle_jobs``, for ``hostler down``.

Prints the names of those that it closed as JSON. A job with a replica on it is left alone, also by one that came in
this moment. What a place that cannot be asked has of them ends by itself, after ``job_stay_s``.
"""

from __future__ import annotations

import json
import logging
import sys

from app.errors import Collided, Unavailable
from app.settings import Settings
from workers.backends.base import BackendError
from workers.backends.slurm import SlurmBackend
from workers.bootstrap import Runtime

log = logging.getLogger(__name__)


def end(runtime: Runtime) -> list[str]:
    """At every place of a cluster that a pool of this host names. Raises Unavailable."""
    ended: list[str] = []
    for backend in runtime.places():
        if isinstance(backend, SlurmBackend):
            try:
                ended += backend.end_idle(f"hostler-{runtime.ctx.namespace}-")
            except BackendError as error:
                log.warning("idle jobs of backend %s end after their job_stay_s: %s", backend.name, error)
    return ended


def main() -> int:
    """See the module."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    runtime = Runtime(Settings.load(), "idle-jobs")
    try:
        ended = end(runtime)
    except (Collided, Unavailable) as error:
        sys.stderr.write(f"idle jobs of a cluster end after their job_stay_s: {error}\n")
        return 1
    finally:
        runtime.ctx.close()
    json.dump(ended, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
