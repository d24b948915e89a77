"""What was asked for happens once: launchers that race, are killed at any line, or freeze and thaw."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from app.domain.abilities import RUNS_ARGV
from tests.conformance.stepping import Place, lines_of, signalled_at
from tests.conformance.world import World
from tests.support.embedded import wait_until
from tests.support.sampling import sampled
from workers.backends.base import AlreadyLaunched, Handle, Launch, Liveness

RACERS = 6
#: Lines at which a launch on a cluster is broken off.
CLUSTER_PLACES = 8


def test_a_second_launch_is_refused(world: World) -> None:
    plan = world.plan("idle")
    handle = world.backend.launch(plan)
    with pytest.raises(AlreadyLaunched):
        world.backend.launch(plan)
    world.wait_started(handle)
    world.end(handle)
    with pytest.raises(AlreadyLaunched):
        world.backend.launch(plan)
    _expect_starts(world, 1)


def test_launchers_at_one_instant_make_one(world: World) -> None:
    for _ in range(5):
        plan = world.plan("idle")
        gate, opened = os.pipe()
        racers = [_race(world, plan, gate, opened) for _ in range(RACERS)]
        os.close(gate)
        os.close(opened)
        codes = sorted(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in racers)
        assert codes == [0] + [3] * (RACERS - 1)
        world.wait_for(world.backend.adopt(plan.name), Liveness.RUNNING)  # type: ignore[arg-type]
    _expect_starts(world, 5)


@pytest.mark.timeout(300)
def test_a_launcher_killed_at_any_line_loses_and_doubles_nothing(world: World) -> None:
    places = _places(world)
    begun = world.starts()
    killed = 0
    for count, place in enumerate(places, start=1):
        plan = world.plan("idle")
        _, status = os.waitpid(signalled_at(place, lambda plan=plan: world.backend.launch(plan), signal.SIGKILL), 0)
        killed += os.WIFSIGNALED(status)
        _relaunch(world, plan)
        handle = world.backend.adopt(plan.name)
        assert handle is not None, place
        assert world.wait_for(handle, Liveness.RUNNING, Liveness.EXITED).liveness is Liveness.RUNNING, place
        _expect_starts(world, begun + count)
        world.end(handle)
    _expect_most(killed, places)


@pytest.mark.timeout(300)
def test_a_launcher_that_froze_and_thawed_adds_nothing(world: World) -> None:
    places = _places(world)[::3]
    begun, frozen = world.starts(), 0
    for count, place in enumerate(places, start=1):
        plan = world.plan("idle")
        pid, is_frozen = _frozen(place, lambda plan=plan: world.backend.launch(plan))
        frozen += is_frozen
        _relaunch(world, plan)
        handle = world.backend.adopt(plan.name)
        assert handle is not None, place
        if is_frozen:
            _thaw(pid)
        world.wait_for(handle, Liveness.RUNNING)
        _expect_starts(world, begun + count)
        world.end(handle)
    _expect_most(frozen, places)


@pytest.mark.timeout(300)
def test_a_launcher_frozen_while_others_stop_it_leaves_nothing(world: World) -> None:
    """Whoever stops what is being launched either finds it or keeps it from starting: nothing comes after "gone"."""
    places, frozen = _places(world)[1::3], 0
    for place in places:
        plan = world.plan("idle")
        pid, is_frozen = _frozen(place, lambda plan=plan: world.backend.launch(plan))
        frozen += is_frozen
        handle = Handle(world.backend.name, plan.name)
        world.end(handle)
        begun = world.starts()
        if is_frozen:
            _thaw(pid)
        assert world.see(handle).liveness.gone, place
        assert world.starts() == begun, place
    _expect_most(frozen, places)


def test_a_launcher_that_thaws_too_late_starts_nothing(processes: World) -> None:
    """Also when nobody else launched, and when what somebody else launched is over and forgotten."""
    world = processes
    # after the deadline was reckoned and before anything was handed over
    before = ("attempt_folder.py", "pump.py", "slurm_asking.py")
    place = next(place for place in _all_places(world) if place[0].endswith(before))
    begun = world.starts()
    for forgotten in (False, True):
        plan = world.plan("idle")
        pid, is_frozen = _frozen(place, lambda plan=plan: world.backend.launch(plan, timeout_s=0.1))
        assert is_frozen
        if forgotten:
            handle = world.backend.launch(plan)
            world.wait_for_line(handle, "started")
            begun += 1
            world.end(handle)
            world.backend.close(handle)
        time.sleep(0.1)  # not for luck: this is the time it is late by
        assert _thaw(pid) == 1
        assert world.backend.adopt(plan.name) is None
    _expect_starts(world, begun)


def _race(world: World, plan: Launch, gate: int, opened: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 4
    try:
        os.close(opened)
        os.read(gate, 1)  # returns for all at once, when the last writer closes
        world.backend.launch(plan)
        status = 0
    except AlreadyLaunched:
        status = 3
    finally:
        os._exit(status)


def _places(world: World) -> list[Place]:
    """So many of them as there is time for, all the way to the last."""
    places = _all_places(world)
    # a cluster takes its second for each launch, a container its own: of its lines a sample, all the way to the last
    step = len(places) // (CLUSTER_PLACES if world.queues else world.most_places) + 1
    return sampled(places[::-step][::-1])


def _all_places(world: World) -> list[Place]:
    """Every line of a launch, once what is done only in the first one of a process has been done."""
    first, second = world.launch("idle"), world.plan("idle")
    places = lines_of(lambda: world.backend.launch(second))
    for handle in (first, Handle(world.backend.name, second.name)):
        world.wait_started(handle)
        world.end(handle)
    assert len(places) >= 10
    return places


def _relaunch(world: World, plan: Launch) -> None:
    """What a worker does: adopt, else launch; and a launch that is refused was made by another."""
    if world.backend.adopt(plan.name) is None:
        with suppress(AlreadyLaunched):
            world.backend.launch(plan)


def _frozen(place: Place, act: Callable[[], object]) -> tuple[int, bool]:
    """The pid of a fork that acts, and whether it stands still at ``place`` (or it came past and has ended)."""
    pid = signalled_at(place, act, signal.SIGSTOP)
    _, status = os.waitpid(pid, os.WUNTRACED)
    return pid, os.WIFSTOPPED(status)


def _thaw(pid: int) -> int:
    os.kill(pid, signal.SIGCONT)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _expect_most(reached: int, places: list[Place]) -> None:
    """Which lines run hangs a little on what arrives in which order, where a launch waits for another host."""
    assert reached >= 0.8 * len(places)


def _expect_starts(world: World, count: int) -> None:
    """Exactly so many programs ran; counted by themselves."""
    if RUNS_ARGV in world.backend.lacks:
        return
    wait_until(lambda: world.starts() >= count, 10, f"{count} starts; there are {world.starts()}")
    assert world.starts() == count
