"""`hostler down` asks for the end of idle jobs, and ends everything else whether that can be asked or not."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.settings import Settings
from app.stack import down
from app.stack.api import Api


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), subprocess.TimeoutExpired("x", 1)])
def test_what_cannot_be_asked_fails_nothing(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(subprocess, "run", run)
    said: list[str] = []
    api = cast("Api", SimpleNamespace(has_pool_of=lambda _: True))
    down._end_idle_jobs(Settings.load({}, state_dir=tmp_path), api, said.append)
    assert len(said) == 1
    assert "end after their job_stay_s" in said[0]


def test_a_database_that_is_away_is_told_of_in_one_line(tmp_path: Path) -> None:
    said: list[str] = []
    away = Settings.load({}, state_dir=tmp_path, database_url="postgresql://u:p@127.0.0.1:1/none")
    down._end_idle_jobs(away, cast("Api", SimpleNamespace(has_pool_of=lambda _: True)), said.append)
    assert len(said) == 1
    assert "end after their job_stay_s: The database does not answer" in said[0]
