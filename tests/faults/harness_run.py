"""The harness as its users start it, for tests: in a process of its own, in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.crew import ROOT

#: What is found depends on who comes first: a plant's seed may need more than one try.
TRIES = 4
#: To put its stack away.
END_S = 60


def run(*arguments: str, folder: str, timeout_s: float, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "tests.faults.harness", *arguments]
    own = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": folder} | environ
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=own, cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            # told to end it takes its stack with it; killed it could not
            process.terminate()
            out, err = process.communicate(timeout=END_S)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def must_find(plant: str, seed: int, folder: str) -> None:
    """That seed finds that plant."""
    done = run(",".join([str(seed)] * TRIES), "--plant", plant, "--first", folder=folder, timeout_s=320)
    verdict = done.stdout.splitlines()[-1] if done.stdout else done.stderr[-4000:]
    assert done.returncode == 1, done.stdout[-8000:]
    assert verdict.startswith("faults: FAILED: "), verdict
    assert f"failed: {seed}" in verdict
    assert f"planted: {plant}" in verdict
    assert "  found: " in done.stdout


@pytest.fixture
def folder() -> Iterator[str]:
    """Short, and open to whom the stack may run as; pytest's own is neither."""
    with tempfile.TemporaryDirectory(prefix="hf-") as made:
        Path(made).chmod(0o711)
        yield made
