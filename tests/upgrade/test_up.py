"""``hostler up`` of this version on a state dir that the version before left, with its engines running."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from app.db.migrate import standing
from app.settings import Settings
from app.stack.processes import control_plane
from app.stack.urls import database_url
from tests.support.crew import ROOT
from tests.support.embedded import wait_until
from tests.support.stacks import Stack, gone, stack, wait_gone

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def before(tmp_path: Path, baseline: Path) -> Iterator[Stack]:
    """A stack of the version before, up."""
    with stack(tmp_path / "state", PYTHONPATH=str(baseline)) as made:
        made.up()
        assert _code_of(made, "worker") == baseline
        yield made


@pytest.mark.parametrize("how", ["down --keep-replicas", "everything killed"])
def test_running_engines_are_adopted_and_the_schema_migrated(before: Stack, how: str) -> None:
    serving, dies = before.replica(), before.replica()
    engines = {row["replica_id"]: row["pid"] for row in before.processes("engine")}
    if how == "everything killed":
        for one in control_plane(before.layout):
            _kill(one.process.pid)
        wait_until(lambda: not control_plane(before.layout), 10, "the end of what was killed")
    else:
        before.must("down", "--keep-replicas")
    os.kill(engines[dies], signal.SIGKILL)
    wait_gone(engines[dies])
    before.environ["PYTHONPATH"] = str(ROOT)
    before.up()
    assert _code_of(before, "worker") == ROOT
    settings = Settings.load({}, state_dir=before.state_dir)
    assert standing(database_url(settings)).current == standing(database_url(settings)).newest
    wait_until(lambda: before.state_of(serving) == "ready", 20, "the adopted replica")
    wait_until(lambda: before.state_of(dies) == "failed", 20, "the report of the dead one")
    assert [row["pid"] for row in before.processes("engine")] == [engines[serving]]
    assert before.call("GET", "/ready")["status"] == "ready"
    before.must("doctor")
    later = before.replica()
    before.call("POST", f"/api/v1/replicas/{serving}/stop", {}, 202)
    wait_until(lambda: gone(engines[serving]), 20, "the end of the adopted one")
    wait_until(lambda: before.state_of(serving) == "stopped", 20, "its state")
    assert before.state_of(later) == "ready"
    before.must("down")


def _code_of(made: Stack, role: str) -> Path:
    environ = psutil.Process(made.pid(role)).environ()
    return Path(environ["PYTHONPATH"])


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        # it ended with its parent
        return
