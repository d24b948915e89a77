"""What the driver did and heard, as JSON lines: the only thing besides the world itself that the checker believes.

Each line has ``t`` (monotonic seconds), ``at`` (unix seconds), ``seed`` and ``op``:

- ``request``: ``id, method, path, body, key`` (Idempotency-Key or null), written before the request is sent, with
  ``X-Request-Id: f-<seed>-<id>``
- ``answer``: ``id, status, body, headers`` (a few), or ``lost``: ``id, why``, when the outcome is unknown
- ``fault``, ``heal``: ``name, target, hit``; with ``hit.stranger`` (``pid, start``) a process that must not be harmed
- ``door``: a model was asked: ``by, model, spelled, key, stream``, ``replica`` or ``service`` (by id), ``status`` (0:
  none), ``headers``, ``models`` and ``engines`` (who answered, in their own words), ``whole`` of a stream, ``code`` of
  a problem; at rest ``about`` (the ready replica it is about) and ``last`` (nobody asks again)
- ``registration``: ``status`` or ``broke`` of a registrar's stream; ``told``: ``path, headers`` of a request with a key
  that a registered server got; ``left``: ``found, asked``, what ``/route`` and the door said after it had gone
- ``revoked``: ``key, before, after``: what was answered with it, and a second after its end was acknowledged
- ``followed``: ``replica, heard, streams, over, words, said``, what one who follows a log heard (``speech.py``), over
  how many streams, whether the server said that it was all, what else it said, and what must have been heard by then;
  ``log``: ``replica, attempt, status, heard, said``, the same of one who read it when all was at rest
- ``tried_again``: ``moving, more_s``, what was waited for longer because a launch waits for its next try
- ``moving``: ``what`` is not at rest yet, told when it changes; ``skipped``: an act about a replica nobody knows
- ``seed_begin`` (``after_event, after_task``), ``faults_end``, ``converged`` (``after_s``) or ``not_converged``
  (``moving``), ``seed_end``
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from pathlib import Path
from typing import Any

NAME = "journal.jsonl"


class Journal:
    """Appends to ``<folder>/journal.jsonl``. Used by many threads."""

    def __init__(self, folder: Path) -> None:
        self._file = open(folder / NAME, "a", encoding="utf-8")  # noqa: SIM115 - closed by ``close``
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self.seed = 0

    def write(self, op: str, **more: Any) -> None:
        line = {"t": round(time.monotonic(), 4), "at": round(time.time(), 4), "seed": self.seed, "op": op, **more}
        with self._lock:
            self._file.write(json.dumps(line, default=str) + "\n")
            self._file.flush()

    def request(self, method: str, path: str, body: Any, key: str | None) -> int:
        """Tell of a request that is about to be sent; its id, for ``answer`` or ``lost``."""
        with self._lock:
            number = next(self._ids)
        self.write("request", id=number, method=method, path=path, body=body, key=key)
        return number

    def request_id(self, number: int) -> str:
        """What the request of that id sends as ``X-Request-Id``."""
        return f"f-{self.seed}-{number}"

    def close(self) -> None:
        self._file.close()


def read(folder: Path, seed: int | None = None) -> list[dict[str, Any]]:
    """All lines, or those of one seed, in the order they were written."""
    with open(folder / NAME, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    return [line for line in lines if seed is None or line["seed"] == seed]
