"""What only a cluster does to a job: queues it, moves it, ends it, forgets it, does not answer. On a real one."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.domain.lifecycle import Reason
from tests.conformance.world import WAIT_S, World
from tests.support.embedded import wait_until
from tests.support.freezing import freeze
from tests.support.slurm import CPUS, Cluster, submitted
from tests.support.stacks import gone
from workers.backends.base import BackendError, BackendUnavailable, Handle, LaunchRefused, Liveness, Observation

pytestmark = pytest.mark.slow


def test_two_on_a_node_listen_on_ports_of_their_own(world: World, server: tuple[str, ...], cluster: Cluster) -> None:
    where = {"nodelist": cluster.nodes[0]}
    handles = [world.launch("idle", argv=server, options=where) for _ in range(3)]
    seen = [world.wait_for_owner(handle, True) for handle in handles]
    assert len({item.port for item in seen}) == 3
    assert {item.host for item in seen} == {"127.0.0.1"}
    assert {tuple((item.told or {})["nodes"]) for item in seen} == {(cluster.nodes[0],)}
    assert [(item.told or {})["job_id"] for item in seen] == [handle.ref["job_id"] for handle in handles]


def test_two_on_a_node_have_gpus_of_their_own(world: World, cluster: Cluster) -> None:
    say = ("/bin/sh", "-c", 'echo "gpus $CUDA_VISIBLE_DEVICES"; exec sleep 600')
    where = {"nodelist": cluster.nodes[0]}
    handles = [world.launch("idle", argv=say, gpus=(0, 1), options=where) for _ in range(2)]
    told = [wait_until(lambda one=one: list(world.backend.logs(one)), WAIT_S, "its GPUs") for one in handles]
    given = [set(lines[0].removeprefix("gpus ").split(",")) for lines in told]
    assert [len(gpus) for gpus in given] == [2, 2]
    assert not given[0] & given[1]


def test_a_requeued_job_is_queued_again_and_then_elsewhere(
    world: World, server: tuple[str, ...], cluster: Cluster
) -> None:
    handle = world.launch("idle", argv=server, env={"SECRET": "s3cr3t"}, options={"requeue": True})
    first = world.wait_for_owner(handle, True)
    (node,) = (first.told or {})["nodes"]
    cluster.ask("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    cluster.ask("scontrol", "requeue", handle.ref["job_id"])
    again = _next_run(world, cluster, handle, 1)
    assert (again.told or {})["restarts"] == 1
    assert (again.told or {})["nodes"] != [node]
    assert again.pid != first.pid
    assert b"SECRET=s3cr3t" in Path(f"/proc/{again.pid}/environ").read_bytes().split(b"\0")
    world.backend.stop(handle, grace_s=30)
    assert world.wait_for(handle, Liveness.EXITED).reason is None


def test_one_that_slurm_could_not_begin_again_is_told_as_that(world: World, cluster: Cluster) -> None:
    handle = world.launch("idle", options={"requeue": True})
    world.wait_for_line(handle, "started")
    cluster.ask("scontrol", "requeue", handle.ref["job_id"])
    world.wait_for(handle, Liveness.QUEUED)
    # no node can begin it now
    folder = Path(world.options["folder"]) / handle.name
    (folder / "job.py").unlink()
    cluster.hasten(handle.ref["job_id"])
    seen = wait_until(lambda: _gone(world, handle), 60, "its end")
    assert (seen.told or {})["restarts"] == 1
    assert seen.exit_code not in (0, None), seen
    assert "before its run 2 began" in seen.message


def test_a_job_that_was_told_to_be_over_does_not_run_again(world: World, cluster: Cluster) -> None:
    handle = world.launch("end 3", options={"requeue": True})
    assert world.wait_for(handle, Liveness.EXITED).exit_code == 3
    cluster.ask("scontrol", "requeue", handle.ref["job_id"])
    world.wait_for(handle, Liveness.QUEUED)
    cluster.hasten(handle.ref["job_id"])
    seen = wait_until(lambda: _gone(world, handle), 60, "the end of its next run")
    assert (seen.told or {})["restarts"] == 1
    assert world.starts() == 1


def test_a_preempted_job_waits_and_comes_back(world: World, cluster: Cluster) -> None:
    handle = world.launch("idle", options={"requeue": True, "cpus": CPUS, "nodelist": cluster.nodes[0]})
    world.wait_for_line(handle, "started")
    urgent = submitted(
        cluster, "--partition=urgent", f"--cpus-per-task={CPUS}", f"--nodelist={cluster.nodes[0]}", script="sleep 600"
    )
    waiting = world.wait_for(handle, Liveness.QUEUED)
    assert (waiting.told or {})["restarts"] == 1
    assert waiting.reason is None
    cluster.ask("scancel", urgent)
    assert (_next_run(world, cluster, handle, 1).told or {})["restarts"] == 1


def test_one_that_may_not_run_again_ends_preempted(world: World, cluster: Cluster) -> None:
    handle = world.launch("idle", options={"requeue": False, "cpus": CPUS, "nodelist": cluster.nodes[0]})
    urgent = submitted(
        cluster, "--partition=urgent", f"--cpus-per-task={CPUS}", f"--nodelist={cluster.nodes[0]}", script="sleep 600"
    )
    seen = world.wait_for(handle, Liveness.EXITED)
    cluster.ask("scancel", urgent)
    assert seen.reason is Reason.PREEMPTED


@pytest.mark.timeout(240)
def test_the_time_limit_is_told_as_such(world: World, cluster: Cluster) -> None:
    handle = world.launch("stubborn", options={"time_limit": 1})
    job = handle.ref["job_id"]
    cluster.ask("scontrol", "update", f"jobid={job}", "timelimit=0:01")
    seen = wait_until(lambda: _gone(world, handle), 150, "the end of its time")
    assert seen.reason is Reason.WALLTIME
    assert "time limit" in seen.message


def test_a_cancel_behind_our_back_is_seen_and_named(world: World, cluster: Cluster) -> None:
    handle = world.launch("idle")
    world.wait_for_line(handle, "started")
    cluster.ask("scancel", handle.ref["job_id"])
    seen = world.wait_for(handle, Liveness.EXITED)
    assert seen.reason is Reason.CANCELLED
    assert "not by Hostler" in seen.message
    assert not (world.folder / "state" / "slurm" / handle.name / "private").exists()


def test_a_node_that_fails_is_told(world: World, cluster: Cluster) -> None:
    handle = world.launch("idle", options={"requeue": False, "nodelist": cluster.nodes[0]})
    cluster.ask("scontrol", "update", f"nodename={cluster.nodes[0]}", "state=down", "reason=test")
    assert world.wait_for(handle, Liveness.EXITED).reason is Reason.NODE_LOST


def test_a_waiting_job_says_why_and_is_stopped_without_having_run(world: World, cluster: Cluster) -> None:
    holder = submitted(cluster, "--hold", script="true")
    handle = world.backend.launch(world.plan("idle", options={"dependency": f"afterany:{holder}"}))
    seen = world.see(handle)
    assert seen.liveness is Liveness.QUEUED
    assert "Dependency" in wait_until(lambda: world.see(handle).message, WAIT_S, "why it waits")
    assert (seen.told or {})["job_id"] == handle.ref["job_id"]
    world.backend.stop(handle, grace_s=30)
    assert world.wait_for(handle, Liveness.EXITED).reason is None
    assert world.starts() == 0
    cluster.ask("scancel", holder)


def test_a_controller_that_does_not_answer_has_ended_nothing(world: World, cluster: Cluster) -> None:
    handle = world.launch("stubborn")
    world.wait_for_line(handle, "ready")
    cluster.stop("slurmctld")
    seen = world.see(handle)
    assert seen.liveness is Liveness.UNKNOWN
    assert "controller" in seen.message
    never = Handle(world.backend.name, f"{world.prefix}none-1")
    assert world.see(never).liveness is Liveness.UNKNOWN
    with pytest.raises(BackendUnavailable):
        world.backend.stop(never, grace_s=1)
    with pytest.raises(BackendUnavailable):
        world.backend.list_marked(world.prefix)
    # the job reads the wish in its folder: it ends without the controller, and says so itself
    world.backend.stop(handle, grace_s=0, force=True)
    assert world.wait_for(handle, Liveness.EXITED).signal == signal.SIGKILL


def test_a_launch_while_the_controller_is_away_can_be_made_again(world: World, cluster: Cluster) -> None:
    plan = world.plan("idle")
    cluster.stop("slurmctld")
    with pytest.raises(BackendUnavailable):
        world.backend.launch(plan, timeout_s=3)
    with pytest.raises(BackendUnavailable):
        world.backend.adopt(plan.name)
    cluster.repair()
    assert world.backend.adopt(plan.name) is None
    world.wait_for(world.backend.launch(plan), Liveness.RUNNING)
    assert _starts(world) == 1


def test_a_submission_that_arrives_late_starts_nothing_beside_the_next(world: World, cluster: Cluster) -> None:
    """The controller was frozen: it takes the first job when everybody has given it up and submitted another one."""
    plan = world.plan("idle")
    freeze(cluster.running["slurmctld"].pid)
    with pytest.raises(BackendUnavailable):
        world.backend.launch(plan, timeout_s=2)
    # nobody may look meanwhile; whoever comes later finds a name that Slurm may or may not have
    cluster.signal("slurmctld", signal.SIGCONT)
    cluster.wait_ready()
    handle = world.backend.adopt(plan.name) or world.backend.launch(plan)
    world.wait_for(handle, Liveness.RUNNING)
    assert _starts(world) == 1


def test_a_job_that_was_forgotten_without_a_word_is_lost_and_its_secrets_go_when_it_is_given_up(
    world: World, cluster: Cluster
) -> None:
    handle = world.launch("idle", options={"nodelist": cluster.nodes[1], "requeue": False})
    engine = world.wait_for(handle, Liveness.RUNNING).pid
    folder = _forget(world, cluster, handle)
    # as when a node loses its power: nothing is written any more, and Slurm keeps no finished job for ever
    program = psutil.Process(engine).parent()
    assert program is not None
    program.kill()
    wait_until(lambda: gone(program.pid) and gone(engine or 0), WAIT_S, "their end")
    os.utime(folder / "alive", (1, 1))
    seen = world.see(handle)
    assert seen.liveness is Liveness.LOST
    assert "999999" in seen.message
    assert (folder / "private").exists(), "it may turn up again, and then needs them"
    assert world.backend.stop(handle, grace_s=0, force=True).liveness is Liveness.EXITED
    assert not (folder / "private").exists()


def test_a_job_that_the_controller_forgot_is_not_lost_while_it_lives(world: World, cluster: Cluster) -> None:
    handle = world.launch("idle")
    before = world.wait_for(handle, Liveness.RUNNING)
    folder = _forget(world, cluster, handle)
    seen = world.see(handle)
    assert (seen.liveness, seen.pid, seen.port) == (Liveness.RUNNING, before.pid, before.port)
    assert "999999" in seen.message
    assert world.backend.stop(handle, grace_s=0, force=True).liveness in (Liveness.RUNNING, Liveness.EXITED)
    # the wish lies in its folder: Slurm has nobody to tell
    assert world.wait_for(handle, Liveness.EXITED).signal == signal.SIGKILL
    assert not (folder / "private").exists()


def _forget(world: World, cluster: Cluster, handle: Handle) -> Path:
    """As after a controller that lost its state: it knows no job of that id, name or mark. The attempt's folder."""
    folder = world.folder / "state" / "slurm" / handle.name
    wait_until(lambda: (folder / "run.json").exists(), WAIT_S, "its start")
    cluster.ask("scontrol", "update", f"jobid={handle.ref['job_id']}", "jobname=renamed", "comment=other")
    for record in ("job.json", "owner.json"):
        (folder / record).write_text('{"job_id": "999999"}')
    return folder


