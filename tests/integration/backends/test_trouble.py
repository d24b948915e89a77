"""A host in trouble: a full disk, no memory, launchers that left things lying about."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.conformance.world import World
from workers.backends.attempt_folder import STALE_S
from workers.backends.base import BackendContext, BackendError, Handle, Liveness
from workers.backends.process import ProcessBackend

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount and make groups")
MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]).returncode:
        pytest.skip("this root may not mount")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.root
def test_a_full_disk_costs_output_only(small_disk: Path, tmp_path: Path) -> None:
    world = World(ProcessBackend(BackendContext(state_dir=small_disk)), tmp_path)
    handle = world.launch("chatter 3000000")
    seen = world.wait_for(handle, Liveness.EXITED)
    assert seen.exit_code == 0
    assert next(iter(world.backend.logs(handle))) == "started 3000000"
    with pytest.raises(BackendError, match="No space left on device"):
        world.launch("idle", files={"big": "x" * 100_000})
    world.backend.close(handle)
    assert not [path for path in (small_disk / "attempts").iterdir() if path.is_dir()]


@pytest.mark.root
def test_a_full_disk_does_not_keep_an_engine_alive(small_disk: Path, tmp_path: Path) -> None:
    world = World(ProcessBackend(BackendContext(state_dir=small_disk)), tmp_path)
    handle = world.launch("stubborn")
    world.wait_for_line(handle, "ready")
    (small_disk / "filler").write_bytes(b"x" * (os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize))
    with pytest.raises(BackendError, match="No space left on device"):
        world.backend.stop(handle, grace_s=60)
    assert world.end(handle).liveness is Liveness.EXITED
    world.clean()


@pytest.mark.root
def test_the_oom_killer_is_named(tmp_path: Path) -> None:
    group = MEMORY_GROUPS / f"hostler-test-{uuid4().hex[:8]}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text("60000000")
    except OSError:
        pytest.skip("there is no memory cgroup (v1) that this root may divide")
    world = World(ProcessBackend(BackendContext(state_dir=tmp_path / "state")), tmp_path)
    plan = world.plan("devour")
    try:
        pid = os.fork()
        if pid == 0:
            try:
                (group / "cgroup.procs").write_text(str(os.getpid()))
                world.backend.launch(plan)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        seen = world.wait_for(Handle("process", plan.name), Liveness.EXITED)
        assert (seen.signal, seen.out_of_memory) == (9, True)
        assert "out-of-memory" in seen.message
    finally:
        world.clean()
        _remove(group)


def test_what_killed_launchers_left_is_removed_when_it_is_old(world: World) -> None:
    attempts = world.folder / "state" / "attempts"
    handle = world.launch("idle")
    left = [attempts / ".new-hostler-x-1-1-abc", attempts / ".gone-abc"]
    for folder in left:
        folder.mkdir()
        (folder / "secret").write_text("x")
    sealed = f"{world.prefix}sealed-1"
    assert world.backend.stop(Handle("process", sealed), grace_s=1).liveness.gone
    left.append(attempts / sealed)
    world.backend.tidy()
    assert all(folder.exists() for folder in left), "they may be in use"
    for folder in left:
        os.utime(folder, times=(0, time.time() - STALE_S - 1))
    world.backend.tidy()
    assert not any(folder.exists() for folder in left)
    assert world.backend.list_marked(world.prefix) == [handle.name]


def _remove(group: Path) -> None:
    deadline = time.monotonic() + 5
    while True:
        try:
            group.rmdir()
        except OSError:  # its last shim is still on its way out
            assert time.monotonic() < deadline
            time.sleep(0.01)
        else:
            return
