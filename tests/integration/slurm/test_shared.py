"""Several attempts in one job, on a real cluster: seats, GPUs, ports, and ends that are each one's own."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.domain.lifecycle import Reason
from tests.conformance.stepping import lines_of, signalled_at
from tests.conformance.world import WAIT_S, World
from tests.integration.slurm.members import engine_pids, job_folder, start_members
from tests.support.embedded import wait_until
from tests.support.slurm import Cluster, submitted
from tests.support.stacks import gone
from workers.backends.base import BackendContext, Handle, Launch, LaunchRefused, Liveness
from workers.backends.slurm import SlurmBackend

pytestmark = pytest.mark.slow
SAY_GPUS = ("/bin/sh", "-c", 'echo "gpus $CUDA_VISIBLE_DEVICES"; exec sleep 600')
SECRET = "s3cr3t-of-one-of-them"


@pytest.fixture
def staying(shared: World, cluster: Cluster) -> Iterator[World]:
    """Jobs wait for their next replica longer than any test does."""
    shared.options = {**shared.options, "job_stay_s": 3600}
    yield shared
    cluster.repair()
    for name in shared.backend.list_marked(shared.prefix):
        shared.end(Handle(shared.backend.name, name))
    _backend(shared).end_idle(shared.prefix)
    wait_until(lambda: cluster.jobs() == [], 60, "the jobs' ends, which a controller that was away hears of late")


def test_members_of_one_job_have_gpus_and_ports_of_their_own(
    shared: World, server: tuple[str, ...], cluster: Cluster
) -> None:
    handles = [shared.backend.launch(shared.plan("idle", argv=SAY_GPUS, gpus=(0,))) for _ in range(4)]
    assert len({handle.ref["job_id"] for handle in handles}) == 1
    assert len(cluster.jobs()) == 1
    told = [wait_until(lambda one=one: list(shared.backend.logs(one)), 2 * WAIT_S, "its GPU") for one in handles]
    assert sorted(lines[0] for lines in told) == [f"gpus {number}" for number in range(4)]
    listening = [shared.launch("idle", argv=server) for _ in range(3)]
    seen = [shared.wait_for_owner(handle, True) for handle in listening]
    assert len({one.port for one in seen}) == 3
    assert {(one.told or {})["job_id"] for one in seen}.isdisjoint({handles[0].ref["job_id"]}), "others ask for less"
    assert sorted((one.told or {})["seat"] for one in seen) == [1, 2, 3]
    assert {(one.told or {})["seats"] for one in seen} == {4}


def test_one_that_ends_leaves_the_others_and_its_seat_to_the_next(shared: World, cluster: Cluster) -> None:
    handles = start_members(shared, 3)
    pids = engine_pids(shared, handles)
    os.kill(pids[1], signal.SIGKILL)
    seen = shared.wait_for(handles[1], Liveness.EXITED)
    assert (seen.signal, seen.reason) == (signal.SIGKILL, None)
    # at the sight of its end the seat is free
    (job,) = cluster.jobs()
    after = shared.launch("idle")
    assert after.ref["job_id"] == job[0] == handles[0].ref["job_id"]
    assert (shared.wait_for(after, Liveness.RUNNING).told or {})["seat"] == 2
    assert shared.see(handles[1]).liveness is Liveness.EXITED
    assert engine_pids(shared, [handles[0], handles[2]]) == [pids[0], pids[2]]


def test_a_stop_ends_one_and_the_last_one_ends_the_job(shared: World, cluster: Cluster) -> None:
    handles = start_members(shared, 3)
    pids = engine_pids(shared, handles)
    shared.end(handles[0])
    assert engine_pids(shared, handles[1:]) == pids[1:]
    shared.backend.stop(handles[1], grace_s=30)
    assert shared.wait_for(handles[1], Liveness.EXITED).reason is None
    assert engine_pids(shared, handles[2:]) == pids[2:]
    assert [state for _, _, state in cluster.jobs()] == ["RUNNING"]
    shared.end(handles[2])
    wait_until(lambda: cluster.jobs() == [], 3 * WAIT_S, "the job's end")
    assert [shared.see(handle).liveness for handle in handles] == [Liveness.EXITED] * 3


def test_a_cancel_of_the_job_is_named_for_each(shared: World, cluster: Cluster) -> None:
    handles = start_members(shared, 3)
    shared.end(handles[2])
    cluster.ask("scancel", handles[0].ref["job_id"])
    for handle in handles[:2]:
        assert shared.wait_for(handle, Liveness.EXITED).reason is Reason.CANCELLED
    assert shared.see(handles[2]).reason is None


def test_a_node_that_fails_is_told_to_each(shared: World, cluster: Cluster) -> None:
    handles = start_members(shared, 2, options={"requeue": False, "nodelist": cluster.nodes[0]})
    cluster.ask("scontrol", "update", f"nodename={cluster.nodes[0]}", "state=down", "reason=test")
    for handle in handles:
        assert shared.wait_for(handle, Liveness.EXITED).reason is Reason.NODE_LOST


def test_a_job_that_the_controller_forgot_is_not_lost_while_it_lives(shared: World, cluster: Cluster) -> None:
    handles = start_members(shared, 2)
    pids, share = engine_pids(shared, handles), job_folder(shared, handles[0])
    cluster.ask("scontrol", "update", f"jobid={handles[0].ref['job_id']}", "jobname=renamed", "comment=other")
    for folder in (share, *(share.parent.parent / handle.name for handle in handles)):
        for record in ("job.json", "owner.json"):
            (folder / record).write_text('{"job_id": "999999"}')
    assert engine_pids(shared, handles) == pids
    shared.backend.stop(handles[0], grace_s=30)
    # somebody else's record by now: the seat is left, and the end is read from what the attempt wrote
    assert shared.wait_for(handles[0], Liveness.EXITED).reason is None
    assert engine_pids(shared, handles[1:]) == pids[1:]
    shared.backend.stop(handles[1], grace_s=30)
    assert shared.wait_for(handles[1], Liveness.EXITED).reason is None


def test_a_requeued_job_runs_all_again_but_those_that_had_ended(shared: World, cluster: Cluster) -> None:
    handles = start_members(shared, 3, options={"requeue": True}, env={"SECRET": SECRET})
    os.kill(engine_pids(shared, handles)[0], signal.SIGKILL)
    shared.wait_for(handles[0], Liveness.EXITED)
    before = shared.starts()
    job = handles[0].ref["job_id"]
    cluster.ask("scontrol", "requeue", job)
    for handle in handles[1:]:
        assert (shared.wait_for(handle, Liveness.QUEUED).told or {})["restarts"] == 1
    # one more is stopped while all wait
    shared.backend.stop(handles[2], grace_s=30)
    assert shared.wait_for(handles[2], Liveness.EXITED).reason is None
    cluster.hasten(job)
    wait_until(lambda: shared.see(handles[1]).liveness is Liveness.RUNNING, 60, "its next run")
    wait_until(lambda: shared.starts() == before + 1, WAIT_S, "one start more")
    pid = engine_pids(shared, handles[1:2])[0]
    assert f"SECRET={SECRET}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert [shared.see(handle).liveness for handle in (handles[0], handles[2])] == [Liveness.EXITED] * 2
    assert shared.see(handles[0]).signal == signal.SIGKILL
    assert shared.starts() == before + 1


def test_a_job_that_waits_and_is_wanted_by_nobody_is_cancelled(shared: World, cluster: Cluster) -> None:
    holder = submitted(cluster, "--hold", script="true")
    plans = [shared.plan("idle", options={"dependency": f"afterany:{holder}"}) for _ in range(2)]
    handles = [shared.backend.launch(plan) for plan in plans]
    assert len({handle.ref["job_id"] for handle in handles}) == 1
    shared.backend.stop(handles[0], grace_s=30)
    assert shared.wait_for(handles[0], Liveness.EXITED).reason is None
    assert shared.see(handles[1]).liveness is Liveness.QUEUED
    shared.backend.stop(handles[1], grace_s=30)
    assert shared.wait_for(handles[1], Liveness.EXITED).reason is None

    def only_the_holder() -> bool:
        shared.backend.list_marked(shared.prefix)  # which tells Slurm again where that was in vain
        return [job[0] for job in cluster.jobs()] == [holder]

    wait_until(only_the_holder, 2 * WAIT_S, "its end")
    cluster.ask("scancel", holder)
    assert shared.starts() == 0


def test_jobs_that_nobody_has_a_seat_of_are_ended_and_no_other(staying: World, cluster: Cluster) -> None:
    """They would wait for the next replica; who launches one afterwards gets a job."""
    idle, used = (start_members(staying, count, gpus=gpus) for count, gpus in ((2, ()), (1, (0,))))
    waiting = staying.backend.launch(staying.plan("idle", options={"begin": "now+1hour"}))
    for handle in idle:
        staying.end(handle)
    (job,) = {handle.ref["job_id"] for handle in idle}
    kept = {used[0].ref["job_id"], waiting.ref["job_id"]}
    assert {one[0] for one in cluster.jobs()} == kept | {job}
    assert _backend(staying).end_idle("hostler-another-") == []
    share = job_folder(staying, idle[0])
    names = [name for one, name, _ in cluster.jobs() if one == job]
    assert _backend(staying).end_idle(staying.prefix) == names
    wait_until(lambda: {one[0] for one in cluster.jobs()} == kept, 2 * WAIT_S, "its end, and only its")
    assert _backend(staying).end_idle(staying.prefix) == []
    assert not (share / "seats").exists()
    assert staying.see(used[0]).liveness is Liveness.RUNNING
    assert staying.see(waiting).liveness is Liveness.QUEUED
    assert [staying.see(handle).reason for handle in idle] == [None, None]
    after = start_members(staying, 1)
    assert after[0].ref["job_id"] not in kept | {job}


def test_a_job_that_was_closed_ends_also_when_slurm_cannot_be_told(staying: World, cluster: Cluster) -> None:
    (handle,) = start_members(staying, 1)
    supervisor = psutil.Process(engine_pids(staying, [handle])[0]).parents()[1]
    staying.end(handle)
    assert supervisor.is_running()
    cluster.stop("slurmctld")
    (name,) = _backend(staying).end_idle(staying.prefix)
    assert "-shared-" in name
    wait_until(lambda: gone(supervisor.pid), 2 * WAIT_S, "its end by itself")


def test_launches_at_the_instant_in_which_jobs_are_closed_get_one(staying: World, cluster: Cluster) -> None:
    for _ in range(4):
        (first,) = start_members(staying, 1)
        staying.end(first)
        plan = staying.plan("idle")
        launcher = _launched(staying, plan)
        while not (done := os.waitpid(launcher, os.WNOHANG))[0]:
            _backend(staying).end_idle(staying.prefix)
        assert os.waitstatus_to_exitcode(done[1]) == 0
        handle = Handle(staying.backend.name, plan.name)
        staying.wait_for(handle, Liveness.RUNNING)
        assert _backend(staying).end_idle(staying.prefix) == []
        assert staying.see(handle).liveness is Liveness.RUNNING
        staying.end(handle)


def test_a_supervisor_that_was_killed_leaves_no_engine(shared: World) -> None:
    handles = start_members(shared, 2)
    pids = engine_pids(shared, handles)
    member = psutil.Process(pids[0]).parent()
    assert member is not None
    supervisor = member.parent()
    assert supervisor is not None
    assert any("share.pyz" in word for word in supervisor.cmdline())
    supervisor.kill()
    for handle in handles:
        assert shared.wait_for(handle, Liveness.EXITED).liveness is Liveness.EXITED
    assert all(gone(pid) for pid in pids)


def test_a_member_whose_part_of_ours_was_killed_takes_its_engine_along_and_nobody_else(shared: World) -> None:
    handles = start_members(shared, 2)
    pids = engine_pids(shared, handles)
    member = psutil.Process(pids[0]).parent()
    assert member is not None
    assert "job.py" in member.cmdline()
    member.kill()
    seen = shared.wait_for(handles[0], Liveness.EXITED)
    assert seen.signal == signal.SIGKILL
    assert gone(pids[0])
    assert engine_pids(shared, handles[1:]) == pids[1:]


@pytest.mark.parametrize("ended_before", [False, True])
def test_launchers_at_one_instant_share_one_job(shared: World, cluster: Cluster, ended_before: bool) -> None:
    """Also where Slurm is asked about one that has ended: when a job is cancelled, all are replaced at once."""
    if ended_before:
        (last,) = start_members(shared, 1)
        cluster.ask("scancel", last.ref["job_id"])
        shared.wait_for(last, Liveness.EXITED)
        wait_until(lambda: cluster.jobs() == [], WAIT_S, "its end")
    plans = [shared.plan("idle") for _ in range(4)]
    launchers = [_launched(shared, plan) for plan in plans]
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in launchers] == [0] * 4
    handles = [Handle(shared.backend.name, plan.name) for plan in plans]
    seen = [shared.wait_for(handle, Liveness.RUNNING) for handle in handles]
    assert sorted((one.told or {})["seat"] for one in seen) == [1, 2, 3, 4]
    assert len({(one.told or {})["job_id"] for one in seen}) == 1
    assert len(cluster.jobs()) == 1


def test_seats_outlast_launchers_that_die(shared: World, cluster: Cluster) -> None:
    """Whoever is asked again finds the attempt, or launches it anew; nothing starts twice, and no seat has two."""
    first = shared.launch("idle")
    second = shared.plan("idle")
    places = lines_of(lambda: shared.backend.launch(second))
    shared.end(Handle(shared.backend.name, second.name))
    begun = shared.starts()
    for count, place in enumerate(places[-12::2], start=1):
        plan = shared.plan("idle")
        os.waitpid(signalled_at(place, lambda plan=plan: shared.backend.launch(plan), signal.SIGKILL), 0)
        handle = shared.backend.adopt(plan.name) or shared.backend.launch(plan)
        assert (shared.wait_for(handle, Liveness.RUNNING).told or {})["job_id"] == first.ref["job_id"]
        wait_until(lambda count=count: shared.starts() == begun + count, WAIT_S, "one start")
        shared.end(handle)
    assert len(cluster.jobs()) == 1


def test_a_seat_of_nobody_is_started_by_nobody_and_ends_with_the_job(shared: World, cluster: Cluster) -> None:
    """Its launcher died after it had the seat, and the attempt was launched anew."""
    first = shared.launch("idle")
    share = job_folder(shared, first)
    (share / "seats" / "3").write_text('{"name": "nobody-1", "nonce": "gone", "key": {}}')
    second = shared.launch("idle")
    assert len(list((share / "seats").iterdir())) == 3
    assert len(cluster.jobs()) == 1
    for handle in (first, second):
        shared.wait_for(handle, Liveness.RUNNING)
        shared.end(handle)
    assert shared.starts() == 2
    wait_until(lambda: cluster.jobs() == [], 60, "the job's end")


def test_secrets_of_members_lie_sealed(shared: World, cluster: Cluster) -> None:
    handles = start_members(shared, 2, behaviour="stubborn", line="ready", env={"ENGINE_KEY": SECRET})
    script = cluster.ask("scontrol", "write", "batch_script", handles[0].ref["job_id"], "-")
    key = script.rstrip().splitlines()[-2]
    assert len(key) == 64
    root = Path(shared.options["folder"])
    for path in root.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path
            assert key.encode() not in path.read_bytes(), path
    assert SECRET not in script
    shared.end(handles[1])
    assert not (root / handles[1].name / "private").exists()
    assert (root / handles[0].name / "private").exists()


def test_the_job_is_no_orphan_while_it_has_members_and_is_one_when_its_folder_is_lost(
    shared: World, cluster: Cluster
) -> None:
    handles = start_members(shared, 2)
    assert shared.backend.list_marked(shared.prefix) == sorted(handle.name for handle in handles)
    root = Path(shared.options["folder"])
    names = {handle.name for handle in handles}
    os.rename(root / ".shared", root / ".lost")
    ((job, name, _),) = cluster.jobs()
    assert set(shared.backend.list_marked(shared.prefix)) == names | {name}
    assert {(shared.see(handle).told or {})["job_id"] for handle in handles} == {job}
    bare = Handle(shared.backend.name, name)
    wait_until(lambda: shared.backend.stop(bare, grace_s=0, force=True).liveness.gone, WAIT_S, "its end")
    for handle in handles:
        shared.wait_for(handle, Liveness.EXITED)


@pytest.mark.parametrize("shares_too", [False, True])
def test_the_job_is_no_orphan_to_a_pool_with_another_folder(shared: World, tmp_path: Path, shares_too: bool) -> None:
    handles = start_members(shared, 2)
    (top := tmp_path / "another").mkdir()
    options = {**shared.options, "folder": str(top / "slurm")}
    other = World(SlurmBackend(BackendContext(state_dir=tmp_path / "state", options=options)), top, options)
    other.prefix = shared.prefix
    own = [other.launch("idle").name] if shares_too else []
    assert other.backend.list_marked(shared.prefix) == own, "what it finds beside is cancelled with all in it"
    for name in own:
        other.end(Handle(other.backend.name, name))
    assert shared.backend.list_marked(shared.prefix) == sorted(handle.name for handle in handles)


def test_what_is_left_of_a_job_goes_with_its_last_member_or_is_tidied(shared: World) -> None:
    handles = start_members(shared, 2)
    share = job_folder(shared, handles[0])
    for handle in handles:
        shared.end(handle)
    wait_until(lambda: not (share / "seats").exists(), 2 * WAIT_S, "the job being closed")
    shared.backend.close(handles[0])
    assert share.exists()
    shared.backend.close(handles[1])
    assert not share.exists()
    handle = shared.launch("idle")
    share = job_folder(shared, handle)
    shared.end(handle)
    shared.backend.close(handle)
    if share.exists():  # its job waited for a next one
        wait_until(lambda: not (share / "seats").exists(), 2 * WAIT_S, "the job being closed")
        os.utime(share, (1, 1))
        assert shared.backend.tidy() == [f".shared/{share.name}"]
    assert not share.exists()


def test_what_slurm_refuses_is_refused_to_each(shared: World) -> None:
    plans = [shared.plan("idle", gpus=(0, 1)) for _ in range(2)]
    for plan in plans:
        with pytest.raises(LaunchRefused, match="configuration"):
            shared.backend.launch(plan)
        assert shared.backend.adopt(plan.name) is None


def test_others_get_no_seat(shared: World, cluster: Cluster) -> None:
    """Who asks for something else of Slurm, or is of another service."""
    first = shared.launch("idle")
    others: Sequence[dict[str, Any]] = (
        {"options": {"partition": "main"}},
        {"labels": {"service_id": "abc"}},
        {"options": {"cpus": 2}},
    )
    jobs = {shared.launch("idle", **more).ref["job_id"] for more in others}
    assert len(jobs | {first.ref["job_id"]}) == 4
    assert len(cluster.jobs()) == 4


def test_the_controller_is_not_needed_to_end_one(shared: World, cluster: Cluster) -> None:
    handles = start_members(shared, 2)
    cluster.stop("slurmctld")
    shared.backend.stop(handles[0], grace_s=30)
    assert shared.wait_for(handles[0], Liveness.EXITED).reason is None
    assert shared.see(handles[1]).liveness is Liveness.UNKNOWN


def test_too_few_gpus_for_a_seat_are_told(shared: World) -> None:
    first = shared.launch("idle", gpus=(0,), options={"gres": "gpu:1"})
    shared.wait_for(first, Liveness.RUNNING)
    second = shared.backend.launch(shared.plan("idle", gpus=(0,), options={"gres": "gpu:1"}))
    assert "too few" in shared.wait_for(second, Liveness.EXITED).message
    assert shared.see(first).liveness is Liveness.RUNNING


def test_one_sweep_over_many_is_one_question(shared: World, monkeypatch: pytest.MonkeyPatch) -> None:
    handles = [*start_members(shared, 4), *start_members(shared, 2)]
    asked: list[str] = []
    host = shared.backend._host  # type: ignore[attr-defined]
    run = host._transport.run

    def counted(argv: Sequence[str], **more: Any) -> Any:
        asked.append(argv[0])
        return run(argv, **more)

    monkeypatch.setattr(host._transport, "run", counted)
    assert {one.liveness for one in shared.backend.inspect(handles)} == {Liveness.RUNNING}
    assert len(asked) == 1


def test_a_supervisor_that_hangs_is_ended_by_slurm_when_all_on_it_are_to_end(shared: World, cluster: Cluster) -> None:
    handles = start_members(shared, 2)
    pids = engine_pids(shared, handles)
    supervisor = psutil.Process(pids[0]).parents()[1]
    assert any("share.pyz" in word for word in supervisor.cmdline())
    supervisor.suspend()
    for handle in handles:
        shared.backend.stop(handle, grace_s=0, force=True)
    wait_until(lambda: all(map(gone, pids)), WAIT_S, "the engines' end, by their own parts of ours")
    for handle in handles:
        how = lambda handle=handle: shared.backend.stop(handle, grace_s=0, force=True).liveness.gone  # noqa: E731
        wait_until(how, 4 * WAIT_S, "its end")
    wait_until(lambda: cluster.jobs() == [], WAIT_S, "Slurm to have put the job away")


def test_an_end_that_cannot_be_written_is_told_when_it_can_be(shared: World) -> None:
    """Root may write anywhere: a folder in a record's place is what refuses it here, as a full disk does."""
    handles = start_members(shared, 2)
    pids = engine_pids(shared, handles)
    folder, share = Path(shared.options["folder"]) / handles[0].name, job_folder(shared, handles[0])
    (folder / "exit.json").mkdir()
    os.kill(pids[0], signal.SIGKILL)
    wait_until(lambda: gone(psutil.Process(pids[1]).parents()[0].pid) or gone(pids[0]), WAIT_S, "its end")
    wait_until(lambda: "cannot be told yet" in (share / "slurm.out").read_text(), WAIT_S, "a look that met it")
    assert len(list((share / "seats").iterdir())) == 2, "its seat is nobody else's while its end is not told"
    assert not (folder / "over.json").exists()
    (folder / "exit.json").rmdir()
    seen = shared.wait_for(handles[0], Liveness.EXITED)
    assert seen.exit_code == 128 + signal.SIGKILL, "as its own part of the job told it, which could write nothing"
    assert "could not be written" in seen.message
    assert len(list((share / "seats").iterdir())) == 1
    assert engine_pids(shared, handles[1:]) == pids[1:]


