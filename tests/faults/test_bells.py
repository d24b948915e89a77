"""The broker is only a doorbell: bells that are lost, doubled or reordered, and a Redis that forgets everything."""

from __future__ import annotations

import os
import signal

import redis

from tests.faults.stepper import POOL, SilentBell
from tests.support.crew import Crew


def test_doubled_and_reordered_bells_start_nothing_twice(crew: Crew) -> None:
    """Trap 1: every bell rings ten times, stops before creates, for verbs that nobody asked for."""
    replicas = [crew.create(pool=POOL) for _ in range(4)]
    node = crew.settings.node_name
    for _ in range(10):
        crew.ctx.doorbell.ring_now("stop", f"node.{node}.control", node=node)
        crew.ctx.doorbell.ring_now("restart", f"pool.{POOL}", pool=POOL)
        crew.ctx.doorbell.ring_now("create", f"pool.{POOL}", pool=POOL)
        crew.ctx.doorbell.ring_now("create", f"node.{node}", node=node)
    for replica in replicas:
        crew.await_ready(replica)
    for replica in replicas:
        assert crew.starts(replica) == 1
        assert len(crew.engines(replica)) == 1
        [task] = crew.tasks(replica)
        assert (task.state, task.claims) == ("succeeded", 1)
    crew.end(*replicas)


def test_lost_bells_cost_a_sweep(crew: Crew) -> None:
    bell = crew.ctx.doorbell
    crew.ctx.__dict__["doorbell"] = SilentBell()
    try:
        replica = crew.create(pool=POOL)
        crew.await_ready(replica)
        stop = crew.stop_replica(replica)
        crew.await_released(replica)
        assert crew.await_task(stop.task_id).state == "succeeded"
    finally:
        crew.ctx.__dict__["doorbell"] = bell


def test_redis_flushed_with_creates_queued(crew: Crew) -> None:
    """What was rung before is gone, and what is rung after must still arrive: queues, bindings and all."""
    worker = crew.processes["worker"].pid
    os.killpg(worker, signal.SIGSTOP)
    try:
        replicas = [crew.create(pool=POOL) for _ in range(3)]
        client = broker(crew)
        crew.await_that(lambda: any(POOL in key for key in _keys(client)), "the bells to be in Redis")
        client.flushall()
        client.close()
    finally:
        os.killpg(worker, signal.SIGCONT)
    for replica in replicas:
        crew.await_ready(replica)
        assert crew.starts(replica) == 1
    # bells work again, not only the sweep
    later = crew.create(pool=POOL)
    crew.await_ready(later)
    crew.end(later, *replicas)


def test_redis_cut_off_and_back(crew: Crew) -> None:
    """Pitfall 4: every connection is dropped at once; the same workers go on consuming."""
    pids = {role: process.pid for role, process in crew.processes.items()}
    client = broker(crew)
    client.client_kill_filter(_type="normal", skipme=True)
    client.client_kill_filter(_type="pubsub", skipme=True)
    client.close()
    replica = crew.create(pool=POOL)
    crew.await_ready(replica)
    crew.end(replica)
    assert {role: process.pid for role, process in crew.processes.items() if process.poll() is None} == pids


def broker(crew: Crew) -> redis.Redis:
    return redis.Redis(unix_socket_path=crew.settings.broker_url.removeprefix("redis+socket://"))


def _keys(client: redis.Redis) -> list[str]:
    return [key.decode() for key in client.keys("*")]
