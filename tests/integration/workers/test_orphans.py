"""What is on the host and not in the database, and the other way round."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from app.usecases import replicas
from tests.support.crew import Crew
from workers.bootstrap import Runtime
from workers.orphans import clear_orphans


@pytest.fixture
def runtime(crew: Crew) -> Iterator[Runtime]:
    runtime = Runtime(crew.settings, "test")
    yield runtime
    runtime.ctx.close()


def test_folders_go_with_their_record_and_not_before(crew: Crew, runtime: Runtime) -> None:
    kept, deleted = crew.create(), crew.create()
    for replica in (kept, deleted):
        crew.await_ready(replica)
    crew.end(kept, deleted)
    replicas.delete(crew.ctx, crew.actor, deleted)
    clear_orphans(runtime)
    assert not crew.attempt_folder(deleted).exists()
    assert (crew.attempt_folder(kept) / "log").exists()


def test_what_runs_and_is_wanted_is_left_alone(crew: Crew, runtime: Runtime) -> None:
    replica = crew.create()
    crew.await_ready(replica)
    before = crew.engines(replica)
    clear_orphans(runtime)
    assert crew.engines(replica) == before
    assert crew.replica(replica).state == "ready"
    crew.end(replica)


def test_what_outlived_its_attempt_is_killed_and_told(crew: Crew, runtime: Runtime) -> None:
    """The record says seen gone, and yet it runs: a descendant that hid, or a defect of ours."""
    replica = crew.create()
    crew.await_ready(replica)
    [engine] = crew.engines(replica)
    crew.end(replica)
    assert not os.path.exists(f"/proc/{engine}")
    name = crew.name(replica)
    late = subprocess.Popen(["sleep", "600"], env={"HOSTLER_MARK": name, "PATH": os.environ["PATH"]})
    try:
        crew.await_that(lambda: late.pid in crew.engines(replica), "the late one to carry its mark")
        clear_orphans(runtime)
        assert late.wait(10) == -signal.SIGKILL
    finally:
        late.kill()
        late.wait()
    # the agent looks too and may have been faster
    assert crew.rows("SELECT 1 FROM events WHERE kind = 'orphan' AND message LIKE :name", name=f"%{name}%")


def test_what_no_record_knows_is_left_to_a_person(crew: Crew, runtime: Runtime) -> None:
    """A database that was put back from a copy has forgotten it; it may well be in use."""
    name = f"hostler-{crew.ctx.namespace}-0123456789ab-1"
    unknown = subprocess.Popen(["sleep", "600"], env={"HOSTLER_MARK": name, "PATH": os.environ["PATH"]})
    try:
        crew.await_that(lambda: unknown.pid in crew.engines("0123456789ab"), "the unknown one to carry its mark")
        clear_orphans(runtime)
        assert unknown.poll() is None
    finally:
        unknown.kill()
        unknown.wait()
