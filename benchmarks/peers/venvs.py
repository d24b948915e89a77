"""Each peer from PyPI in a virtual environment of its own, made once and kept outside the repository.

They lie in ``$HOSTLER_BENCH_CACHE`` (default ``~/.cache/hostler-bench``), by the hash of their pinned requirements.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.venvs import venv_of

CACHE = "HOSTLER_BENCH_CACHE"


def venv(name: str) -> Path:
    """The environment of the peer ``name``. Raises NotInstalled when pip cannot make it."""
    cache = Path(os.environ.get(CACHE) or Path.home() / ".cache" / "hostler-bench")
    return venv_of(Path(__file__).parent / name / "requirements.txt", cache)