def test_somebody_elses_job_of_that_name_is_not_ours(world: World, cluster: Cluster) -> None:
    plan = world.plan("idle")
    other = submitted(cluster, f"--job-name={plan.name}", script="sleep 600")
    assert world.backend.adopt(plan.name) is None
    never = Handle(world.backend.name, plan.name)
    assert world.see(never).liveness is Liveness.ABSENT
    assert world.backend.list_marked(world.prefix) == []
    assert world.backend.stop(never, grace_s=0, force=True).liveness.gone
    with pytest.raises(LaunchRefused):
        world.backend.launch(plan)
    assert [job[0] for job in cluster.jobs() if job[1] == plan.name] == [other]
    cluster.ask("scancel", other)


def test_a_job_whose_folder_was_lost_is_an_orphan_that_can_be_stopped(world: World) -> None:
    handle = world.launch("idle")
    folder = world.folder / "state" / "slurm" / handle.name
    os.rename(folder, folder.with_name(".lost"))
    bare = Handle(world.backend.name, handle.name)
    assert world.see(bare).liveness is Liveness.RUNNING
    assert world.backend.list_marked(world.prefix) == [handle.name]
    wait_until(lambda: world.backend.stop(bare, grace_s=0, force=True).liveness.gone, WAIT_S, "its end")


