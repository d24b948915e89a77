"""Containers of a real Podman: images that must be pulled, limits, mounts, and a daemon that is away."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.domain.lifecycle import Reason
from tests.conformance.world import World
from tests.support.embedded import wait_until
from tests.support.freezing import freeze
from tests.support.images import Images, serving_images
from tests.support.podman import Podman, image_tar, podman
from workers.backends import docker_config, docker_options
from workers.backends.base import (
    AlreadyLaunched,
    BackendContext,
    BackendError,
    BackendUnavailable,
    Handle,
    Launch,
    LaunchRefused,
    Liveness,
)
from workers.backends.docker import DockerBackend
from workers.backends.docker_conmon import keepers
from workers.backends.docker_daemon import Daemon
from workers.backends.docker_state import is_ended
from workers.backends.proc import stat

__all__ = ["podman"]


@pytest.fixture
def world(podman: Podman, tmp_path: Path) -> Iterator[World]:
    options = podman.options(tmp_path / "shared")
    context = BackendContext(state_dir=tmp_path / "state", options={"socket": options["socket"]})
    world = World(DockerBackend(context), tmp_path, options)
    yield world
    world.clean()
    assert [name for name in podman.names() if name.startswith(world.prefix)] == []


@pytest.fixture
def images(podman: Podman) -> Iterator[Images]:
    with serving_images(image_tar(), podman.registry_port) as images:
        yield images


def test_a_launch_waits_for_its_image_and_says_so(world: World, podman: Podman, images: Images) -> None:
    name = f"127.0.0.1:{podman.registry_port}/waited/for:1"
    handle = _ask(world, "idle", options={"image": name})
    assert images.asked.wait(20)
    seen = world.see(handle)
    assert (seen.liveness, seen.told) == (Liveness.QUEUED, {"state": "pulling", "why": seen.message})
    assert name in seen.message
    assert world.backend.adopt(handle.name) is not None, "who takes over finds it under way"
    images.served.set()
    wait_until(lambda: world.see(handle).liveness is Liveness.RUNNING, 20, "its start")
    world.wait_for_line(handle, "started")
    assert world.starts() == 1
    assert world.see(world.backend.adopt(handle.name)).pid  # type: ignore[arg-type]


def test_a_launch_that_is_stopped_while_it_waits_for_its_image_starts_nothing(
    world: World, podman: Podman, images: Images
) -> None:
    handle = _ask(world, "idle", options={"image": f"127.0.0.1:{podman.registry_port}/stopped/while:1"})
    assert images.asked.wait(20)
    puller = _puller(world, handle)
    assert world.backend.stop(handle, grace_s=30).liveness is Liveness.ABSENT
    images.served.set()
    wait_until(lambda: _ended(puller), 20, "the end of the process that pulled")
    assert world.see(handle).liveness is Liveness.ABSENT
    assert world.starts() == 0


def test_a_pull_whose_process_is_killed_is_a_launch_that_failed(world: World, podman: Podman, images: Images) -> None:
    handle = _ask(world, "idle", options={"image": f"127.0.0.1:{podman.registry_port}/killed/while:1"})
    assert images.asked.wait(20)
    os.kill(_puller(world, handle), signal.SIGKILL)
    seen = world.wait_for(handle, Liveness.EXITED)
    assert (seen.reason, seen.message) == (
        Reason.LAUNCH_FAILED,
        "its launch was killed before the program started",
    )
    # its place is free for who tries again
    images.served.set()
    assert world.backend.adopt(handle.name) is None


def test_a_pull_outlives_the_daemon(world: World, podman: Podman, images: Images) -> None:
    handle = _ask(world, "idle", options={"image": f"127.0.0.1:{podman.registry_port}/restarted/while:1"})
    assert images.asked.wait(20)
    podman.stop()
    record = world.folder / "state" / "containers" / handle.name / "pull.json"
    wait_until(lambda: "tried again" in record.read_text(), 20, "its seeing that the daemon is away")
    podman.start()
    images.served.set()
    world.wait_started(handle)
    assert world.starts() == 1


def test_an_image_that_no_registry_has_is_said(world: World, podman: Podman, images: Images) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    handle = _ask(world, "idle", options={"image": f"127.0.0.1:{port}/nothing:1"})
    seen = world.wait_for(handle, Liveness.EXITED)
    assert seen.reason is Reason.LAUNCH_FAILED
    assert "cannot be pulled" in seen.message
    with pytest.raises(LaunchRefused, match="pull says never"):
        world.launch("idle", options={"image": f"127.0.0.1:{port}/nothing:1", "pull": "never"})
    with pytest.raises(LaunchRefused, match="no image is named"):
        world.launch("idle", options={"image": ""})


def test_the_images_own_entrypoint_is_not_run(world: World, podman: Podman, images: Images) -> None:
    images.served.set()
    handle = world.launch("end 5", options={"image": f"127.0.0.1:{podman.registry_port}/with/entrypoint:1"})
    assert world.wait_for(handle, Liveness.EXITED).exit_code == 5


def test_too_little_memory_is_said_as_such(world: World) -> None:
    handle = world.launch("devour", options={"memory_bytes": 64 * 2**20})
    seen = world.wait_for(handle, Liveness.EXITED)
    assert (seen.out_of_memory, seen.signal) == (True, signal.SIGKILL)
    assert "64 MiB" in seen.message


def test_a_kill_by_somebody_else_is_no_want_of_memory(world: World, podman: Podman) -> None:
    handle = world.launch("idle", options={"memory_bytes": 256 * 2**20})
    world.wait_started(handle)
    with podman.client() as client:
        client.kill(handle.name, "SIGKILL")
    seen = world.wait_for(handle, Liveness.EXITED)
    assert (seen.out_of_memory, seen.signal, seen.message) == (False, 9, "killed by SIGKILL")


def test_limits_reach_the_daemon(world: World, podman: Podman) -> None:
    limits = {"memory_bytes": 512 * 2**20, "cpus": 1.5, "pids": 77, "shm_bytes": 32 * 2**20}
    handle = world.launch("idle", options=limits)
    with podman.client() as client:
        seen = client.inspect_container(handle.name)["HostConfig"]
    assert (seen["Memory"], seen["PidsLimit"], seen["ShmSize"]) == (512 * 2**20, 77, 32 * 2**20)
    assert seen["NanoCpus"] == 1_500_000_000 or seen["CpuQuota"] / seen["CpuPeriod"] == 1.5
    assert not seen["Privileged"]


def test_labels_and_arguments_hold_no_secret(world: World, podman: Podman) -> None:
    handle = world.launch("idle", env={"ENGINE_KEY": "s3cret"}, record={"secret": "s3cret"})
    with podman.client() as client:
        seen = client.inspect_container(handle.name)
    assert seen["Config"]["Labels"]["hostler.attempt"] == handle.name
    shown = {name: value for name, value in seen["Config"].items() if name != "Env"}
    assert "s3cret" not in json.dumps([shown, seen["Args"], seen["HostConfig"]])


def test_only_allowed_folders_are_mounted(world: World, tmp_path: Path) -> None:
    inside, outside = tmp_path / "shared" / "models", tmp_path / "elsewhere"
    inside.mkdir()
    outside.mkdir()
    (inside / "way-out").symlink_to(outside)
    allowed = world.options["allowed_mounts"]
    state = tmp_path / "state"
    state.mkdir(exist_ok=True)
    for wrong, words in [
        ({"source": str(outside)}, "may not be mounted"),
        ({"source": str(inside / "way-out")}, "may not be mounted"),
        ({"source": f"{inside}/../../elsewhere"}, "no plain absolute path"),
        ({"source": str(inside), "target": f"{tmp_path}/zz,source=/etc"}, "no plain absolute path"),
        ({"source": str(inside / "none")}, "no such file"),
        ({"source": str(state)}, "Hostler's own files"),
        ({"source": str(tmp_path)}, "Hostler's own files"),
    ]:
        with pytest.raises(LaunchRefused, match=words):
            world.launch("idle", options={"mounts": [wrong]})
    for_reading = [*(one for one in allowed if one.get("read_only", True)), {"source": str(inside)}]
    wish = [{"source": str(inside), "read_only": False}]
    with pytest.raises(LaunchRefused, match="only for reading"):
        world.launch("idle", options={"mounts": wish, "allowed_mounts": for_reading})
    with pytest.raises(LaunchRefused, match="may not be mounted"):
        world.launch("idle", options={"mounts": [{"source": "/etc"}], "allowed_mounts": []})
    assert world.backend.list_marked(world.prefix) == []


def test_a_mount_in_which_the_daemon_reads_more_is_seen_before_anything_runs(
    world: World, podman: Podman, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_options, "is_plain", lambda path: True)
    monkeypatch.setattr(docker_config, "is_safe", lambda path: True)
    shared = str(tmp_path / "shared")
    wish = {"source": shared, "target": "/zz,source=/etc"}
    mounts = [*world.options["mounts"], wish]
    with pytest.raises(LaunchRefused, match="other mounts than it was asked for"):
        world.launch("idle", options={"mounts": mounts})
    assert [name for name in podman.names() if name.startswith(world.prefix)] == []
    assert world.starts() == 0


def test_a_daemon_that_is_away_leaves_everything_unknown(world: World, podman: Podman) -> None:
    handle = world.launch("idle")
    world.wait_started(handle)
    podman.stop()
    try:
        assert world.see(handle).liveness is Liveness.UNKNOWN
        for ask in (
            lambda: world.backend.adopt(handle.name),
            lambda: world.backend.stop(handle, grace_s=0, force=True),
            lambda: world.backend.close(handle),
            lambda: world.launch("idle"),
        ):
            with pytest.raises(BackendUnavailable):
                ask()
        assert world.backend.fingerprint({}).healthy is False
    finally:
        podman.start()
    assert world.see(handle).liveness is Liveness.RUNNING
    assert world.starts() == 1


def begun_with_its_last_breath(world: World, podman: Podman, behaviour: str) -> Launch:
    """A launch whose daemon was killed as soon as it had started the program."""
    plan = world.plan(behaviour)
    with podman.dying_at("start"), pytest.raises(BackendUnavailable):
        world.backend.launch(plan)
    return plan


def test_what_a_daemon_began_with_its_last_breath_runs_and_is_not_begun_again(world: World, podman: Podman) -> None:
    plan = begun_with_its_last_breath(world, podman, "idle")
    handle = world.backend.adopt(plan.name)
    assert handle is not None
    seen = world.see(handle)
    assert (seen.liveness, seen.pid) == (Liveness.RUNNING, handle.ref["pid"])
    with pytest.raises(AlreadyLaunched):
        world.backend.launch(plan)
    world.wait_for_line(handle, "started")
    stopping = world.backend.stop(handle, grace_s=30)
    assert stopping.liveness in (Liveness.RUNNING, Liveness.EXITED), stopping
    seen = world.wait_for(handle, Liveness.EXITED)
    assert seen.message.startswith("ended, as asked; how is not known")
    assert world.starts() == 1


def test_what_a_daemon_began_with_its_last_breath_can_be_killed(world: World, podman: Podman) -> None:
    plan = begun_with_its_last_breath(world, podman, "stubborn")
    handle = Handle("docker", plan.name)
    world.wait_for_line(handle, "ready")
    assert world.end(handle).signal == signal.SIGKILL
    assert world.starts() == 1


def test_what_a_daemon_began_with_its_last_breath_and_ended_is_not_begun_again(world: World, podman: Podman) -> None:
    plan = begun_with_its_last_breath(world, podman, "end 5")
    handle = world.backend.adopt(plan.name)
    assert handle is not None
    seen = world.wait_for(handle, Liveness.EXITED)
    assert (seen.exit_code, "how is not known" in seen.message) == (None, True)
    with pytest.raises(AlreadyLaunched):
        world.backend.launch(plan)
    assert "last words" in list(world.backend.logs(handle))
    assert world.starts() == 1


def test_what_a_daemon_made_with_its_last_breath_gives_way_and_is_not_left(world: World, podman: Podman) -> None:
    """Nobody begins it any more; removed by a daemon that does not know of it, its process would wait for ever."""
    plan = world.plan("idle")
    with podman.dying_at("create"), pytest.raises(BackendUnavailable):
        world.backend.launch(plan)
    made = Daemon(str(podman.socket)).find(plan.name) or {}
    assert keepers(made["Id"])
    assert world.backend.adopt(plan.name) is None
    world.wait_started(world.backend.launch(plan))
    wait_until(lambda: not keepers(made["Id"]), 20, "the end of what nobody begins")
    assert world.starts() == 1


@pytest.mark.parametrize("asked", [False, True])
def test_an_end_that_no_conmon_told_is_seen(world: World, podman: Podman, asked: bool) -> None:
    """Podman says that it runs, for ever."""
    handle = world.launch("idle")
    world.wait_started(handle)
    (keeper,) = keepers(handle.ref["id"])
    os.kill(keeper, signal.SIGKILL)
    wait_until(lambda: not keepers(handle.ref["id"]), 20, "the end of its conmon")
    assert world.see(handle).liveness is Liveness.RUNNING
    if asked:
        with suppress(BackendUnavailable):  # Podman waits for word of the end
            world.backend.stop(handle, grace_s=0, force=True)
    else:
        os.kill(handle.ref["pid"], signal.SIGKILL)
    seen = world.wait_for(handle, Liveness.EXITED)
    assert "how is not known: the conmon" in seen.message
    assert world.backend.stop(handle, grace_s=0, force=True).liveness is Liveness.EXITED
    world.backend.close(handle)
    assert handle.name not in podman.names()


def test_a_start_whose_answer_was_lost_leaves_what_tells_of_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that ended at once, by an answer that never came: its container is the only word of it."""
    start = Daemon.start

    def lose(self: Daemon, container: str, timeout_s: float = 20) -> None:
        start(self, container, timeout_s)
        wait_until(lambda: is_ended(self.find(container) or {}), 20, "its end")
        raise BackendUnavailable("the connection broke off")

    plan = world.plan("end 5")
    with monkeypatch.context() as lost:
        lost.setattr(Daemon, "start", lose)
        with pytest.raises(BackendUnavailable):
            world.backend.launch(plan)
    handle = world.backend.adopt(plan.name)
    assert handle is not None
    assert world.wait_for(handle, Liveness.EXITED).exit_code == 5
    assert world.starts() == 1


