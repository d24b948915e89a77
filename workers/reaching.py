"""Whether what the pools of this host name can be reached: ``python -m workers.reaching``, for ``hostler doctor``.

Prints one line of JSON per thing that is known: ``{"pools": [...]}``, the names of all, and then ``{"pool", "backend",
"state", "healthy", "detail", "fix"}`` for each as its backend answers, all asked at once. Whoever reads it ends this
process when he has waited long enough. Exit code 3: the database cannot be asked.
"""

from __future__ import annotations

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from app.usecases import places
from workers.backends.base import BackendError, Fingerprint
from workers.bootstrap import Runtime
from workers.errands import run_errand

#: Pools that are asked at once, and how long each may take: logins over slow networks, within what people wait.
AT_ONCE = 16
ANSWER_S = 10.0
_writing = threading.Lock()


def ask_all(runtime: Runtime) -> None:
    """Ask for every pool, those that name the same only once. Raises Unavailable."""
    found = places.pools(runtime.ctx)
    _say({"pools": [row.name for row in found]})
    alike: dict[tuple[str, str], list[Any]] = {}
    for row in found:
        alike.setdefault((row.backend, json.dumps(row.options, sort_keys=True)), []).append(row)
    with ThreadPoolExecutor(AT_ONCE, "reaching") as threads:
        asked = {threads.submit(_ask, runtime, rows[0]): rows for rows in alike.values()}
        for done in as_completed(asked):
            seen = done.result()
            for row in asked[done]:
                _say(
                    {
                        "pool": row.name,
                        "backend": row.backend,
                        "state": row.state,
                        "healthy": seen.healthy and not seen.wrong,
                        "detail": seen.wrong or seen.detail,
                        "fix": seen.fix,
                    }
                )


def _ask(runtime: Runtime, row: Any) -> Fingerprint:
    try:
        return runtime.backend(row.backend, row.options).fingerprint(row.options, ANSWER_S)
    except BackendError as error:
        return Fingerprint(False, str(error))


def _say(told: dict[str, Any]) -> None:
    with _writing:
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


def main() -> int:
    """See the module."""
    return run_errand("doctor", ask_all)


if __name__ == "__main__":
    sys.exit(main())