@pytest.mark.parametrize(
    "options, said",
    [
        ({"partition": "nowhere"}, "partition"),
        ({"memory": "900T"}, "configuration"),
        ({"gres": "gpu:99"}, "configuration"),
    ],
)
def test_what_slurm_refuses_is_refused_with_its_words(world: World, options: dict[str, Any], said: str) -> None:
    plan = world.plan("idle", options=options)
    with pytest.raises(LaunchRefused, match=said):
        world.backend.launch(plan)
    assert world.backend.adopt(plan.name) is None


def test_the_script_and_the_folder_tell_no_secret(world: World, cluster: Cluster) -> None:
    secret = "s3cr3t-of-the-engine"
    handle = world.launch("stubborn", env={"ENGINE_KEY": secret}, files={"conf": "x"})
    world.wait_for_line(handle, "ready")
    script = cluster.ask("scontrol", "write", "batch_script", handle.ref["job_id"], "-")
    assert secret not in script
    assert secret not in cluster.ask("scontrol", "show", "job", handle.ref["job_id"])
    folder = world.folder / "state" / "slurm" / handle.name
    key = script.rstrip().splitlines()[-2]
    for path in folder.iterdir():
        assert secret.encode() not in path.read_bytes()
        assert key.encode() not in path.read_bytes()
    world.end(handle)
    assert not (folder / "private").exists()


