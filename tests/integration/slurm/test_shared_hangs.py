"""A job that several attempts share, whose program hangs or which Slurm suspended: what ends there, and what waits."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from tests.conformance.world import WAIT_S, World
from tests.integration.slurm.members import engine_pids, job_folder, start_members
from tests.support.embedded import wait_until
from tests.support.slurm import Cluster
from tests.support.stacks import gone
from workers.backends.base import Handle, Liveness, Observation

pytestmark = pytest.mark.slow
#: Without a program there that hears a signal, what a member is to heed it finds when it next looks for files.
FOUND_S = 3 * WAIT_S


def test_one_is_stopped_while_the_jobs_program_hangs_and_the_others_go_on(shared: World, cluster: Cluster) -> None:
    handles = start_members(shared, 3)
    pids = engine_pids(shared, handles)
    supervisor = _frozen(shared, handles[0], pids[0])
    seen = shared.backend.stop(handles[0], grace_s=30)
    assert not seen.liveness.gone, "its engine may run"
    wait_until(lambda: gone(pids[0]), FOUND_S, "its end, by its own part of the job")
    _grow_old(shared, handles[0])
    assert _ended(shared, handles[0], FOUND_S).reason is None
    seats = job_folder(shared, handles[0]) / "seats"
    assert len(list(seats.iterdir())) == 2
    assert engine_pids(shared, handles[1:]) == pids[1:]
    # nobody would begin a newcomer there
    (after,) = start_members(shared, 1)
    assert after.ref["job_id"] != handles[0].ref["job_id"]
    supervisor.resume()
    # thawed it takes nothing back, and serves the seat again
    (job,) = {handle.ref["job_id"] for handle in handles}
    wait_until(lambda: _joined(shared, job), FOUND_S, "a newcomer on the seat")
    assert engine_pids(shared, handles[1:]) == pids[1:]
    assert shared.see(handles[0]).liveness is Liveness.EXITED
    assert not gone(supervisor.pid)


def test_one_that_crashes_while_the_jobs_program_hangs_is_seen_to_have(shared: World) -> None:
    handles = start_members(shared, 2)
    pids = engine_pids(shared, handles)
    _frozen(shared, handles[0], pids[0])
    os.kill(pids[0], signal.SIGKILL)
    _grow_old(shared, handles[0])
    assert _ended(shared, handles[0], FOUND_S).signal == signal.SIGKILL
    assert engine_pids(shared, handles[1:]) == pids[1:]


def test_one_that_had_not_begun_when_the_jobs_program_hung_is_stopped(shared: World) -> None:
    handles = start_members(shared, 1)
    _frozen(shared, handles[0], engine_pids(shared, handles)[0])
    late = shared.backend.launch(shared.plan("idle"))
    assert late.ref["job_id"] == handles[0].ref["job_id"]
    assert not shared.backend.stop(late, grace_s=30).liveness.gone
    _grow_old(shared, late)
    assert shared.see(late).liveness is Liveness.EXITED
    assert shared.starts() == 1


def test_a_hanging_program_that_nobody_has_a_seat_of_is_ended(shared: World, cluster: Cluster) -> None:
    handles = start_members(shared, 2)
    pids = engine_pids(shared, handles)
    _frozen(shared, handles[0], pids[0])
    for handle in handles:
        shared.backend.stop(handle, grace_s=3600)
    wait_until(lambda: all(map(gone, pids)), FOUND_S, "their ends")
    _grow_old(shared, handles[0])
    for handle in handles:
        assert _ended(shared, handle, FOUND_S).reason is None
    wait_until(lambda: cluster.jobs() == [], 60, "the job's end")


def test_one_whose_own_part_hangs_too_says_so_and_ends_with_the_job(shared: World, cluster: Cluster) -> None:
    handles = start_members(shared, 2)
    pids = engine_pids(shared, handles)
    part = psutil.Process(pids[0]).parent()
    assert part is not None
    supervisor = _frozen(shared, handles[0], pids[0])
    part.suspend()
    _grow_old(shared, handles[0])
    seen = shared.backend.stop(handles[0], grace_s=0, force=True)
    assert not seen.liveness.gone
    assert f"scancel {handles[0].ref['job_id']}" in seen.hindrance
    assert shared.see(handles[1]).hindrance == "", "nobody asked it to end"
    supervisor.resume()
    shared.wait_for(handles[0], Liveness.EXITED)
    assert gone(pids[0])
    assert engine_pids(shared, handles[1:]) == pids[1:]


def test_one_of_a_suspended_job_says_what_it_waits_for(shared: World, cluster: Cluster) -> None:
    handles = start_members(shared, 2)
    pids = engine_pids(shared, handles)
    job = handles[0].ref["job_id"]
    cluster.ask("scontrol", "suspend", job)
    seen = shared.backend.stop(handles[0], grace_s=0, force=True)
    assert not seen.liveness.gone
    assert f"scontrol resume {job}" in seen.hindrance
    assert shared.see(handles[1]).hindrance == ""
    assert not any(map(gone, pids))
    cluster.ask("scontrol", "resume", job)
    assert _ended(shared, handles[0], FOUND_S).reason is None
    assert gone(pids[0])
    assert engine_pids(shared, handles[1:]) == pids[1:]


def test_a_suspended_job_ends_when_all_on_it_are_to(shared: World, cluster: Cluster) -> None:
    handles = start_members(shared, 2)
    pids = engine_pids(shared, handles)
    cluster.ask("scontrol", "suspend", handles[0].ref["job_id"])
    seen = [shared.backend.stop(handle, grace_s=0, force=True) for handle in handles]
    assert [bool(one.hindrance) for one in seen] == [True, False], "the second one leaves nobody to wait for"
    for handle in handles:
        assert _ended(shared, handle, 60).reason is None
    assert all(map(gone, pids))
    wait_until(lambda: cluster.jobs() == [], 60, "the job's end")


def _frozen(world: World, handle: Handle, engine: int) -> psutil.Process:
    """The job's program on its node, which hangs from now on."""
    supervisor = psutil.Process(engine).parents()[1]
    assert any("share.pyz" in word for word in supervisor.cmdline())
    assert (job_folder(world, handle) / "alive").exists()
    supervisor.suspend()
    return supervisor


def _grow_old(world: World, handle: Handle) -> None:
    """As if it had hung for an hour."""
    os.utime(job_folder(world, handle) / "alive", (1, 1))


def _ended(world: World, handle: Handle, within_s: float) -> Observation:
    look = lambda: seen if (seen := world.see(handle)).liveness.gone else None  # noqa: E731
    return wait_until(look, within_s, f"the end of {handle.name}")


def _joined(world: World, job: str) -> bool:
    """Whether a launch gets a seat of it; elsewhere it is ended again."""
    handle = world.backend.launch(world.plan("idle"))
    if handle.ref["job_id"] == job:
        world.wait_for(handle, Liveness.RUNNING)
        return True
    world.end(handle)
    return False
