"""What Slurm does to a job that several attempts share, each of them sees as with a job of its own."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from app.domain.lifecycle import Reason
from tests.conformance.world import WAIT_S, World
from tests.integration.slurm.members import engine_pids, start_members
from tests.support.embedded import wait_until
from tests.support.slurm import CPUS, Cluster, submitted
from tests.support.stacks import gone
from workers.backends.base import Handle, Liveness, Observation

pytestmark = pytest.mark.slow
#: Slurm looks at time limits twice a minute, and clears a node for another job when it next schedules.
LIMIT_S, CLEARED_S = 150, 60


@pytest.mark.timeout(300)
def test_the_time_limit_is_told_to_each_that_had_not_ended(shared: World, cluster: Cluster) -> None:
    """Also to one that hears SIGTERM and does not go: Slurm kills the job's programs with it."""
    more = {"time_limit": 1, "requeue": True}
    polite = start_members(shared, 2, options=more)
    stubborn = start_members(shared, 1, "stubborn", "ready", options=more)
    own = start_members(shared, 1, options=more)
    handles = [*polite, *stubborn]
    pids = engine_pids(shared, handles)
    shared.end(own[0])
    (job,) = {handle.ref["job_id"] for handle in handles}
    cluster.ask("scontrol", "update", f"jobid={job}", "timelimit=0:01")
    for handle in handles:
        seen = wait_until(lambda one=handle: _ended(shared, one), LIMIT_S, "the end of its time")
        assert seen.reason is Reason.WALLTIME, seen
        assert "time limit" in seen.message
    assert all(map(gone, pids))
    assert shared.see(own[0]).reason is None, "it was stopped before"
    assert "started" in list(shared.backend.logs(polite[0]))
    assert "ready" in list(shared.backend.logs(stubborn[0]))
    # whoever replaces it gets another job, and no secret of theirs is kept
    (after,) = start_members(shared, 1, options=more)
    assert after.ref["job_id"] != job
    assert not any((_folder(shared, handle) / "private").exists() for handle in handles)
    assert shared.starts() == 5


def test_a_preempted_job_waits_and_comes_back_with_all(shared: World, cluster: Cluster) -> None:
    handles = start_members(shared, 3, options={"requeue": True, "cpus": CPUS // 4, "nodelist": cluster.nodes[0]})
    pids = engine_pids(shared, handles)
    os.kill(pids[2], signal.SIGKILL)
    shared.wait_for(handles[2], Liveness.EXITED)
    before = shared.starts()
    urgent = _urgent(cluster)
    for handle in handles[:2]:
        seen = _becomes(shared, handle, Liveness.QUEUED)
        assert ((seen.told or {})["restarts"], seen.reason) == (1, None)
    assert all(map(gone, pids))
    cluster.ask("scancel", urgent)
    cluster.hasten(handles[0].ref["job_id"])
    for handle in handles[:2]:
        _becomes(shared, handle, Liveness.RUNNING)
    wait_until(lambda: shared.starts() == before + 2, WAIT_S, "a start more of each")
    assert set(engine_pids(shared, handles[:2])).isdisjoint(pids)
    assert shared.see(handles[2]).signal == signal.SIGKILL
    assert list(shared.backend.logs(handles[0])).count("started") == 2, "of both runs"


def test_one_that_may_not_run_again_ends_preempted_for_each(shared: World, cluster: Cluster) -> None:
    more = {"requeue": False, "cpus": CPUS // 4, "nodelist": cluster.nodes[0]}
    handles = [*start_members(shared, 2, options=more), *start_members(shared, 1, "stubborn", "ready", options=more)]
    pids = engine_pids(shared, handles)
    urgent = _urgent(cluster)
    for handle in handles:
        assert _becomes(shared, handle, Liveness.EXITED).reason is Reason.PREEMPTED
    cluster.ask("scancel", urgent)
    assert all(map(gone, pids))
    assert shared.starts() == 3


def _urgent(cluster: Cluster) -> str:
    """A job of somebody else's for which the first node is cleared."""
    words = ("--partition=urgent", f"--cpus-per-task={CPUS}", f"--nodelist={cluster.nodes[0]}")
    return submitted(cluster, *words, script="sleep 600")


def _becomes(world: World, handle: Handle, wanted: Liveness) -> Observation:
    look = lambda: seen if (seen := world.see(handle)).liveness is wanted else None  # noqa: E731
    return wait_until(look, CLEARED_S, f"{handle.name} being {wanted}")


def _ended(world: World, handle: Handle) -> Observation | None:
    seen = world.see(handle)
    return seen if seen.liveness.gone else None


def _folder(world: World, handle: Handle) -> Path:
    return Path(world.options["folder"]) / handle.name
