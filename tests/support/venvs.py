"""A virtual environment for programs of others that are too heavy for requirements.lock: made once, and kept."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

INSTALL_S = 400
_DONE = "complete"


class NotInstalled(Exception):
    """What cannot be had here; the message says why. It is told, and nothing takes its place."""


def venv_of(requirements: Path, cache: Path, *options: str) -> Path:
    """The environment in ``cache`` with what the file pins, by the hash of that and the folder that the file lies in.

    ``options`` are pip's. Raises NotInstalled.
    """
    mark = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = cache / f"{requirements.parent.name}-{mark}"
    cache.mkdir(parents=True, exist_ok=True)
    # two runs at once make one
    with open(cache / f"{folder.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / _DONE).exists():
            _make(folder, requirements, options)
    return folder


def _make(folder: Path, requirements: Path, options: tuple[str, ...]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([*pip, "--no-deps", *options, "-r", str(requirements)])
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