def test_what_a_part_of_ours_that_failed_left_behind_is_killed_before_its_seat_is_free(shared: World) -> None:
    code = "import subprocess, time; print(subprocess.Popen(['sleep', '600'], start_new_session=True).pid, flush=True)"
    behind = shared.launch("idle", argv=(sys.executable, "-c", f"{code}; time.sleep(600)"))
    other = start_members(shared, 1)
    lines = wait_until(lambda: list(shared.backend.logs(behind)), 2 * WAIT_S, "what it starts")
    folder = Path(shared.options["folder"]) / behind.name
    # its own program can tell nothing any more, and ends
    (folder / "run.json").unlink()
    (folder / "run.json").mkdir()
    wait_until(lambda: gone(int(lines[0])), 2 * WAIT_S, "the end of what it started")
    (folder / "run.json").rmdir()
    assert shared.wait_for(behind, Liveness.EXITED).liveness is Liveness.EXITED
    assert engine_pids(shared, other)


def test_another_job_of_the_same_number_is_not_its_own(shared: World, cluster: Cluster) -> None:
    """Its launcher died before it wrote the job down; the job's folder went, and the next one has its number."""
    later: dict[str, Any] = {"options": {"begin": "now+1hour"}}
    first = shared.backend.launch(shared.plan("idle", **later))
    plan = shared.plan("idle", **later)
    shared.backend.launch(plan)
    share = job_folder(shared, first)
    (share.parent.parent / plan.name / "job.json").unlink()
    shutil.rmtree(share)
    cluster.ask("scancel", first.ref["job_id"])
    successor = shared.backend.launch(shared.plan("idle", **later))
    assert job_folder(shared, successor) == share
    assert shared.backend.adopt(plan.name) is None
    again = shared.backend.launch(plan)
    assert again.ref["job_id"] == successor.ref["job_id"]
    assert len(list((share / "seats").iterdir())) == 2


def test_a_seat_of_a_job_that_runs_is_taken_before_one_that_waits(shared: World, cluster: Cluster) -> None:
    later: dict[str, Any] = {"options": {"begin": "now+1hour"}}
    waiting = [shared.backend.launch(shared.plan("idle", **later)) for _ in range(4)]
    alone = shared.backend.launch(shared.plan("idle", **later))
    job = alone.ref["job_id"]
    assert {one.ref["job_id"] for one in waiting}.isdisjoint({job})
    cluster.ask("scontrol", "update", f"JobId={job}", "StartTime=now")
    shared.wait_for(alone, Liveness.RUNNING)
    shared.end(waiting[0])
    assert shared.backend.launch(shared.plan("idle", **later)).ref["job_id"] == job


def test_a_replica_on_two_nodes_shares_with_nobody(shared: World) -> None:
    plan = replace(shared.plan("idle"), nodes=2)
    with pytest.raises(LaunchRefused, match="replicas_per_job"):
        shared.backend.launch(plan)


def _backend(world: World) -> SlurmBackend:
    assert isinstance(world.backend, SlurmBackend)
    return world.backend


def _launched(world: World, plan: Launch) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        world.backend.launch(plan)
        status = 0
    finally:
        os._exit(status)
