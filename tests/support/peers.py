"""Servers of others that tests speak to, each in an environment of its own; where one cannot be had, they are skipped.

``python -m tests.support.peers`` makes all of them, as `.ci/run` does before the tests.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.support.venvs import NotInstalled, venv_of

PEERS = Path(__file__).resolve().parents[1] / "peers"
#: Where the environments are kept, by the hash of what is in them; made once.
CACHE = "HOSTLER_TEST_VENVS"


def venv(name: str) -> Path:
    """The environment with what ``tests/peers/<name>/requirements.txt`` pins. Raises NotInstalled."""
    return venv_of(PEERS / name / "requirements.txt", cache(), "--only-binary", ":all:")


def cache() -> Path:
    return Path(os.environ.get(CACHE) or Path.home() / ".cache" / "hostler-tests")


if __name__ == "__main__":
    for peer in sorted(path.parent.name for path in PEERS.glob("*/requirements.txt")):
        try:
            sys.stdout.write(f"{venv(peer)}\n")
        except NotInstalled as missing:
            # the tests that need it say so too, and are skipped
            sys.stdout.write(f"{peer}: {missing}\n")
