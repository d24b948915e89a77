"""What a job of Slurm runs on its node, part by part."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from workers.backends.slurm_job import Log


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
