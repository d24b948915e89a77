"""Each peer from PyPI in a virtual environment of its own, made once and kept outside the repository.

They lie in ``$HOSTLER_BENCH_CACHE`` (default ``~/.cache/hostler-bench``), by the hash of their pinned requirements.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

CACHE = "HOSTLER_BENCH_CACHE"
INSTALL_S = 300
_DONE = "complete"


class NotInstalled(Exception):
    """A peer that cannot be had here; the message says why. It is told, and nothing takes its place."""


def venv(name: str) -> Path:
    """The environment of the peer ``name``. Raises NotInstalled when pip cannot make it."""
    requirements = Path(__file__).parent / name / "requirements.txt"
    mark = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = _cache() / f"{name}-{mark}"
    if (folder / _DONE).exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([*pip, "--no-deps", "-r", str(requirements)])
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise NotInstalled(f"pip could not install {requirements}: {_last_words(error)}") from error
    (folder / _DONE).touch()
    return folder


def _cache() -> Path:
    return Path(os.environ.get(CACHE) or Path.home() / ".cache" / "hostler-bench")


def _run(argv: list[str]) -> None:
    subprocess.run(argv, check=True, capture_output=True, text=True, timeout=INSTALL_S, stdin=subprocess.DEVNULL)


def _last_words(error: subprocess.SubprocessError) -> str:
    said = getattr(error, "stderr", None)
    text = said.decode() if isinstance(said, bytes) else said or str(error)
    return text.strip().splitlines()[-1] if text.strip() else str(error)
