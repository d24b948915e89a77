"""A pool on a Slurm cluster, of a whole stack: created, asked by the gateway, cancelled behind its back, stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from tests.support import plain_http
from tests.support.embedded import wait_until
from tests.support.slurm import CPUS, Cluster, cluster, submitted
from tests.support.sshd import Sshd, far_host
from tests.support.stacks import Stack, stack

__all__ = ["cluster", "far_host"]

pytestmark = pytest.mark.timeout(300)
SEEN_S = 60


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster, far_host: Sshd) -> Iterator[Stack]:
    """With two pools on the cluster: in one its commands are given here, in the other behind SSH."""
    top = tmp_path_factory.mktemp("on-slurm")
    top.chmod(0o755)
    with stack(top / "state") as started:
        started.up()
        options = [f"--option={name}={value}" for name, value in cluster.options(top / "state" / "slurm").items()]
        started.must("pool", "create", "slurm-gpu", "--backend", "slurm", "--slots", "8", "--gpus", "8", *options)
        options.append(f"--option=ssh={json.dumps(far_host.ssh)}")
        started.must("pool", "create", "slurm-far", "--backend", "slurm", "--slots", "8", "--gpus", "8", *options)
        started.must("model", "make-tiny", "tiny")
        yield started
        started.must("down")
        wait_until(lambda: cluster.jobs() == [], SEEN_S, "no job of ours being left")


def test_the_script_is_shown_before_anything_runs(made: Stack, cluster: Cluster) -> None:
    told = made.call("POST", "/api/v1/replicas", _mock(dry_run=True))
    assert told["placement"]["port"] == "found where it runs"
    assert "#SBATCH --export=NONE" in told["script"]
    assert "exec python3 -I -S job.py" in told["script"]
    assert cluster.jobs() == []


@pytest.mark.parametrize("pool", ["slurm-gpu", "slurm-far"])
def test_a_recipe_runs_there_and_answers_through_the_gateway(made: Stack, cluster: Cluster, pool: str) -> None:
    arguments = ("--pool", pool, "--recipe", "inference/llama-cpp", "--set", "parameters.model=tiny", "--wait")
    replica = made.json("replica", "create", *arguments)["replica_id"]
    seen = made.call("GET", f"/api/v1/replicas/{replica}")
    assert seen["status"] == "ready"
    ((job, name, state),) = cluster.jobs()
    assert (seen["job_id"], state) == (job, "RUNNING")
    assert replica in name
    assert _chat(made, "tiny").json()["choices"][0]["message"]["role"] == "assistant"
    assert made.must("replica", "logs", replica)
    # cancelled behind our back: noticed, typed
    cluster.ask("scancel", job)
    ended = wait_until(lambda: _ended(made, replica), SEEN_S, "the cancel being noticed")
    assert (ended["status"], ended["reason"]) == ("failed", "cancelled")
    assert "not by Hostler" in ended["message"]
    assert made.must("replica", "logs", replica), "still there after the end"


def test_one_that_waits_says_why_and_can_be_stopped(made: Stack, cluster: Cluster) -> None:
    holder = submitted(cluster, "--hold", script="true")
    body = _mock(wait_for_ready=False, replica_config={"backend_options": {"dependency": f"afterany:{holder}"}})
    replica = made.call("POST", "/api/v1/replicas", body, 202)["replica_id"]
    told = wait_until(lambda: _queued(made, replica), SEEN_S, "the cluster's queue being told")
    assert told["status"] == "scheduling"
    made.must("replica", "stop", replica)
    wait_until(lambda: made.state_of(replica) == "stopped", SEEN_S, "its end")
    cluster.ask("scancel", holder)
    assert cluster.jobs() == []


def test_a_service_replaces_what_was_cancelled(made: Stack, cluster: Cluster) -> None:
    body = {"recipe_name": "inference/mock", "name": "kept", "pool": "slurm-gpu", "replicas": 1}
    service = made.call("POST", "/api/v1/services", body, (201, 202))["id"]
    first = wait_until(lambda: _job(cluster), SEEN_S, "its job")
    wait_until(lambda: _running(made, service), SEEN_S, "the service being healthy")
    cluster.ask("scancel", first)
    second = wait_until(lambda: job if (job := _job(cluster)) not in (None, first) else None, SEEN_S, "another job")
    assert second != first
    wait_until(lambda: _running(made, service), SEEN_S, "the service being healthy again")
    made.call("POST", f"/api/v1/services/{service}/status", {"status": "cancelled"}, (200, 202))
    wait_until(lambda: cluster.jobs() == [], SEEN_S, "its jobs being gone")


def test_a_requeued_job_that_runs_again_and_never_answers_fails_in_its_time(
    made: Stack, cluster: Cluster, tmp_path: Path
) -> None:
    # the first run serves; the next ones find its mark and only sleep
    tmp_path.chmod(0o777)
    mark = tmp_path / "ran"
    script = f"test -e {mark} && exec sleep 600; touch {mark}; cd {tmp_path}; exec python3 -m http.server {{port}}"
    body = {
        "server_mode": "platform_workload", "model_name": "w", "pool": "slurm-gpu", "run_diagnostics": False,
        "platform_config": {"command": ["/bin/sh", "-c", script], "readiness_path": "/"},
        "replica_config": {"backend_options": {"requeue": True}}, "timeouts": {"readiness_timeout_s": 15},
    }  # fmt: skip
    replica = made.call("POST", "/api/v1/replicas", body, 201)["replica_id"]
    job = made.call("GET", f"/api/v1/replicas/{replica}")["job_id"]
    cluster.ask("scontrol", "requeue", job)
    seen = wait_until(lambda: _in(made, replica, "unhealthy"), SEEN_S, "the requeue being seen")
    assert (seen["reason"], seen["deadline_at"]) == ("preempted", None), "it waits in the queue as long as that takes"
    cluster.hasten(job)
    seen = wait_until(lambda: _in(made, replica, "waiting_for_ready"), SEEN_S, "its next run being seen")
    assert seen["deadline_at"] is not None
    seen = wait_until(lambda: _in(made, replica, "failed"), SEEN_S, "its time being over")
    assert seen["reason"] == "readiness_timeout"
    wait_until(lambda: cluster.jobs() == [], SEEN_S, "its job being cancelled")


def test_replicas_of_a_recipe_share_one_job_and_its_gpus(made: Stack, cluster: Cluster) -> None:
    body = {"recipe_name": "inference/mock", "name": "together", "pool": "slurm-gpu"}
    body["config"] = {"gpu_per_replica": 1, "resources": {"gpu": 3}, "parameters": {"model": "shared"}}
    service = made.call("POST", "/api/v1/services", body, (201, 202))["id"]
    wait_until(lambda: _running(made, service), SEEN_S, "the service being healthy")
    ((job, _, _),) = cluster.jobs()
    # what the cluster calls it is a name of all of them
    group = made.call("GET", f"/api/v1/service-groups/{job}/status")
    assert (group["total_replicas"], group["healthy_replicas"]) == (3, 3)
    seen = made.call("GET", f"/api/v1/services/{job}")
    assert (seen["id"], seen["job_id"]) == (service, job)
    members = [made.call("GET", f"/api/v1/replicas/{one['replica_id']}") for one in seen["replicas"]]
    assert sorted(one["cluster"]["seat"] for one in members) == [1, 2, 3]
    assert len({one["port"] for one in members}) == 3
    engines = {one["replica_id"]: _engine(one) for one in members}
    assert sorted(one.environ()["CUDA_VISIBLE_DEVICES"] for one in engines.values()) == ["0", "1", "2"]
    assert made.call("GET", f"/api/v1/replicas/{job}", expect=409)["code"] == "conflict"
    assert _chat(made, "shared").json()["choices"]
    # one crashes and is replaced on its seat; the others serve on
    lost = members[1]
    engines.pop(lost["replica_id"]).kill()
    successor = wait_until(lambda: _newcomer(made, service, members), SEEN_S, "its successor")
    wait_until(lambda: _running(made, service), SEEN_S, "the service being healthy again")
    assert made.call("GET", f"/api/v1/replicas/{successor}")["cluster"]["seat"] == lost["cluster"]["seat"]
    assert all(engine.is_running() for engine in engines.values())
    assert [one[0] for one in cluster.jobs()] == [job]
    assert _chat(made, "shared").json()["choices"]
    made.call("POST", f"/api/v1/service-groups/{job}/status", {"status": "cancelled"}, (200, 202))
    wait_until(lambda: cluster.jobs() == [], SEEN_S, "the job being gone")
    wait_until(lambda: _used(made) == 0, SEEN_S, "no GPU being leased")


@pytest.mark.parametrize("reason", ["walltime", "preempted"])
def test_members_of_a_job_that_slurm_ends_are_each_told_why_and_replaced(
    made: Stack, cluster: Cluster, reason: str
) -> None:
    body = {"recipe_name": "inference/mock", "name": f"ended-{reason}", "pool": "slurm-gpu"}
    options = {"requeue": False, "nodelist": cluster.nodes[0]}
    body["config"] = {
        "gpu_per_replica": 1, "resources": {"gpu": 2, "time_limit": 5}, "parameters": {"model": reason},
        "engine_config": {"backend_options": options},
    }  # fmt: skip
    service = made.call("POST", "/api/v1/services", body, (201, 202))["id"]
    wait_until(lambda: _running(made, service), SEEN_S, "the service being healthy")
    ((job, _, _),) = cluster.jobs()
    members = [
        made.call("GET", f"/api/v1/replicas/{one['replica_id']}")
        for one in made.call("GET", f"/api/v1/services/{service}")["replicas"]
    ]
    engines = [_engine(one) for one in members]
    urgent = None
    if reason == "walltime":
        cluster.ask("scontrol", "update", f"jobid={job}", "timelimit=0:01")
    else:
        words = ("--partition=urgent", f"--cpus-per-task={CPUS}", f"--nodelist={cluster.nodes[0]}")
        urgent = submitted(cluster, *words, script="sleep 600")
    for one in members:
        told = wait_until(lambda one=one: _end_of(made, one), 3 * SEEN_S, f"the end of {one['replica_id']} being told")
        assert told["reason"] == reason, told
    if urgent is not None:
        cluster.ask("scancel", urgent)
    assert not any(engine.is_running() for engine in engines)
    wait_until(lambda: _running(made, service), SEEN_S, "the service being healthy again")
    ((successor, _, _),) = [one for one in cluster.jobs() if one[2] == "RUNNING"]
    assert successor != job, "the next ones share a job again"
    assert _chat(made, reason).json()["choices"]
    for one in members:
        log = made.must("replica", "logs", one["replica_id"], "--attempt", str(one["attempt"]))
        assert log.strip(), "kept after its end"
    made.call("POST", f"/api/v1/services/{service}/status", {"status": "cancelled"}, (200, 202))
    wait_until(lambda: cluster.jobs() == [], SEEN_S, "the job being gone")
    wait_until(lambda: _used(made) == 0, SEEN_S, "no GPU being leased")


def test_members_of_a_job_that_slurm_runs_again_wait_with_it_and_are_not_replaced(
    made: Stack, cluster: Cluster
) -> None:
    body = {"recipe_name": "inference/mock", "name": "again", "pool": "slurm-gpu"}
    options = {"requeue": True, "nodelist": cluster.nodes[0]}
    body["config"] = {
        "gpu_per_replica": 1, "resources": {"gpu": 2}, "parameters": {"model": "again"},
        "engine_config": {"backend_options": options},
    }  # fmt: skip
    service = made.call("POST", "/api/v1/services", body, (201, 202))["id"]
    wait_until(lambda: _running(made, service), SEEN_S, "the service being healthy")
    ((job, _, _),) = cluster.jobs()
    members = made.call("GET", f"/api/v1/services/{service}")["replicas"]
    words = ("--partition=urgent", f"--cpus-per-task={CPUS}", f"--nodelist={cluster.nodes[0]}")
    urgent = submitted(cluster, *words, script="sleep 600")
    for one in members:
        told = wait_until(
            lambda one=one: _in(made, one["replica_id"], "unhealthy"), SEEN_S, "the preemption being told"
        )
        assert (told["reason"], told["attempt"]) == ("preempted", 1)
    cluster.ask("scancel", urgent)
    cluster.hasten(job)
    wait_until(lambda: _running(made, service), 2 * SEEN_S, "the service being healthy again")
    after = made.call("GET", f"/api/v1/services/{service}")["replicas"]
    assert [one["replica_id"] for one in after] == [one["replica_id"] for one in members]
    assert {made.call("GET", f"/api/v1/replicas/{one['replica_id']}")["attempt"] for one in after} == {1}
    assert [one[0] for one in cluster.jobs()] == [job]
    assert _chat(made, "again").json()["choices"]
    made.call("POST", f"/api/v1/services/{service}/status", {"status": "cancelled"}, (200, 202))
    wait_until(lambda: cluster.jobs() == [], SEEN_S, "the job being gone")


def test_one_of_a_suspended_job_says_what_its_stop_waits_for(made: Stack, cluster: Cluster) -> None:
    body = _mock(replica_config={"backend_options": {"replicas_per_job": 2}})
    one, other = (made.call("POST", "/api/v1/replicas", body, 201) for _ in range(2))
    assert one["job_id"] == other["job_id"]
    replica, job = one["replica_id"], one["job_id"]
    cluster.ask("scontrol", "suspend", job)
    made.call("POST", f"/api/v1/replicas/{replica}/stop", {"force": True}, 202)
    told = wait_until(lambda: _hindered(made, replica, f"scontrol resume {job}"), SEEN_S, "what it waits for")
    assert (told["status"], told["rule"]) == ("stopping", "stopping")
    assert f"scontrol resume {job}" in made.call("GET", f"/api/v1/replicas/{replica}")["message"]
    cluster.ask("scontrol", "resume", job)
    wait_until(lambda: made.state_of(replica) == "stopped", SEEN_S, "its end")
    wait_until(lambda: made.state_of(other["replica_id"]) == "ready", SEEN_S, "the other one's answer")
    assert [one[0] for one in cluster.jobs()] == [job]
    made.must("replica", "stop", other["replica_id"])
    wait_until(lambda: cluster.jobs() == [], SEEN_S, "the job being gone")


def test_down_ends_what_waits_for_a_next_replica(made: Stack, cluster: Cluster) -> None:
    """The job of a service that was stopped would keep its GPUs for an hour, with nobody left to watch it."""
    options = {"replicas_per_job": 2, "job_stay_s": 3600}
    replica = made.call("POST", "/api/v1/replicas", _mock(replica_config={"backend_options": options}), 201)
    made.must("replica", "stop", replica["replica_id"])
    wait_until(lambda: made.state_of(replica["replica_id"]) == "stopped", SEEN_S, "its end")
    ((job, name, state),) = cluster.jobs()
    assert (replica["job_id"], state) == (job, "RUNNING")
    # who comes back serves again: nothing is ended
    made.must("down", "--keep-replicas")
    assert [one[0] for one in cluster.jobs()] == [job]
    made.up()
    said = made.hostler("down")
    assert said.returncode == 0, said.stderr
    assert f"ending 1 jobs on which no replica was left: {name}" in said.stderr
    wait_until(lambda: cluster.jobs() == [], SEEN_S, "its end")


def _used(made: Stack) -> int:
    """Slots of the pool that are leased; the GPUs go with them."""
    return int(made.call("GET", "/api/v1/pools/slurm-gpu")["slots_used"])


def _newcomer(made: Stack, service: str, known: list[dict[str, Any]]) -> str | None:
    """A replica of the service, or an attempt of one, that is ready and was not among those."""
    before = {(one["replica_id"], one["attempt"]) for one in known}
    for member in made.call("GET", f"/api/v1/services/{service}")["replicas"]:
        seen = made.call("GET", f"/api/v1/replicas/{member['replica_id']}")
        if (seen["replica_id"], seen["attempt"]) not in before and seen["status"] == "ready":
            return str(seen["replica_id"])
    return None


def _hindered(made: Stack, replica: str, words: str) -> dict[str, Any] | None:
    told = made.call("GET", f"/api/v1/replicas/{replica}/explain")
    return told if words in told["message"] else None


def _end_of(made: Stack, replica: dict[str, Any]) -> dict[str, Any] | None:
    """The event of this attempt's failure."""
    seen = made.call("GET", f"/api/v1/replicas/{replica['replica_id']}/events")["events"]
    failures = [one for one in seen if one.get("attempt") == replica["attempt"] and one.get("to_state") == "failed"]
    return failures[0] if failures else None


