"""`hostler gc` as a user types it: beside a stack that works, beside another one, and with nothing up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.support.embedded import wait_until
from tests.support.stacks import Stack, stack, wait_gone

pytestmark = pytest.mark.timeout(180)


def _leaks(made: Stack, *options: str) -> dict[str, dict[str, object]]:
    return {one["name"]: one for one in json.loads(made.must("gc", "-o", "json", *options))}


def _answer(made: Stack, word: str) -> subprocess.CompletedProcess[str]:
    """`hostler gc` typed at a terminal, where somebody answers its question."""
    terminal, side = os.openpty()
    os.write(terminal, f"{word}\n".encode())
    try:
        return subprocess.run(
            made.argv("gc"), env=made.environ, stdin=side, capture_output=True, text=True, timeout=60, check=False
        )
    finally:
        os.close(terminal)
        os.close(side)


def test_gc_beside_everything_at_work_and_after_it_was_killed(tmp_path: Path) -> None:
    with stack(tmp_path / "ours") as ours, stack(tmp_path / "theirs") as theirs:
        ours.up()
        theirs.up()
        mine, other = ours.replica(), theirs.replica()
        namespace = next((ours.layout.attempts).glob("hostler-*")).name.split("-")[1]
        assert _leaks(ours, "--dry-run") == {}
        name = f"hostler-{namespace}-0123456789ab-1"
        stray = subprocess.Popen(["sleep", "600"], env={"HOSTLER_MARK": name, "PATH": os.environ["PATH"]})
        try:
            wait_until(lambda: name in _leaks(ours, "--dry-run"), 20, "the stray to be shown")
            assert stray.poll() is None
            shown = ours.must("gc", "--dry-run")
            assert name in shown
            refused = _answer(ours, "n")
            assert refused.returncode == 1
            assert name in refused.stdout
            assert "remove these 1?" in refused.stderr
            assert stray.poll() is None, "a person said no"
            done = _leaks(ours, "--yes")
            assert done[name]["removed"] is True
            assert stray.wait(10) == -signal.SIGKILL
        finally:
            stray.kill()
            stray.wait()
        assert _leaks(ours, "--dry-run") == {}
        for made, replica in ((ours, mine), (theirs, other)):
            assert made.state_of(replica) == "ready"
            # what was shown before is looked for again twice a minute
            wait_until(lambda made=made: made.call("GET", "/health")["problems"] == [], 60, "health to be as it was")
        # all of ours at once, as a power cut would
        engine = ours.pid("engine")
        cut = [process for process in ours.living() if process.pid != engine]
        # frozen first: the death of its parent has a part end in order
        for act in (psutil.Process.suspend, psutil.Process.kill):
            for process in cut:
                with suppress(psutil.NoSuchProcess):
                    act(process)
        for process in ours.living():
            if process.pid != engine:
                wait_gone(process.pid)
        done = ours.hostler("gc", "-o", "json")
        assert done.returncode == 0, done.stderr
        assert "not looked at" in done.stderr
        assert "hostler up" in done.stderr
        removed = json.loads(done.stdout)
        assert {one["kind"] for one in removed} <= {"socket", "pid_file"}
        names = {os.path.basename(one["name"]) for one in removed}
        assert names >= {"redis.sock", "web.sock", "flower.sock", "haproxy.sock", "haproxy-master.sock", "door.sock"}
        assert not [path for path in ours.layout.run.glob("*") if path.is_socket()]
        assert engine in [process.pid for process in ours.living()], "it may well be wanted"
        assert theirs.state_of(other) == "ready"
        ours.up()
        wait_until(lambda: ours.state_of(mine) == "ready", 30, "the engine to be adopted")
        assert ours.pid("engine") == engine
        ours.must("down")
        assert _leaks(ours, "--dry-run") == {}
        theirs.must("down")
