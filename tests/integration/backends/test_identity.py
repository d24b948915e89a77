"""A pid is not a process: reused, of another boot, of another user."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conformance.world import SPECIMEN, World
from tests.support.embedded import wait_until
from workers.backends.base import BackendError, Handle, Liveness
from workers.backends.proc import MARK, Identity, Table, boot_id, stat

NOBODY = 65534


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is none of ours, leading a session of its own."""
    process = subprocess.Popen([sys.executable, "-I", "-S", str(SPECIMEN), "idle"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("by_ref", [True, False])
def test_a_reused_pid_is_neither_believed_nor_killed(
    world: World, stranger: subprocess.Popen[bytes], by_ref: bool
) -> None:
    handle = world.launch("idle")
    world.end(handle)
    # the same pid, but it began at another time
    engine = world.folder / "state" / "attempts" / handle.name / "engine.json"
    record = json.loads(engine.read_text())
    record["pid"] = stranger.pid
    # start times are told in hundredths of a second, and these two were started one after the other
    record["start"] -= 100
    engine.write_text(json.dumps(record))
    reused = replace(handle, ref=dict(handle.ref) | record) if by_ref else Handle(handle.backend, handle.name)
    assert world.see(reused).liveness is Liveness.EXITED
    assert world.backend.watch_fd(reused) is None
    world.backend.stop(reused, grace_s=0)
    world.backend.stop(reused, grace_s=0, force=True)
    assert stranger.poll() is None


def test_a_strangers_session_under_a_reused_pid_is_not_lingering(
    world: World, stranger: subprocess.Popen[bytes]
) -> None:
    handle = world.launch("leave-daemon")
    world.wait_for(handle, Liveness.LINGERING)
    reused = replace(handle, ref=dict(handle.ref) | {"pid": stranger.pid, "start": handle.ref["start"] - 100})
    assert world.end(reused).liveness is Liveness.EXITED
    assert stranger.poll() is None


def test_another_attempts_engine_is_never_a_member_whatever_its_session_is_called() -> None:
    """Numbers come round: a session of the same number, whose leader ended, holds an engine that serves."""
    script = "import os, time\nif os.fork() == 0: time.sleep(600)\nos._exit(0)"
    environ = {"PATH": os.environ["PATH"], MARK: "hostler-x-serving-1"}
    leader = subprocess.Popen([sys.executable, "-c", script], env=environ, start_new_session=True)
    leader.wait()
    # as if our engine had had that pid, and ended long ago
    ours = Identity(leader.pid, 1, boot_id())
    try:
        wait_until(lambda: Table().members("hostler-x-serving-1", None), 10, "the engine that serves")
        [serving] = Table().members("hostler-x-serving-1", None)
        assert serving.session == leader.pid
        assert Table().members("hostler-x-ours-1", ours) == []
    finally:
        os.killpg(leader.pid, signal.SIGKILL)


def test_what_ran_before_the_host_restarted_is_gone(world: World) -> None:
    handle = world.launch("idle")
    pid = handle.ref["pid"]
    other = replace(handle, ref=dict(handle.ref) | {"boot_id": "another boot"})
    folder = world.folder / "state" / "attempts" / handle.name
    # its lock died with its host, so nothing of this host may hold it for the test
    os.rename(folder / "lock", folder / "lock.kept")
    seen = world.see(other)
    assert seen.liveness is Liveness.EXITED
    assert "restarted" in seen.message
    world.backend.stop(other, grace_s=0, force=True)
    assert stat(pid) is not None
    os.rename(folder / "lock.kept", folder / "lock")


def test_a_record_cut_short_by_a_power_cut_is_no_record(world: World) -> None:
    handle = world.launch("idle")
    world.end(handle)
    folder = world.folder / "state" / "attempts" / handle.name
    for record in folder.glob("*.json"):
        record.write_text("")
    seen = world.see(Handle(handle.backend, handle.name))
    assert seen.liveness is Liveness.EXITED
    with pytest.raises(BackendError):
        world.backend.launch(world.plan("idle", name=handle.name))


def test_a_lost_folder_hides_no_process(world: World) -> None:
    """Somebody removed the state dir's content; the mark is still on what runs."""
    handle = world.launch("leave-daemon")
    world.wait_for(handle, Liveness.LINGERING)
    folder = world.folder / "state" / "attempts" / handle.name
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    bare = Handle(handle.backend, handle.name)
    assert handle.name in world.backend.list_marked(world.prefix)
    assert world.see(bare).liveness is Liveness.LINGERING
    assert world.end(bare).liveness.gone
    assert world.backend.list_marked(world.prefix) == []


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_no_permission_to_signal_is_an_error_and_no_death(world: World) -> None:
    handle = world.launch("idle")
    world.wait_for_line(handle, "started")
    _give_away(world.folder)
    for force in (False, True):
        said = _as_nobody(lambda force=force: world.backend.stop(handle, grace_s=0, force=force))
        assert "no permission to signal process" in said
    said = _as_nobody(lambda: world.see(handle))
    assert "RUNNING" in said
    assert world.see(handle).liveness is Liveness.RUNNING


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_folder_of_somebody_else_is_unknown_not_gone(world: World) -> None:
    handle = world.launch("idle")
    bare = Handle(handle.backend, handle.name)
    assert "UNKNOWN" in _as_nobody(lambda: world.see(bare))
    said = _as_nobody(lambda: world.backend.stop(bare, grace_s=1))
    assert said.startswith("BackendError")


def _give_away(folder: Path) -> None:
    for parent in folder.parents:
        if parent.name.startswith("pytest"):
            parent.chmod(0o755)  # pytest's own folders are closed to others
    for path in (folder, *folder.rglob("*")):
        os.chown(path, NOBODY, NOBODY)


def _as_nobody(act) -> str:  # type: ignore[no-untyped-def]
    """What ``act`` returned or raised, done by another user in a fork of this process."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            said = repr(act())
        except BackendError as error:
            said = f"{type(error).__name__}: {error}"
        finally:
            os.write(write, said.encode())
            os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    with os.fdopen(read) as file:
        return file.read()


def test_signal_names_are_spoken(world: World) -> None:
    handle = world.launch("idle")
    world.wait_for_line(handle, "started")
    os.kill(handle.ref["pid"], signal.SIGSEGV)
    seen = world.wait_for(handle, Liveness.EXITED)
    assert (seen.signal, seen.message) == (signal.SIGSEGV, "killed by SIGSEGV")