def test_a_two_node_job_has_one_leader(world: World, cluster: Cluster) -> None:
    handle = world.launch("idle", argv=("/bin/sh", "-c", _LEADER), nodes=2, options={"extra": ["--spread-job"]})
    world.wait_for_line(handle, "rank 0 of 2")
    world.wait_for_line(handle, "rank 1 of 2")
    seen = world.see(handle)
    assert sorted((seen.told or {})["nodes"]) == sorted(cluster.nodes)
    world.end(handle)


def test_a_two_node_job_ends_when_its_other_part_does(world: World) -> None:
    handle = world.launch("idle", argv=("/bin/sh", "-c", '[ "$HOSTLER_NODE_RANK" = 0 ] || exit 5; sleep 600'), nodes=2)
    seen = world.wait_for(handle, Liveness.EXITED)
    assert "another node" in seen.message
    assert seen.reason is None


def test_the_cluster_is_described(world: World, cluster: Cluster) -> None:
    seen = world.backend.fingerprint({"partition": "main"})
    assert seen.healthy
    assert seen.attributes["cpus"] == 2 * CPUS
    assert len(seen.attributes["gpus"]) == 8
    assert set(seen.attributes["partitions"]) == {"main", "urgent", "short"}
    cluster.stop("slurmctld")
    assert not world.backend.fingerprint({}).healthy


def test_json_and_columns_of_this_version_say_the_same(world: World, cluster: Cluster) -> None:
    handle = world.launch("idle")
    told = [
        type(world.backend)(_context(world, squeue=form)).inspect([handle])[0].told or {} for form in ("json", "fixed")
    ]
    assert told[0] == told[1]
    assert told[0]["state"] == "RUNNING"


def test_what_the_shell_says_before_the_engine_begins_is_its_log(world: World) -> None:
    handle = world.launch("idle", options={"setup": ["no-such-module load cuda", "exit 9"]})
    seen = world.wait_for(handle, Liveness.EXITED)
    assert seen.exit_code == 9
    assert "no-such-module" in seen.message
    assert any("no-such-module" in line for line in world.backend.logs(handle))
    assert any("no-such-module" in line for line in world.backend.logs(handle, tail=5))


def test_an_engine_whose_job_lost_its_part_of_ours_does_not_go_on(world: World) -> None:
    handle = world.launch("stubborn")
    world.wait_for_line(handle, "ready")
    engine = world.see(handle).pid
    assert engine is not None
    ours = psutil.Process(engine).parent()
    assert ours is not None
    assert "job.py" in ours.cmdline()
    ours.kill()
    seen = world.wait_for(handle, Liveness.EXITED)
    assert seen.signal == signal.SIGKILL
    assert gone(engine)


def test_a_python_that_is_not_there_is_named(world: World) -> None:
    backend = type(world.backend)(_context(world, python="no-such-python"))
    with pytest.raises(BackendError, match="no-such-python"):
        backend.launch(world.plan("idle"))


_LEADER = 'echo "rank $HOSTLER_NODE_RANK of $HOSTLER_NODES"; exec sleep 600'


def _next_run(world: World, cluster: Cluster, handle: Handle, restarts: int) -> Observation:
    world.wait_for(handle, Liveness.QUEUED)
    cluster.hasten(handle.ref["job_id"])

    def look() -> Observation | None:
        seen = world.see(handle)
        return seen if seen.liveness is Liveness.RUNNING and (seen.told or {}).get("restarts") == restarts else None

    return wait_until(look, 60, f"run {restarts} of {handle.name}; it is {world.see(handle)}")


def _gone(world: World, handle: Handle) -> Observation | None:
    seen = world.see(handle)
    return seen if seen.liveness.gone else None


def _starts(world: World) -> int:
    """Starts by now and after all that may be in the queue has run."""
    wait_until(lambda: world.starts() > 0, WAIT_S, "a start")
    time.sleep(2)  # not for luck: a second job would have been scheduled within one
    return world.starts()


def _context(world: World, **options: Any) -> Any:
    from workers.backends.base import BackendContext

    return BackendContext(state_dir=world.folder / "state", options={**world.options, **options})