def test_a_frozen_daemon_is_unknown_within_its_time(world: World, podman: Podman) -> None:
    handle = world.launch("idle")
    world.wait_started(handle)
    freeze(podman.pid)
    try:
        assert [one.liveness for one in world.backend.inspect([handle] * 5, timeout_s=0.5)] == [Liveness.UNKNOWN] * 5
    finally:
        os.kill(podman.pid, signal.SIGCONT)
    assert world.see(handle).liveness is Liveness.RUNNING


def test_a_container_that_got_another_name_is_still_the_attempts(world: World, podman: Podman) -> None:
    handle = world.launch("idle")
    world.wait_started(handle)
    pid = world.see(handle).pid
    with podman.client() as client:
        client.rename(handle.name, f"{handle.name}-of-mine")
    seen = world.see(handle)
    assert (seen.liveness, seen.pid) == (Liveness.RUNNING, pid)
    assert world.backend.adopt(handle.name) is not None
    assert "started" in list(world.backend.logs(handle))
    assert b"started" in world.backend.read_log(handle).data
    world.backend.stop(handle, grace_s=0)
    world.wait_for(handle, Liveness.EXITED)
    world.backend.close(handle)
    assert not [name for name in podman.names() if handle.name in name]


def test_a_container_that_somebody_else_removed_is_gone(world: World, podman: Podman) -> None:
    handle = world.launch("idle")
    world.wait_started(handle)
    with podman.client() as client:
        client.remove_container(handle.name, force=True)
    seen = world.see(handle)
    assert (seen.liveness, "somebody else" in seen.message) == (Liveness.ABSENT, True)
    with pytest.raises(BackendError):
        world.backend.launch(replace(world.plan("idle"), name=handle.name))
    assert world.starts() == 1


