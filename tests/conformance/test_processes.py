"""What holds for a backend that runs programs: endings, descendants, output, environment, ports."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.world import WAIT_S, World
from tests.support.embedded import wait_until
from workers.backends.base import Handle, LaunchRefused, Liveness


def test_a_program_that_hears_sigterm_ends_its_own_way(processes: World) -> None:
    handle = processes.launch("polite")
    processes.wait_for_line(handle, "ready")
    processes.backend.stop(handle, grace_s=30)
    seen = processes.wait_for(handle, Liveness.EXITED)
    assert (seen.exit_code, seen.signal) == (7, None)


def test_a_frozen_program_hears_sigterm(processes: World) -> None:
    handle = processes.launch("polite")
    processes.wait_for_line(handle, "ready")
    os.kill(_pid(processes, handle), signal.SIGSTOP)
    processes.backend.stop(handle, grace_s=30)
    assert processes.wait_for(handle, Liveness.EXITED).exit_code == 7


def test_a_program_that_ignores_sigterm_is_killed_after_its_grace(processes: World) -> None:
    handle = processes.launch("stubborn")
    processes.wait_for_line(handle, "ready")
    begun = time.monotonic()
    while not (seen := processes.backend.stop(handle, grace_s=0.3)).liveness.gone:
        assert time.monotonic() < begun + WAIT_S
        assert seen.liveness is Liveness.RUNNING or time.monotonic() >= begun + 0.3
    assert time.monotonic() >= begun + 0.3
    assert processes.see(handle).signal == signal.SIGKILL


@pytest.mark.parametrize("behaviour", ["leave-child", "leave-daemon", "leave-nameless"])
def test_what_a_program_leaves_behind_is_not_gone_until_killed(leaving: World, behaviour: str) -> None:
    handle = leaving.launch(behaviour)
    seen = leaving.wait_for(handle, Liveness.LINGERING)
    assert seen.exit_code == 4
    assert "left" in seen.message
    leaving.backend.stop(handle, grace_s=3600)
    ended = leaving.end(handle)
    assert ended.liveness is Liveness.EXITED
    assert ended.exit_code == 4


def test_an_orderly_stop_asks_what_was_left_too(leaving: World) -> None:
    handle = leaving.launch("leave-child")
    leaving.wait_for(handle, Liveness.LINGERING)
    leaving.backend.stop(handle, grace_s=3600)
    leaving.wait_for(handle, Liveness.EXITED)


def test_force_kills_a_daemon_that_left_the_session(leaving: World) -> None:
    handle = leaving.launch("with-daemon")
    leaving.wait_for_line(handle, "ready")
    os.kill(_pid(leaving, handle), signal.SIGKILL)
    assert leaving.wait_for(handle, Liveness.LINGERING).signal == signal.SIGKILL
    assert leaving.end(handle).liveness is Liveness.EXITED


def test_a_crash_is_seen_through_its_watch(processes: World) -> None:
    handle = processes.launch("idle")
    watch = processes.backend.watch_fd(handle)
    if watch is None:
        return  # a hint that a backend need not give
    os.kill(_pid(processes, handle), signal.SIGKILL)
    wait_until(lambda: _readable(watch), WAIT_S, "the watch telling")
    os.close(watch)
    # no second look is needed: whoever was woken finds how it ended
    seen = processes.see(handle)
    assert (seen.liveness, seen.signal, seen.out_of_memory) == (Liveness.EXITED, signal.SIGKILL, False)
    assert processes.backend.watch_fd(handle) is None


def test_the_last_words_are_in_the_log_when_the_end_is_seen(processes: World) -> None:
    for _ in range(20 if processes.backend.host_bound else 5):
        handle = processes.launch("end 3")
        processes.wait_for(handle, Liveness.EXITED)
        assert list(processes.backend.logs(handle)) == ["started 3", "last words"]


def test_much_output_is_bounded_and_keeps_its_end(keeping: World) -> None:
    bound = 64 * 1024
    handle = keeping.launch("chatter 3000000", options={"log_bytes": bound})
    keeping.wait_for(handle, Liveness.EXITED)
    lines = list(keeping.backend.logs(handle))
    assert lines[-1] == "the end"
    assert bound / 2 <= sum(len(line) + 1 for line in lines) <= bound
    numbers = [int(line.split()[1]) for line in lines[1:-1]]
    assert numbers == list(range(numbers[0], numbers[-1] + 1)), "no line is missing where the two files meet"
    assert list(keeping.backend.logs(handle, tail=3)) == lines[-3:]
    assert list(keeping.backend.logs(handle, tail=500)) == lines[-500:]
    kept = sum(file.stat().st_size for file in keeping.folder.rglob("log*") if file.is_file())
    assert kept <= bound


def test_a_log_is_read_along_while_it_is_written_and_rotated(keeping: World) -> None:
    handle = keeping.launch("drip", options={"log_bytes": 64 * 1024})
    stretches, place = [b""], ""

    def read() -> bool:
        nonlocal place
        part = keeping.backend.read_log(handle, place)
        if part.gap:
            # on a busy machine a reader may be slower than what is written, and then it is told
            stretches.append(b"")
        stretches[-1] += part.data
        place = part.place
        return sum(said.count(b"\n") for said in stretches) > 120

    wait_until(read, 3 * WAIT_S, "more output than is kept")
    last = -1
    for said in stretches:
        # the first is "started", or the rest of a line; the last may be a half one
        numbers = [int(line.split()[1]) for line in said.decode().split("\n")[1:-1]]
        if numbers:
            assert numbers == list(range(numbers[0], numbers[-1] + 1))
            assert numbers[0] > last
            last = numbers[-1]
    kept = place

    def is_lost() -> bool:
        return keeping.backend.read_log(handle, kept, 1).gap

    wait_until(is_lost, 3 * WAIT_S, "what was not read being rotated away")
    keeping.end(handle)
    part = keeping.backend.read_log(handle, kept)
    assert part.gap
    assert part.data == keeping.backend.read_log(handle).data
    assert part.data.decode().splitlines() == list(keeping.backend.logs(handle))


def test_a_missing_program_is_refused_with_its_name(processes: World) -> None:
    for argv in (
        ("/nowhere/engine",),
        ("no-such-engine-at-all",),
        (str(Path(__file__)),),
        (str(Path(__file__).parent),),
    ):
        assert argv[0] in processes.refusal(argv=argv)


def test_a_program_that_cannot_be_executed_is_refused(processes: World) -> None:
    broken = processes.shared / "engine"
    broken.write_text("neither ELF nor script")
    broken.chmod(0o700)
    assert "Exec format error" in processes.refusal(argv=(str(broken),))


@pytest.mark.parametrize(
    "more",
    [
        {"argv": ()},
        {"argv": ("/bin/true", "a\0b")},
        {"env": {"A": "a\0b"}},
        {"env": {"A=B": "x"}},
        {"files": {"../escape": "x"}},
        {"files": {"exit.json": "{}"}},
        {"name": "../escape"},
        {"name": ".hidden"},
    ],
)
def test_what_cannot_be_handed_over_is_refused(processes: World, more: dict[str, Any]) -> None:
    with pytest.raises(LaunchRefused):
        processes.launch("idle", **more)
    assert not (processes.folder / "escape").exists()
    assert not (processes.folder / "state" / "escape").exists()


def test_values_pass_unharmed_and_unexpanded(processes: World) -> None:
    nasty = "$(touch pwned) `id` \"double\" 'single' \\ {} % ; & | \n new line \t é ✓"
    shown = _show(processes, words=[nasty], env={"NASTY": nasty, "EMPTY": ""})
    assert shown["words"] == [nasty]
    assert shown["environ"]["NASTY"] == nasty
    assert shown["environ"]["EMPTY"] == ""
    assert not list(processes.folder.rglob("pwned"))


def test_the_environment_is_built_from_nothing(processes: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOSTLER_DATABASE_URL", "SECRET_OF_THE_WORKER", "LD_PRELOAD_NOT", "PYTHONPATH"):
        monkeypatch.setenv(name, "from the worker")
    monkeypatch.setenv("PATH", f"/from/the/worker:{os.environ['PATH']}")
    shown = _show(processes, env={"OURS": "{folder}/x"}, files={"conf": "{}"})
    environ = shown["environ"]
    # a cluster names the devices for each vendor's driver
    others = {"LC_CTYPE", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK", "GPU_DEVICE_ORDINAL", *processes.surroundings}
    assert set(environ) - others == {
        "PATH", "HOME", "LANG", "HOSTLER_MARK", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "OURS", "STARTS",
    }  # fmt: skip
    assert "worker" not in json.dumps(environ)
    assert environ["OURS"] == f"{environ['HOME']}/x"
    assert Path(environ["HOME"], "conf").read_text() == "{}"


def test_leased_gpus_are_those_that_it_sees(bare: World) -> None:
    # a cluster says itself which of its GPUs they are
    seen = _show(bare, gpus=(1, 3))["environ"]["CUDA_VISIBLE_DEVICES"]
    assert seen == ("0,1" if bare.queues else "1,3")


def test_the_lease_of_gpus_is_stronger_than_the_wish(processes: World) -> None:
    environ = _show(processes, gpus=(), env={"CUDA_VISIBLE_DEVICES": "0,1", "HOSTLER_MARK": "x"})["environ"]
    assert environ["CUDA_VISIBLE_DEVICES"] == ""
    assert environ["HOSTLER_MARK"].startswith(processes.prefix)


def test_a_program_gets_none_of_the_workers_descriptors_session_or_signals(bare: World) -> None:
    read, write = os.pipe()
    os.set_inheritable(write, True)
    kept = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        shown = _show(bare)
    finally:
        signal.signal(signal.SIGUSR1, kept)
        os.close(write)
    assert os.read(read, 1) == b"", "somebody still holds the pipe open for writing"
    os.close(read)
    assert shown["session"] == shown["pid"]
    assert shown["umask"] == 0o077
    # Python itself ignores SIGPIPE and SIGXFSZ, and 32 and 33 are libc's own: no program can set them, some inherit
    # them ignored; nothing else is ignored, nothing blocked
    expected = (signal.SIGPIPE, signal.SIGXFSZ, 32, 33)
    assert shown["masks"]["SigIgn"] & ~sum(1 << (number - 1) for number in expected) == 0
    assert shown["masks"]["SigBlk"] == 0


def test_secrets_of_the_environment_show_in_no_argv_and_no_file(processes: World) -> None:
    secret = "s3cr3t-of-the-engine"
    handle = processes.launch("stubborn", env={"ENGINE_KEY": secret})
    processes.wait_for_line(handle, "ready")
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                assert secret not in (entry / "cmdline").read_text(errors="replace")
            except OSError:
                continue  # it ended meanwhile
    for path in processes.folder.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


def test_a_foreign_listener_on_the_port_is_told(processes: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        port = foreign.getsockname()[1]
        handle = processes.launch("idle", port=port)
        processes.wait_for_owner(handle, False)


def test_a_foreign_listener_on_every_address_is_told(processes: World) -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as foreign:
        handle = processes.launch("idle", port=foreign.getsockname()[1])
        processes.wait_for_owner(handle, False)


@pytest.mark.parametrize("behaviour", ["listen", "listen-in-child"])
def test_its_own_listener_is_known(processes: World, behaviour: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    handle = processes.launch(f"{behaviour} {port}", port=port)
    processes.wait_for_line(handle, "listening")
    seen = processes.wait_for_owner(handle, True)
    assert (seen.port, seen.host) == (port, "127.0.0.1")
    assert processes.see(Handle(handle.backend, handle.name)).owns_port is True


def test_nobody_on_the_port_is_neither_own_nor_foreign(processes: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert processes.see(processes.launch("idle", port=port)).owns_port is None
    assert processes.see(processes.launch("idle")).owns_port is None


def _pid(world: World, handle: Handle) -> int:
    pid = world.see(handle).pid
    assert pid is not None
    return pid


def _readable(file: int) -> bool:
    import select

    return bool(select.select([file], [], [], 0)[0])


def _show(world: World, words: list[str] | None = None, **more: Any) -> dict[str, Any]:
    """What the program found when it began."""
    plan = world.plan("show")
    handle = world.launch("show", argv=(*plan.argv, *(words or [])), **more)
    shown = wait_until(lambda: list(world.folder.rglob("shown.json")), WAIT_S, f"{handle.name} showing itself")
    return json.loads(shown[0].read_text())
