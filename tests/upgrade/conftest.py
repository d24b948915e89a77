"""The version before this one, as code that runs: the commit named in ``baseline``, unpacked from the history."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.crew import ROOT

log = logging.getLogger(__name__)

BASELINE = (Path(__file__).parent / "baseline").read_text().strip()


@pytest.fixture(scope="package")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of its code. It runs with this version's libraries, so a lock that moved on is said and proves less."""
    packed = subprocess.run(["git", "-C", ROOT, "archive", BASELINE], capture_output=True, check=False)
    if packed.returncode:
        pytest.skip(f"the history does not hold {BASELINE[:12]}: {packed.stderr.decode().strip()[-200:]}")
    root = tmp_path_factory.mktemp("baseline")
    # not by tarfile: Debian's Python 3.11 does not know its filters yet
    subprocess.run(["tar", "-x", "-C", root], input=packed.stdout, check=True)
    if (root / "requirements.lock").read_bytes() != (ROOT / "requirements.lock").read_bytes():
        log.warning("%s had other libraries than requirements.lock names now; it runs with the new ones", BASELINE[:12])
    loaded = run_in(root, "import app, hostler, migrations, workers; print(app.__file__, workers.__file__)")
    assert all(path.startswith(f"{root}/") for path in loaded.split()), loaded
    return root


def run_in(root: Path, program: str, *arguments: str) -> str:
    """What a short program prints that runs the code below ``root``."""
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(root), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], env=environ, cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
