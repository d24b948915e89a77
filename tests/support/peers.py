"""Servers of others that tests speak to, each in an environment of its own: too heavy for requirements.lock.

``python -m tests.support.peers`` makes all of them, as `.ci/run` does before the tests.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

PEERS = Path(__file__).resolve().parents[1] / "peers"
#: Where the environments are kept, by the hash of what is in them; made once.
CACHE = "HOSTLER_TEST_VENVS"
INSTALL_S = 400
_DONE = "complete"


class NotInstalled(Exception):
    """A peer that cannot be had here; the message says why. Its tests are skipped with that reason."""


def venv(name: str) -> Path:
    """The environment with what ``tests/peers/<name>/requirements.txt`` pins. Raises NotInstalled."""
    requirements = PEERS / name / "requirements.txt"
    mark = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = cache() / f"{name}-{mark}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    # two runs at once make one
    with open(folder.parent / f"{folder.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / _DONE).exists():
            _make(folder, requirements)
    return folder


def cache() -> Path:
    return Path(os.environ.get(CACHE) or Path.home() / ".cache" / "hostler-tests")


def _make(folder: Path, requirements: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([*pip, "--no-deps", "--only-binary", ":all:", "-r", str(requirements)])
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise NotInstalled(f"pip could not install {requirements}: {_last_words(error)}") from error
    (folder / _DONE).touch()


def _run(argv: list[str]) -> None:
    subprocess.run(argv, check=True, capture_output=True, text=True, timeout=INSTALL_S, stdin=subprocess.DEVNULL)


def _last_words(error: subprocess.SubprocessError) -> str:
    said = getattr(error, "stderr", None)
    text = said.decode() if isinstance(said, bytes) else said or str(error)
    return text.strip().splitlines()[-1] if text.strip() else str(error)


if __name__ == "__main__":
    for peer in sorted(path.parent.name for path in PEERS.glob("*/requirements.txt")):
        try:
            sys.stdout.write(f"{venv(peer)}\n")
        except NotInstalled as missing:
            # the tests that need it say so too, and are skipped
            sys.stdout.write(f"{peer}: {missing}\n")
