"""A file of JSON lines that several threads append to while others read it."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any


class Lines:
    """Appends; every line is on its way to the file when ``write`` returns."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed by ``close``
        self._lock = threading.Lock()

    def write(self, op: str, **more: Any) -> None:
        text = json.dumps({"at": round(time.time(), 4), "op": op, **more}) + "\n"
        with self._lock:
            self._file.write(text)
            self._file.flush()

    def close(self) -> None:
        with self._lock:
            self._file.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Every whole line so far; none when there is no file."""
    if not path.exists():
        return []
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.endswith("\n")]
