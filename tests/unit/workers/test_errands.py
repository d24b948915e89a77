"""Programs for the command line: one that cannot ask the database says so in one line, and by its exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.errors import Collided, Unavailable
from workers.bootstrap import Runtime
from workers.errands import NO_DATABASE, run_errand


@pytest.mark.parametrize("program", ["gc", "idle_jobs", "reaching"])
def test_a_database_that_is_away_ends_it_with_a_code_of_its_own(program: str, tmp_path: Path) -> None:
    own = {"HOSTLER_STATE_DIR": str(tmp_path), "HOSTLER_DATABASE_URL": "postgresql://u:p@127.0.0.1:1/none"}
    # `-P`: nothing is loaded from the folder in which somebody stands
    argv = [sys.executable, "-P", "-m", f"workers.{program}"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HOSTLER_")}
    done = subprocess.run(argv, env=environ | own, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (NO_DATABASE, "")
    assert [line.split(".")[0] for line in done.stderr.splitlines()] == ["The database does not answer"]


@pytest.mark.parametrize("error", [Unavailable(), Collided()])
@pytest.mark.parametrize("early", [True, False], ids=["opening", "asking"])
def test_it_is_told_the_same_way_wherever_the_database_falls_silent(
    error: Exception, early: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOSTLER_STATE_DIR", str(tmp_path))

    def silent(*_: object) -> None:
        raise error

    if early:
        monkeypatch.setattr(Runtime, "__init__", silent)
    assert run_errand("test", silent) == NO_DATABASE
    assert capsys.readouterr().err == f"{error}\n"
