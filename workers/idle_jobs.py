"""Jobs that wait for a next replica which will not come: ``python -m workers.idle_jobs``, for ``hostler down``.

Prints the names of those that it closed as JSON. A job with a replica on it is left alone, also by one that came in
this moment. What a place that cannot be asked has of them ends by itself, after ``job_stay_s``. Exit code
3: the database cannot be asked.
"""

from __future__ import annotations

import json
import logging
import sys
from concurrent.futures import ThreadPoolExecutor

from workers.backends.base import BackendError
from workers.backends.slurm import SlurmBackend
from workers.bootstrap import Runtime
from workers.errands import run_errand

log = logging.getLogger(__name__)


#: Places that are asked at once, and how long each may take: one that is away holds up no other.
AT_ONCE = 16
ANSWER_S = 8.0


def end(runtime: Runtime) -> list[str]:
    """At every place of a cluster that a pool of this host names. Raises Unavailable."""
    prefix = f"hostler-{runtime.ctx.namespace}-"
    clusters = [backend for backend in runtime.places() if isinstance(backend, SlurmBackend)]
    with ThreadPoolExecutor(AT_ONCE, "idle-jobs") as threads:
        return [job for ended in threads.map(lambda backend: _end_at(backend, prefix), clusters) for job in ended]


def _end_at(backend: SlurmBackend, prefix: str) -> list[str]:
    try:
        return backend.end_idle(prefix, ANSWER_S)
    except BackendError as error:
        log.warning("idle jobs of backend %s end after their job_stay_s: %s", backend.name, error)
        return []


def main() -> int:
    """See the module."""
    return run_errand("idle-jobs", lambda runtime: json.dump(end(runtime), sys.stdout))


if __name__ == "__main__":
    sys.exit(main())
