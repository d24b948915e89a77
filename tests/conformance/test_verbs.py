"""The verbs, each also a second time."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace

import pytest

from tests.conformance.world import World
from workers.backends.base import BackendError, Handle, LaunchRefused, Liveness


def test_fingerprint_is_plain_data(world: World) -> None:
    seen = world.backend.fingerprint({})
    assert seen.healthy
    assert {"cpus", "memory_bytes", "gpus"} <= set(seen.attributes)
    assert json.loads(json.dumps(dict(seen.attributes))) == seen.attributes


def test_what_was_never_launched_is_absent(world: World) -> None:
    assert world.backend.adopt(f"{world.prefix}none-1") is None
    never = Handle(world.backend.name, f"{world.prefix}none-1")
    assert world.see(never).liveness is Liveness.ABSENT
    assert list(world.backend.logs(never)) == []
    assert world.backend.read_log(never).data == b""
    assert world.backend.watch_fd(never) is None
    world.backend.close(never)


def test_launch_runs_and_adopt_finds_it(world: World) -> None:
    handle = world.launch("idle")
    seen = world.wait_for(handle, Liveness.RUNNING)
    assert seen.started_at is not None
    assert seen.exit_code is None
    again = world.backend.adopt(handle.name)
    assert again is not None
    assert again.name == handle.name
    assert world.see(again) == seen


def test_handles_survive_json(world: World) -> None:
    handle = world.launch("idle")
    kept = Handle(handle.backend, handle.name, json.loads(json.dumps(dict(handle.ref))))
    assert world.see(kept) == world.see(handle)


def test_a_handle_that_lost_its_ref_still_works(world: World) -> None:
    handle = world.launch("idle")
    bare = Handle(handle.backend, handle.name)
    assert world.see(bare).liveness is Liveness.RUNNING
    assert world.end(bare).liveness.gone
    assert world.see(handle).liveness is Liveness.EXITED


def test_inspect_answers_in_order_and_never_raises(world: World) -> None:
    first, second = world.launch("idle"), world.launch("idle")
    bad = [
        Handle(world.backend.name, "../etc"),
        Handle(world.backend.name, first.name, {"pid": "x", "launched_at": "x", "options": 3}),
    ]
    world.end(second)
    seen = world.backend.inspect([second, *bad, first, Handle(world.backend.name, f"{world.prefix}none-1")])
    assert [item.liveness for item in (seen[0], seen[1], seen[3], seen[4])] == [
        Liveness.EXITED,
        Liveness.UNKNOWN,
        Liveness.RUNNING,
        Liveness.ABSENT,
    ]
    assert world.backend.inspect([]) == []


def test_stop_ends_it_and_a_second_stop_changes_nothing(world: World) -> None:
    handle = world.launch("idle")
    world.wait_for(handle, Liveness.RUNNING)
    world.backend.stop(handle, grace_s=30)
    seen = world.wait_for(handle, Liveness.EXITED)
    assert seen.signal == 15
    assert seen.ended_at is not None
    assert "as asked" in seen.message
    assert world.backend.stop(handle, grace_s=30) == seen
    assert world.backend.stop(handle, grace_s=0, force=True) == seen


def test_stop_waits_for_its_grace_counted_from_the_first_ask(world: World) -> None:
    handle = world.launch("stubborn")
    world.wait_started(handle, "ready")
    assert world.backend.stop(handle, grace_s=3600).liveness is Liveness.RUNNING
    assert world.backend.stop(handle, grace_s=3600).liveness is Liveness.RUNNING
    # another process asks later with what is by then a shorter grace: it has passed since the first ask
    world.backend.stop(world.backend.adopt(handle.name), grace_s=0)  # type: ignore[arg-type]
    assert world.wait_for(handle, Liveness.EXITED).signal in (9, 15)


def test_force_does_not_wait(world: World) -> None:
    handle = world.launch("stubborn")
    world.wait_started(handle, "ready")
    world.backend.stop(handle, grace_s=3600)
    world.backend.stop(handle, grace_s=3600, force=True)
    assert world.wait_for(handle, Liveness.EXITED).signal == 9


def test_stopping_what_was_not_launched_keeps_it_from_being_launched(world: World) -> None:
    """A launcher frozen on its way must not start what everybody has given up."""
    plan = world.plan("idle")
    assert world.backend.stop(Handle(world.backend.name, plan.name), grace_s=1).liveness.gone
    with pytest.raises(LaunchRefused, match="before it was launched"):
        world.backend.launch(plan)
    assert world.backend.adopt(plan.name) is None
    assert world.see(Handle(world.backend.name, plan.name)).liveness is Liveness.ABSENT
    assert world.starts() == 0


@pytest.mark.parametrize("code", [0, 3])
def test_the_exit_code_is_kept(world: World, code: int) -> None:
    handle = world.launch(f"end {code}")
    seen = world.wait_for(handle, Liveness.EXITED)
    assert (seen.exit_code, seen.signal, seen.out_of_memory) == (code, None, False)
    assert seen.message == f"exited with code {code}"
    assert seen.ended_at is not None
    assert world.see(world.backend.adopt(handle.name)) == seen  # type: ignore[arg-type]


def test_logs_are_there_after_a_crash_and_bounded_by_tail(world: World) -> None:
    handle = world.launch("end 3")
    world.wait_for(handle, Liveness.EXITED)
    lines = list(world.backend.logs(handle))
    assert len(lines) >= 2
    assert not any(line.endswith("\n") for line in lines)
    assert list(world.backend.logs(handle, tail=1)) == lines[-1:]
    assert list(world.backend.logs(handle, tail=0)) == []
    assert list(world.backend.logs(handle, tail=10_000)) == lines


def test_its_log_is_read_in_parts_each_byte_once(world: World) -> None:
    handle = world.launch("end 3")
    world.wait_for(handle, Liveness.EXITED)
    whole = world.backend.read_log(handle)
    assert not whole.gap
    assert whole.data.decode().splitlines() == list(world.backend.logs(handle))
    again = Handle(handle.backend, handle.name)
    assert world.backend.read_log(again, limit=len(whole.data)) == whole
    for limit in (1, 7, len(whole.data) - 1):
        assert b"".join(world.parts_of(handle, limit=limit)) == whole.data
    rest = world.backend.read_log(handle, whole.place)
    assert (rest.data, rest.place, rest.gap) == (b"", whole.place, False)


def test_the_last_lines_begin_at_a_place_of_their_own(world: World) -> None:
    never = Handle(world.backend.name, f"{world.prefix}never-1")
    assert world.backend.tail_place(never, 3) == ""
    handle = world.launch("end 3")
    world.wait_for(handle, Liveness.EXITED)
    lines = world.backend.read_log(handle).data.splitlines(keepends=True)
    assert len(lines) >= 2
    for count in (0, 1, 2, len(lines), len(lines) + 7):
        place = world.backend.tail_place(handle, count)
        part = world.backend.read_log(handle, place)
        assert (part.data, part.gap) == (b"".join(lines[len(lines) - min(count, len(lines)) :]), False), count


NO_PLACES = ("x", "-", "0-0-00000000", "1-1", "1e400+3", "nan+1", "\u0663-\u0661-00000000", "9" * 500)


@pytest.mark.parametrize("place", NO_PLACES)
def test_a_place_that_is_none_goes_on_at_the_oldest_kept_and_says_so(world: World, place: str) -> None:
    handle = world.launch("end 3")
    world.wait_for(handle, Liveness.EXITED)
    part = world.backend.read_log(handle, place)
    assert part.gap
    assert part.data == world.backend.read_log(handle).data


def test_close_refuses_what_lives_and_forgets_what_is_gone(world: World) -> None:
    handle = world.launch("idle")
    with pytest.raises(BackendError, match="stop it first"):
        world.backend.close(handle)
    assert world.see(handle).liveness is Liveness.RUNNING
    world.end(handle)
    world.backend.close(handle)
    world.backend.close(handle)
    assert world.backend.adopt(handle.name) is None
    assert world.see(handle).liveness is Liveness.ABSENT
    assert list(world.backend.logs(handle)) == []
    assert world.backend.read_log(handle).data == b""


def test_list_marked_tells_of_every_attempt(world: World) -> None:
    handles = [world.launch("idle"), world.launch("end 0")]
    assert world.backend.list_marked(world.prefix) == sorted(handle.name for handle in handles)
    assert world.backend.list_marked(f"{world.prefix}other") == []


def test_nothing_it_writes_can_be_read_by_others(world: World) -> None:
    handle = world.launch("idle")
    world.backend.stop(handle, grace_s=3600)
    world.wait_for(handle, Liveness.EXITED)
    found = []
    for folder, folders, files in os.walk(world.folder / "state"):
        for name in folders + files:
            path = os.path.join(folder, name)
            found.append(path)
            assert stat.S_IMODE(os.stat(path).st_mode) & 0o077 == 0, path
    assert found


def test_attempts_do_not_hear_each_other(world: World) -> None:
    first = world.plan("idle")
    second = replace(first, name=f"{first.name}0", attempt=10)  # the first's name is its beginning
    one, ten = world.backend.launch(first), world.backend.launch(second)
    world.wait_for(ten, Liveness.RUNNING)
    world.end(one)
    assert world.see(ten).liveness is Liveness.RUNNING