def _engine(replica: dict[str, Any]) -> psutil.Process:
    """The process that listens where a replica is."""
    for one in psutil.net_connections("tcp"):
        if one.status == psutil.CONN_LISTEN and one.laddr.port == replica["port"] and one.pid:
            return psutil.Process(one.pid)
    raise AssertionError(f"nobody listens on {replica['port']}")


def _mock(**more: Any) -> dict[str, Any]:
    return {"server_mode": "replica_mock", "model_name": "m", "pool": "slurm-gpu", "run_diagnostics": False, **more}


def _chat(made: Stack, model: str) -> httpx2.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}

    def ask() -> httpx2.Response | None:
        answer = plain_http.post(
            f"{made.url}/v1/chat/completions", json=body, headers={"X-API-Key": made.key}, timeout=30, trust_env=False
        )
        return answer if answer.status_code == 200 else None

    return wait_until(ask, SEEN_S, "an answer through the gateway")


def _ended(made: Stack, replica: str) -> dict[str, Any] | None:
    seen = made.call("GET", f"/api/v1/replicas/{replica}")
    return seen if seen["status"] in ("failed", "stopped") else None


def _queued(made: Stack, replica: str) -> dict[str, Any] | None:
    seen = made.call("GET", f"/api/v1/replicas/{replica}/explain")
    return seen if "Dependency" in json.dumps(seen) else None


def _in(made: Stack, replica: str, state: str) -> dict[str, Any] | None:
    seen = made.call("GET", f"/api/v1/replicas/{replica}")
    return seen if seen["status"] == state else None


def _job(cluster: Cluster) -> str | None:
    return next((job for job, _, state in cluster.jobs() if state in ("RUNNING", "PENDING")), None)


def _running(made: Stack, service: str) -> bool:
    return bool(made.call("GET", f"/api/v1/services/{service}/status")["overall_status"] == "healthy")
