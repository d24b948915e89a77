"""The shim may be killed at any line, too: what it started lives on, is told of, and never becomes two."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.conformance.world import WAIT_S, World
from tests.support.embedded import wait_until
from workers.backends import shim, shims
from workers.backends.base import BackendError, Handle, Liveness
from workers.backends.proc import stat

STAND_IN = Path(__file__).with_name("killed_shim.py")
#: More lines than ``start`` has before it waits; at the last ones it is not killed at all.
LINES = 130


@pytest.mark.timeout(300)
def test_a_shim_killed_at_any_line_loses_and_doubles_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    script = str(Path(shim.__file__))
    outcomes: list[str] = []
    for line in range(1, LINES):
        with monkeypatch.context() as patch:
            patch.setattr(shims, "_interpreter", lambda _: [sys.executable, "-I", "-S", str(STAND_IN), script])
            patch.setattr(shims, "_shim_environ", lambda line=line: {"KILL_AT": str(line)})
            plan = world.plan("idle")
            try:
                world.backend.launch(plan)
                refused = False
            except BackendError:
                refused = True
        begun = world.starts()
        handle = world.backend.adopt(plan.name)
        if handle is None:
            assert refused, line
            world.backend.launch(plan)
            world.wait_for_line(Handle(world.backend.name, plan.name), "started")
            assert world.starts() == begun + 1, f"line {line}: it ran although nobody could tell"
            outcomes.append("relaunched")
        else:
            with pytest.raises(BackendError):
                world.backend.launch(plan)
            seen = world.wait_for(handle, Liveness.RUNNING, Liveness.EXITED)
            outcomes.append(seen.liveness)
        world.end(Handle(world.backend.name, plan.name))
    # each fate was met: before the launch, between it and the program, after
    launched = outcomes.index(Liveness.EXITED)
    assert outcomes[:launched] == ["relaunched"] * launched
    assert set(outcomes[launched:]) == {Liveness.EXITED, Liveness.RUNNING}


def test_a_worker_goes_on_with_its_own_shim_when_another_is_laid_in_its_place(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = tmp_path / "newer.py"
    newer.write_text("raise SystemExit('a shim of another version')")
    monkeypatch.setattr(shim, "__file__", str(newer))
    shims._shim_bytecode.cache_clear()
    world.wait_for_line(world.launch("idle"), "started")


def test_a_shim_that_waits_ahead_carries_out_the_next_launch(world: World) -> None:
    world.backend.prepare()
    world.backend.prepare()
    (waiting,) = _await_child()
    handle = world.launch("idle")
    world.wait_for_line(handle, "started")
    assert not _children_of_ours(), "one is enough, and none is left"
    assert not waiting.is_running()
    assert world.starts() == 1


def test_a_shim_killed_while_it_waits_costs_nothing(world: World) -> None:
    world.backend.prepare()
    (waiting,) = _await_child()
    waiting.kill()
    wait_until(lambda: waiting.status() == psutil.STATUS_ZOMBIE, WAIT_S, "its end")
    world.wait_for_line(world.launch("idle"), "started")
    assert world.starts() == 1
    assert not _children_of_ours()


def test_a_shim_that_waits_ends_with_its_launcher(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys; from workers.backends.shims import Shims; s = Shims(pathlib.Path(sys.argv[1]));"
        "s.prepare(); print(s._waiting[0]._process.pid, flush=True); os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    wait_until(lambda: find_pid(int(done.stdout)) is None, WAIT_S, "the end of a shim that nobody needs")


def test_an_engine_outlives_its_shim_and_keeps_its_log(world: World) -> None:
    handle = world.launch("drip")
    world.wait_for_line(handle, _drip(3))
    first = _shim_pid(world, handle)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: find_pid(first) is None, WAIT_S, "the shim's end")
    assert world.see(handle).liveness is Liveness.RUNNING  # and this look gives it another shim
    second = wait_until(lambda: _other_shim(world, handle, first), WAIT_S, "a second shim")
    # far more than fits into the pipe, so somebody reads; and what was written between the two shims is there
    world.wait_for_line(handle, _drip(150))
    numbers = [int(line.split()[1]) for line in world.backend.logs(handle) if line.startswith("drip")]
    assert numbers == list(range(len(numbers)))
    world.see(handle)
    assert _shim_pid(world, handle) == second, "one is enough"
    os.kill(handle.ref["pid"], signal.SIGTERM)
    seen = world.wait_for(handle, Liveness.EXITED)
    assert (seen.exit_code, seen.signal) == (None, None)
    assert "unknown" in seen.message
    wait_until(lambda: find_pid(second) is None, WAIT_S, "the second shim's end")


def test_a_second_shim_ends_with_an_engine_that_closed_its_output(world: World) -> None:
    handle = world.launch("mute")
    world.wait_for_line(handle, "ready")
    wait_until(lambda: not _writers(handle), WAIT_S, "the engine closing its output")
    first = _shim_pid(world, handle)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: find_pid(first) is None, WAIT_S, "the shim's end")
    world.see(handle)
    second = wait_until(lambda: _other_shim(world, handle, first), WAIT_S, "a second shim")
    world.end(handle)
    wait_until(lambda: find_pid(second) is None, WAIT_S, "the second shim's end")


def test_without_shim_it_is_stopped_and_killed_all_the_same(world: World) -> None:
    handle = world.launch("stubborn")
    world.wait_for_line(handle, "ready")
    shim_pid = _shim_pid(world, handle)
    os.kill(shim_pid, signal.SIGKILL)
    wait_until(lambda: find_pid(shim_pid) is None, WAIT_S, "the shim's end")
    assert world.backend.stop(handle, grace_s=3600).liveness is Liveness.RUNNING
    assert world.end(handle).liveness is Liveness.EXITED


def test_a_frozen_shim_hides_no_death(world: World) -> None:
    handle = world.launch("idle")
    world.wait_for_line(handle, "started")
    shim_pid = _shim_pid(world, handle)
    os.kill(shim_pid, signal.SIGSTOP)
    os.kill(handle.ref["pid"], signal.SIGKILL)
    seen = world.wait_for(handle, Liveness.EXITED)
    assert seen.signal == signal.SIGKILL
    os.kill(shim_pid, signal.SIGCONT)
    wait_until(lambda: find_pid(shim_pid) is None, WAIT_S, "the shim's end")
    assert world.see(handle).signal == signal.SIGKILL


def test_the_launcher_has_no_child_and_no_zombie(world: World) -> None:
    # a test run has children of its own: its Postgres and Redis
    before = {child.pid for child in psutil.Process().children()}
    handle = world.launch("idle")
    assert {child.pid for child in psutil.Process().children()} <= before
    seen = stat(_shim_pid(world, handle))
    assert seen is not None
    assert seen.session != os.getsid(0)
    assert _parent(seen.pid) != os.getpid()


def test_the_shim_holds_nothing_of_the_launcher_and_says_nothing(world: World) -> None:
    handle = world.launch("idle", env={"ENGINE_KEY": "s3cr3t"})
    pid = _shim_pid(world, handle)
    folder = str(world.folder / "state" / "attempts" / handle.name)
    targets = {os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")}
    assert targets <= {"/dev/null", "anon_inode:[pidfd]", f"{folder}/shim.lock", f"{folder}/out", f"{folder}/log"}
    assert b"s3cr3t" not in Path(f"/proc/{pid}/environ").read_bytes()
    assert b"HOSTLER_MARK" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_a_shim_costs_a_few_megabytes(world: World) -> None:
    pid = _shim_pid(world, world.launch("idle"))
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    own_kib = sum(int(found) for found in re.findall(r"Private_\w+:\s+(\d+) kB", rollup))
    assert own_kib < 6 * 1024


def test_no_signal_that_ends_a_worker_ends_a_shim(world: World) -> None:
    handle = world.launch("polite")
    world.wait_for_line(handle, "ready")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(_shim_pid(world, handle), number)
    os.kill(handle.ref["pid"], signal.SIGTERM)
    assert world.wait_for(handle, Liveness.EXITED).exit_code == 7


def _children_of_ours() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "start" in child.cmdline()]


def _await_child() -> list[psutil.Process]:
    """A process has no command line for a moment while it becomes its program."""
    found: list[psutil.Process] = wait_until(_children_of_ours, WAIT_S, "the shim that waits")
    return found


def find_pid(pid: int) -> object | None:
    seen = stat(pid)
    return None if seen is None or seen.ended else seen


def _writers(handle: Handle) -> list[str]:
    folder = f"/proc/{handle.ref['pid']}/fd"
    return [number for number in os.listdir(folder) if os.readlink(f"{folder}/{number}").endswith("/out")]


def _drip(number: int) -> str:
    return f"drip {number} {'x' * 1000}"


def _shim_pid(world: World, handle: Handle) -> int:
    record = world.backend._folder(handle.name).read("shim.json")  # type: ignore[attr-defined]
    return record["pid"]


def _other_shim(world: World, handle: Handle, first: int) -> int | None:
    pid = _shim_pid(world, handle)
    return pid if pid != first and find_pid(pid) else None


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