def test_a_container_whose_folder_is_lost_is_found_and_stopped(world: World, podman: Podman) -> None:
    handle = world.launch("stubborn")
    world.wait_started(handle, "ready")
    (world.folder / "state" / "containers").rename(world.folder / "state" / "lost")
    bare = Handle("docker", handle.name)
    assert world.backend.list_marked(world.prefix) == [handle.name]
    assert world.see(bare).liveness is Liveness.RUNNING
    assert world.backend.adopt(handle.name) is not None
    assert world.end(bare).signal == signal.SIGKILL


def test_a_paused_one_is_ended_all_the_same(world: World, podman: Podman) -> None:
    handle = world.launch("idle")
    world.wait_started(handle)
    with podman.client() as client:
        client.pause(handle.name)
    assert world.see(handle).message == "is paused"
    assert world.end(handle).liveness is Liveness.EXITED


def test_a_launcher_that_is_frozen_for_good_gives_way(world: World) -> None:
    """Its lock is held for ever; after its time the next one takes the name, and when it thaws it starts nothing."""
    plan = world.plan("idle")
    pid = _frozen_before_its_start(world, plan)
    wait_until(lambda: world.backend.adopt(plan.name) is None, 20, "its time being over")
    handle = world.backend.launch(plan)
    world.wait_started(handle)
    os.kill(pid, signal.SIGCONT)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert world.see(handle).liveness is Liveness.RUNNING
    assert world.starts() == 1


def test_gpus_that_podman_would_not_give_are_refused(world: World) -> None:
    with pytest.raises(LaunchRefused, match="hands out no GPUs"):
        world.launch("idle", gpus=(0,))


def _ask(world: World, behaviour: str, **more: Any) -> Handle:
    """Launch it and do not wait for its image."""
    return world.backend.launch(world.plan(behaviour, **more))


def _frozen_before_its_start(world: World, plan: Any) -> int:
    """The pid of a launcher that stopped after its last look at the clock, before it asks for the start."""
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        return pid
    start = Daemon.start

    def freeze(self: Daemon, container: str, timeout_s: float = 20) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)
        start(self, container, timeout_s)

    Daemon.start = freeze  # type: ignore[method-assign]
    try:
        world.backend.launch(plan, timeout_s=10)
    except BackendError:
        os._exit(1)
    finally:
        os._exit(0)


def _puller(world: World, handle: Handle) -> int:
    record = world.folder / "state" / "containers" / handle.name / "pull.json"
    return int(json.loads(record.read_text())["pid"])


def _ended(pid: int) -> bool:
    seen = stat(pid)
    return seen is None or seen.ended
