"""What a job of Slurm runs on its node, part by part."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from workers.backends.slurm_job import Log, Run


def test_a_quota_of_files_loses_output_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    log = Log(20)
    log.write(b"a" * 10)

    def refused(*_: Any) -> int:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refused)
        log.write(b"b" * 5)
    log.write(b"c" * 5)
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == [b"a" * 10, b"c" * 5]
    os.close(log.file)


def test_what_an_engine_calls_alike_is_none_of_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log-of-today.txt").write_text("an engine's own")
    (tmp_path / f"log-{30:020d}").write_text("said")
    assert Log(20).at == 34


def test_a_full_disk_ends_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = Run.__new__(Run)
    run.known, run.restarts, run.engine, run.started_at, run.owns = {"job_id": "1", "restarts": 0}, 0, 9, 1.0, None

    def refused(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refused)
        run.tell(True)
        run.record_end({"exit_code": 0}, 0)
    assert run.owns is None, "it is told at the next look"
    run.tell(True)
    (tmp_path / "gone").mkdir()
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        with pytest.raises(FileNotFoundError):
            run.tell(False)
    assert json.loads((tmp_path / "run.json").read_text())["owns_port"] is True
