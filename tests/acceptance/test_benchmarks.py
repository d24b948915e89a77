"""The benchmarks run as their users run them, and leave nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from benchmarks.__main__ import NAMES

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(240)
def test_a_benchmark_prints_its_result_last_and_leaves_nothing() -> None:
    with tempfile.TemporaryDirectory(prefix="hbt.") as folder:
        Path(folder).chmod(0o711)
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks", "death", "--json", "--rounds", "1"],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": folder},
            capture_output=True,
            text=True,
            timeout=220,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        body = json.loads(done.stdout.splitlines()[-1])
        assert body["name"] == "death"
        assert body["ok"] is True
        assert {"ours", "floor", "ratio", "goal", "unit", "rounds"} <= set(body)
        assert os.listdir(folder) == []
        assert "left after down" not in done.stderr
        assert not [line for line in _command_lines() if folder in line]


def test_every_benchmark_of_the_list_can_be_loaded() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--help"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert all(name in done.stdout for name in NAMES)


def _command_lines() -> list[str]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        found.append(" ".join(process.info["cmdline"] or []))
    return found
