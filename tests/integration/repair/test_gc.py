"""Leaks of every kind are shown, removed when asked, and nothing that is at work is among them."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.support.crew import Crew
from workers import gc
from workers.backends.attempt_folder import STALE_S
from workers.bootstrap import Runtime


@pytest.fixture
def runtime(crew: Crew) -> Iterator[Runtime]:
    runtime = Runtime(crew.settings, "gc")
    yield runtime
    runtime.ctx.close()


@pytest.fixture
def unswept(crew: Crew) -> Iterator[Crew]:
    """The agent and the sweeps clear away much of it by themselves."""
    crew.kill("beat")
    crew.kill("agent")
    yield crew
    crew.start("beat")
    crew.start("agent")
    crew.await_heartbeat("agent")


def test_every_kind_of_leak_is_shown_and_removed(unswept: Crew, runtime: Runtime) -> None:
    crew = unswept
    serving = crew.create()
    crew.await_state(serving, "waiting_for_ready", "ready")
    ended = crew.create(pool="mock")
    crew.await_ready(ended)
    attempts = crew.settings.state_dir / "attempts"
    namespace = crew.ctx.namespace
    # a process of an attempt that was released, and one that no record knows, with its folder
    crew.change("UPDATE attempts SET released_at = hostler_now() WHERE replica_id = :id", id=ended)
    unknown = f"hostler-{namespace}-0123456789ab-1"
    (attempts / unknown).mkdir(mode=0o700)
    folder_alone = f"hostler-{namespace}-ba9876543210-7"
    (attempts / folder_alone).mkdir(mode=0o700)
    half_made = attempts / ".new-hostler-x-1-1-abc"
    half_made.mkdir()
    os.utime(half_made, times=(0, time.time() - STALE_S - 1))
    data = crew.settings.state_dir / "data"
    for keeper in (serving, "0123456789ab"):
        (data / keeper / "collections").mkdir(parents=True)
        (data / keeper / "collections" / "x").write_bytes(b"x" * 5000)
    foreign = attempts / "hostler-other-0123456789ab-1"
    foreign.mkdir(mode=0o700)
    stray = subprocess.Popen(["sleep", "600"], env={"HOSTLER_MARK": unknown, "PATH": os.environ["PATH"]})
    others = subprocess.Popen(["sleep", "600"], env={"HOSTLER_MARK": foreign.name, "PATH": os.environ["PATH"]})
    crew.change(
        "INSERT INTO idempotency (owner, method, path, key, body_hash, created_at)"
        " VALUES ('x', 'POST', '/', 'old', 'h', hostler_now() - interval '3 days'), ('x', 'POST', '/', 'new', 'h',"
        " hostler_now())"
    )
    crew.change(
        "INSERT INTO workers (id, node, role, pid, heartbeat_at)"
        " VALUES ('gone/worker/1/1.0', 'gone', 'worker', 1, hostler_now() - interval '1 hour')"
    )
    try:
        crew.await_that(lambda: stray.pid in crew.engines("0123456789ab"), "the stray to carry its mark")
        found = {(leak.kind, leak.name) for leak in gc.find(runtime)}
        slot = next(name for kind, name in found if kind == "lease")
        assert slot.startswith("slot/mock/")
        expected = {
            ("engine", unknown), ("attempt_folder", folder_alone), ("half_made", half_made.name), ("lease", slot),
            ("rows", "idempotency"), ("rows", "workers"), ("engine", crew.name(ended)), ("store_data", "0123456789ab"),
        }  # fmt: skip
        assert found == expected
        assert gc.find(runtime) == gc.find(runtime), "looking changes nothing"
        assert stray.poll() is None
        removed = gc.remove(runtime, sorted(found - {("engine", crew.name(ended))}))
        assert {(leak.kind, leak.name) for leak in removed} == expected - {("engine", crew.name(ended))}
        assert all(leak.removed for leak in removed)
        assert stray.wait(10) < 0
        assert not (attempts / unknown).exists()
        assert not (attempts / folder_alone).exists()
        assert not half_made.exists()
        assert [folder.name for folder in data.iterdir()] == [serving], "its replica is known"
        assert [row.key for row in crew.rows("SELECT key FROM idempotency WHERE owner = 'x'")] == ["new"]
        assert crew.leases(ended) == {}
        assert {(leak.kind, leak.name) for leak in gc.find(runtime)} == {("engine", crew.name(ended))}
        assert foreign.exists(), "another stack's"
        assert others.poll() is None
        assert len(crew.engines(serving)) == 1
    finally:
        for process in (stray, others):
            process.kill()
            process.wait()
        shutil.rmtree(foreign)
        shutil.rmtree(data)
        crew.change("DELETE FROM idempotency WHERE owner = 'x'")
    gc.remove(runtime, [("engine", crew.name(ended))])
    crew.end(serving, ended)


def test_what_came_to_be_wanted_since_it_was_shown_is_left_alone(crew: Crew, runtime: Runtime) -> None:
    replica = crew.create()
    crew.await_ready(replica)
    [engine] = crew.engines(replica)
    assert gc.remove(runtime, [("engine", crew.name(replica)), ("attempt_folder", crew.name(replica))]) == []
    assert crew.engines(replica) == [engine]
    assert crew.attempt_folder(replica).exists()
    crew.end(replica)


def test_what_a_store_has_open_is_left_alone(crew: Crew, runtime: Runtime) -> None:
    data = crew.settings.state_dir / "data"
    (data / "fedcba987654").mkdir(parents=True)
    try:
        with open(data / "fedcba987654" / ".lock", "w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            [left] = gc.remove(runtime, [("store_data", "fedcba987654")])
            assert (left.removed, left.error) == (False, "a process has it open")
            assert (data / "fedcba987654").exists()
        [gone] = gc.remove(runtime, [("store_data", "fedcba987654")])
        assert gone.removed
        assert not (data / "fedcba987654").exists()
    finally:
        shutil.rmtree(data)
