"""Several replicas on one host: each has GPUs and a port of its own, whatever replaces it; wishes change nothing."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from app.usecases import services
from tests.integration.services.serving import Serving

REPLICAS = "inference/vllm-replicas"


def _check(serving: Serving, service: str, *, gpus: int, count: int) -> None:
    """Every process has as many GPUs as it should, and no two the same; each listens on its own leased port."""
    crew = serving.crew
    seen = serving.devices(service)
    assert len(seen) == count
    assert all(len(devices) == gpus for devices in seen.values()), seen
    together = [device for devices in seen.values() for device in devices]
    assert len(together) == len(set(together)), seen
    ports = set()
    for replica, devices in seen.items():
        held = crew.leases(replica)
        assert [str(number) for number in held["gpu"]] == devices, "what it sees is what it is leased"
        (port,) = held["port"]
        (pid,) = crew.engines(replica)
        argv = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        assert argv[argv.index("--port") + 1] == str(port)
        ports.add(port)
    assert len(ports) == count


def test_four_gpus_are_four_replicas_with_a_gpu_each(serving: Serving) -> None:
    wishes = {"VLLM_MODEL": "gpt2", "CUDA_VISIBLE_DEVICES": "0", "VLLM_PORT": "8001", "VLLM_HOST": "0.0.0.0"}
    made = serving.create(REPLICAS, config={"environment": wishes, "base_port": 9001})
    serving.await_task(made)
    _check(serving, made.service_id, gpus=1, count=4)
    told = " ".join(made.warnings)
    for wish in ("CUDA_VISIBLE_DEVICES", "VLLM_PORT", "VLLM_HOST", "base_port"):
        assert wish in told, made.warnings
    shown = serving.get(made.service_id)
    assert sorted(number for one in shown["replicas"] for number in one["gpus"]) == [0, 1, 2, 3]
    serving.end(made.service_id)


def test_two_gpus_each_are_two_replicas(serving: Serving) -> None:
    made = serving.create(REPLICAS, config={"resources": {"gpu": "4"}, "gpu_per_replica": 2})
    serving.await_task(made)
    _check(serving, made.service_id, gpus=2, count=2)
    serving.end(made.service_id)


def test_what_replaces_a_dead_one_gets_its_gpu_and_nobody_elses(serving: Serving) -> None:
    crew = serving.crew
    made = serving.create(REPLICAS, all_or_nothing=True)
    serving.await_task(made)
    for _ in range(2):
        before = serving.ids(made.service_id, "ready")
        (pid,) = crew.engines(before[0])
        os.kill(pid, signal.SIGKILL)
        crew.await_released(before[0])
        now = serving.await_settled(made.service_id, 4)
        assert set(before[1:]) < set(now), "only the dead one was replaced"
        _check(serving, made.service_id, gpus=1, count=4)
    assert [row.replaces for row in serving.members(made.service_id)].count(None) == 4
    serving.end(made.service_id)


def test_an_update_of_all_never_shares_a_gpu(serving: Serving) -> None:
    made = serving.create(REPLICAS, config={"resources": {"gpu": 3}}, update={"max_surge": 1})
    serving.await_task(made)
    _check(serving, made.service_id, gpus=1, count=3)
    before = set(serving.ids(made.service_id))
    body = {"config": {"environment": {"VLLM_MAX_MODEL_LEN": "2048"}}}
    updated = services.update(serving.crew.ctx, serving.crew.actor, made.service_id, body)
    serving.await_task(updated)
    now = serving.await_settled(made.service_id, 3)
    assert not before & set(now)
    _check(serving, made.service_id, gpus=1, count=3)
    shared = serving.crew.rows(
        "WITH held AS (SELECT l.* FROM leases l JOIN attempts a ON a.id = l.attempt_id"
        "     JOIN service_members m ON m.replica_id = a.replica_id WHERE l.kind = 'gpu' AND m.service_id = :id)"
        " SELECT one.number, one.holder, other.holder FROM held one JOIN held other ON other.number = one.number"
        " AND other.id > one.id AND coalesce(one.released_at, 'infinity') > other.acquired_at",
        id=made.service_id,
    )
    assert shared == [], "a GPU was another's at the same time"
    serving.end(made.service_id)


def test_a_cpu_only_service_sees_no_gpu(serving: Serving) -> None:
    body = {"environment": {"VLLM_MODEL": "gpt2"}, "resources": {"nodes": 1, "cpu": "4", "memory": "16G", "gpu": None}}
    made = serving.create("inference/vllm-single-node", config=body)
    serving.await_task(made)
    (replica,) = serving.ids(made.service_id, "ready")
    assert serving.environ(replica).get("CUDA_VISIBLE_DEVICES", "") == ""
    assert "gpu" not in serving.crew.leases(replica)
    serving.end(made.service_id)
