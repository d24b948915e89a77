"""The ssh backend where it is hurt: cut off, misled, refused, raced; with a real sshd and engines that are counted."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.domain.placeholders import HOST_LATER, PORT_LATER
from tests.conformance.stepping import lines_of, signalled_at
from tests.conformance.world import World
from tests.support.embedded import wait_until
from tests.support.freezing import freeze
from tests.support.sshd import Sshd, far_host, running_sshd, short_folder
from tests.unit.backends.test_bundle import old_python
from workers.backends.base import (
    AlreadyLaunched,
    BackendContext,
    BackendError,
    BackendUnavailable,
    Handle,
    LaunchRefused,
    Liveness,
)
from workers.backends.bundle import make_bundle
from workers.backends.ssh import SshBackend

__all__ = ["far_host"]
ROUNDS = 12
WAIT_S = 60


def backend(host: Sshd, tmp_path: Path, **options: Any) -> SshBackend:
    chosen = {"ssh": host.ssh, "folder": str(tmp_path / "far"), "python": sys.executable} | options
    return SshBackend(BackendContext(state_dir=tmp_path / "state", run_dir=host.run_dir, options=chosen))


@pytest.fixture
def own_host(tmp_path: Path) -> Iterator[Sshd]:
    with short_folder() as run_dir, running_sshd(tmp_path / "sshd", run_dir) as server:
        yield server


@pytest.fixture
def world(far_host: Sshd, tmp_path: Path) -> Iterator[World]:
    world = World(backend(far_host, tmp_path), tmp_path)
    yield world
    world.clean()


@pytest.fixture
def own_world(own_host: Sshd, tmp_path: Path) -> Iterator[World]:
    world = World(backend(own_host, tmp_path), tmp_path)
    yield world
    world.clean()


def test_a_launch_whose_connection_is_cut_and_that_is_repeated_makes_one_engine(
    own_world: World, own_host: Sshd
) -> None:
    world = own_world
    world.backend.prepare()
    chance = random.Random(7)
    for count in range(1, ROUNDS + 1):
        plan = world.plan("idle")
        cutter = threading.Timer(chance.uniform(0, 0.08), own_host.cut)
        cutter.start()
        with suppress(BackendUnavailable):
            world.backend.launch(plan)
        cutter.join()
        handle = wait_until(lambda plan=plan: _launched(world, plan), WAIT_S, "the launch being known")
        world.wait_started(handle)
        assert world.starts() == count
        world.end(handle)


def test_a_connection_that_is_cut_between_two_looks_is_not_noticed(own_world: World, own_host: Sshd) -> None:
    handle = own_world.launch("idle")
    own_world.wait_started(handle)
    for _ in range(3):
        own_host.cut()
        assert own_world.see(handle).liveness is Liveness.RUNNING
    own_host.cut()
    assert own_world.end(handle).liveness.gone


def test_our_code_there_frozen_costs_one_look(own_world: World) -> None:
    handle = own_world.launch("idle")
    own_world.wait_started(handle)
    frozen = [int(pid) for pid in _far_ends(own_world)]
    freeze(*frozen)
    try:
        assert own_world.backend.inspect([handle], timeout_s=1)[0].liveness is Liveness.UNKNOWN
        assert own_world.see(handle).liveness is Liveness.RUNNING
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGKILL)


def test_a_host_that_is_gone_is_unknown_and_never_dead(own_world: World, own_host: Sshd) -> None:
    world = own_world
    handle = world.launch("idle")
    world.wait_started(handle)
    own_host.stop()
    for _ in range(20):
        assert world.see(handle).liveness is Liveness.UNKNOWN
    for verb in (
        lambda: world.backend.adopt(handle.name),
        lambda: world.backend.stop(handle, grace_s=0, force=True),
        lambda: world.backend.launch(world.plan("idle")),
        lambda: world.backend.list_marked(world.prefix),
        lambda: world.backend.close(handle),
        lambda: list(world.backend.logs(handle)),
        lambda: world.backend.read_log(handle),
        lambda: world.backend.recall(handle.name),
    ):
        with pytest.raises(BackendUnavailable, match="far cannot be reached"):
            verb()
    assert not world.backend.fingerprint({}).healthy
    own_host.start()
    wait_until(lambda: world.see(handle).liveness is Liveness.RUNNING, WAIT_S, "the host being seen again")
    assert world.starts() == 1


@pytest.mark.timeout(300)
def test_a_worker_killed_at_any_line_of_sending_our_code_leaves_nothing_half(far_host: Sshd, tmp_path: Path) -> None:
    places = lines_of(backend(far_host, tmp_path / "0").prepare)[::10]
    for number, place in enumerate(places, start=1):
        folder = tmp_path / str(number)
        _, status = os.waitpid(signalled_at(place, backend(far_host, folder).prepare, signal.SIGKILL), 0)
        assert os.WIFSIGNALED(status) or os.WIFEXITED(status)
        backend(far_host, folder).prepare()
        whole = [path.name for path in (folder / "far").glob("code-*")]
        assert whole == [make_bundle().name]


def test_a_missing_python_is_refused_with_what_to_do(far_host: Sshd, tmp_path: Path) -> None:
    there = backend(far_host, tmp_path, python="no-such-python")
    with pytest.raises(LaunchRefused, match=r"there is no 'no-such-python' on far .*pool option python"):
        there.launch(World(there, tmp_path).plan("idle"))
    assert "pool option python" in there.fingerprint({}).detail
    assert there.inspect([Handle("ssh", "x-1")])[0].liveness is Liveness.UNKNOWN
    assert not (tmp_path / "far").exists()


def test_an_old_python_is_refused_with_what_to_do(far_host: Sshd, tmp_path: Path) -> None:
    there = backend(far_host, tmp_path, python=old_python(tmp_path, (3, 9, 2)))
    with pytest.raises(LaunchRefused, match=r"is 3\.9 and must be at least 3\.11: name another one in the pool option"):
        there.launch(World(there, tmp_path).plan("idle"))


def test_a_python_that_was_taken_away_is_refused_too(far_host: Sshd, tmp_path: Path) -> None:
    python = tmp_path / "python-there"
    python.symlink_to(sys.executable)
    backend(far_host, tmp_path, python=str(python)).prepare()
    python.unlink()
    with pytest.raises(LaunchRefused, match="pool option python"):
        backend(far_host, tmp_path, python=str(python)).prepare()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(far_host: Sshd, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    os.chown(tmp_path / "far", 65534, 65534)
    with pytest.raises(LaunchRefused, match="belongs to another user; set the pool option folder"):
        backend(far_host, tmp_path).prepare()
    (tmp_path / "far" / make_bundle().name).mkdir()
    with pytest.raises(LaunchRefused, match="belongs to another user"):
        backend(far_host, tmp_path).prepare()


def test_a_folder_that_others_could_write_to_becomes_private(far_host: Sshd, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far").chmod(0o777)
    backend(far_host, tmp_path).prepare()
    assert (tmp_path / "far").stat().st_mode & 0o777 == 0o700


def test_the_home_folder_is_where_it_lies_by_default(far_host: Sshd, tmp_path: Path) -> None:
    there = backend(far_host, tmp_path, folder="~/.hostler")
    there.prepare()
    assert list((far_host.folder / "home" / ".hostler").glob("code-*"))
    assert there.list_marked("nothing") == []


def test_an_engine_listens_where_it_runs_and_tells_its_address(world: World) -> None:
    handle = world.launch("listen", argv=_listening(world), options={"ports": [21000, 21999]})
    world.wait_for_line(handle, "listening")
    seen = world.see(handle)
    assert (seen.host, seen.owns_port) == ("127.0.0.1", True)
    assert 21000 <= (seen.port or 0) <= 21999
    adopted = world.backend.adopt(handle.name)
    assert adopted is not None
    assert world.see(Handle("ssh", adopted.name)).port == seen.port


def test_launches_at_one_instant_get_ports_of_their_own(world: World) -> None:
    """From a range with room for just so many."""
    plans = [world.plan("listen", argv=_listening(world), options={"ports": [22500, 22507]}) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        handles = list(pool.map(world.backend.launch, plans))
    assert {seen.port for seen in world.backend.inspect(handles)} == set(range(22500, 22508))
    with pytest.raises(BackendError, match="no port from 22500 to 22507 is free"):
        world.launch("listen", argv=_listening(world), options={"ports": [22500, 22507]})
    world.end(handles[0])
    again = world.launch("listen", argv=_listening(world), options={"ports": [22500, 22507]})
    assert world.see(again).port in range(22500, 22508)


def test_an_address_that_the_host_has_not_is_refused(world: World) -> None:
    with pytest.raises(BackendError, match=r"cannot listen on 203\.0\.113\.7 there.*set address"):
        world.launch("listen", argv=_listening(world), options={"address": "203.0.113.7"})
    assert world.starts() == 0


def test_paths_are_called_as_they_are_called_there(world: World, tmp_path: Path) -> None:
    plan = world.plan("show")
    known = {"path_map": {"/nowhere/models": str(tmp_path)}}
    handle = world.launch(
        "show", argv=(*plan.argv, "/nowhere/models/a.gguf", "/nowhere/modelsx"),
        env={"MODEL": "/nowhere/models/b"}, options=known,
    )  # fmt: skip
    world.wait_for_line(handle, f"started {tmp_path}/a.gguf /nowhere/modelsx")
    shown = wait_until(lambda: next(tmp_path.rglob("shown.json"), None), 10, "what it was given")
    assert f'"MODEL": "{tmp_path}/b"' in shown.read_text()


def test_a_launch_for_a_host_that_was_restarted_meanwhile_starts_nothing(world: World) -> None:
    there = world.backend
    assert isinstance(there, SshBackend)
    there.prepare()
    assert there._clock is not None
    there._clock = replace(there._clock, boot_id="of-an-earlier-life")
    plan = world.plan("idle")
    with pytest.raises(BackendUnavailable, match=r"restarted.*nothing was started"):
        there.launch(plan)
    assert there.adopt(plan.name) is None
    world.wait_started(there.launch(plan))
    assert world.starts() == 1


def test_without_a_host_it_says_which_option_to_set(tmp_path: Path) -> None:
    nowhere = SshBackend(BackendContext(state_dir=tmp_path))
    nowhere.prepare()
    assert nowhere.list_marked("x") == nowhere.tidy() == []
    assert "set the pool option ssh" in nowhere.fingerprint({}).detail
    with pytest.raises(BackendError, match="set the pool option ssh"):
        nowhere.launch(World(nowhere, tmp_path).plan("idle"))


def test_our_code_there_ends_when_nobody_asks_and_engines_go_on(world: World) -> None:
    handle = world.launch("idle")
    world.wait_started(handle)
    assert _far_ends(world)
    wait_until(lambda: not _far_ends(world), 30, "our code there ending")
    assert world.see(handle).liveness is Liveness.RUNNING


def test_what_broke_off_long_ago_and_what_no_version_asks_for_is_removed(world: World, tmp_path: Path) -> None:
    world.backend.prepare()
    far = tmp_path / "far"
    for name, days in ((".new-code-x", 1), ("code-0123456789abcdef", 31), ("code-fedcba9876543210", 29)):
        (far / name).mkdir()
        os.utime(far / name, (0, time.time() - days * 24 * 3600))
    wanted = [".new-code-x", "code-0123456789abcdef"]
    assert world.backend.tidy(dry_run=True) == wanted
    assert world.backend.tidy() == wanted
    assert sorted(path.name for path in far.glob("code-*")) == sorted([make_bundle().name, "code-fedcba9876543210"])


def _listening(world: World) -> tuple[str, ...]:
    return (*world.plan("idle").argv[:-1], "listen", PORT_LATER, HOST_LATER)


def _launched(world: World, plan: Any) -> Handle | None:
    """What a worker does again and again: adopt, else launch."""
    try:
        found = world.backend.adopt(plan.name)
        return found or world.backend.launch(plan)
    except (BackendUnavailable, AlreadyLaunched):
        return None


def _far_ends(world: World) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if any(word.startswith(f"{world.folder}/far/code-".encode()) for word in words):
                    found.append(entry.name)
    return found
