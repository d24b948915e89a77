"""The supervisor of a shared job, in a process of its own: it waits for every child that it finds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_A_MEMBER_THAT_HAS_ENDED = """
import os, pathlib, subprocess, time
from workers.backends.slurm_share import Member, Share
share = Share({"seats": 1, "gpus": 0, "stay_s": 1}, b"", "7", 0)
member = Member("x-1", "f00d", "member")
pathlib.Path("member").mkdir()
member.process = subprocess.Popen(["true"])
os.waitid(os.P_PID, member.process.pid, os.WEXITED | os.WNOWAIT)
share.members[0] = member
for record in ("stop.json", "kill.json"):
    pathlib.Path("member", record).write_text("{}")
"""


@pytest.mark.parametrize("told", ["share.hurry()", "share.heed_kills(0.0); share.heed_kills(60.0)", "share.end_all()"])
def test_the_end_of_one_that_is_just_signalled_is_seen(tmp_path: Path, told: str) -> None:
    code = f"{_A_MEMBER_THAT_HAS_ENDED}\n{told}\nshare.reap(1.0)\nassert (member.process, member.code) == (None, 0)"
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
