"""Who is launched when: positions, priorities, full and draining pools, new pools, GPUs, waits that run out."""

from __future__ import annotations

import time

import pytest

from app.usecases import pools
from app.usecases.explain import explain
from tests.support.crew import Crew, add_pool


def test_a_full_pool_queues_and_says_the_position(crew: Crew) -> None:
    first = crew.create(pool="one-slot")
    crew.await_ready(first)
    waiting = [crew.create(pool="one-slot") for _ in range(3)]
    assert [explain(crew.ctx, one)["position"] for one in waiting] == [1, 2, 3]
    found = explain(crew.ctx, waiting[0])
    assert (found["rule"], found["status"]) == ("pool_full", "pending")
    assert crew.stop_replica(waiting[1]).task_id
    assert [explain(crew.ctx, one)["position"] for one in (waiting[0], waiting[2])] == [1, 2]
    # a slot that comes free is taken at once, not by the next sweep
    begun = time.monotonic()
    crew.stop_replica(first)
    crew.await_ready(waiting[0])
    assert time.monotonic() - begun < 5
    crew.stop_replica(waiting[2])
    crew.end(waiting[0])


def test_priorities_are_exact(crew: Crew) -> None:
    crew.change("UPDATE pools SET state = 'draining' WHERE name = 'ordered'")
    wanted = {}
    for priority in ("p3", "p1", "p2", "p0", "p1"):
        wanted.setdefault(priority, []).append(crew.create(pool="ordered", job={"job_priority": priority}))
    crew.change("UPDATE pools SET state = 'active' WHERE name = 'ordered'")
    order = [one for priority in sorted(wanted) for one in wanted[priority]]
    for replica in order:
        crew.await_ready(replica)
        crew.end(replica)
    launched = crew.rows(
        "SELECT replica_id FROM attempts WHERE replica_id = ANY(:ids) ORDER BY launching_at", ids=order
    )
    assert [row.replica_id for row in launched] == order


def test_a_draining_pool_starts_nothing_and_stops_nothing(crew: Crew) -> None:
    running = crew.create(pool="drained")
    crew.await_ready(running)
    pools.set_state(crew.ctx, crew.actor, "drained", "draining")
    waiting = crew.create(pool="drained")
    crew.ctx.doorbell.ring_now("create", "pool.drained", pool="drained")
    # the next sweeps ring too: after two of them nothing has happened
    ticks = crew.rows("SELECT count(*) FROM sweeps")[0][0]
    crew.await_that(lambda: crew.rows("SELECT count(*) FROM sweeps")[0][0] >= ticks + 2, "two more sweeps")
    assert crew.replica(waiting).state == "pending"
    assert explain(crew.ctx, waiting)["rule"] == "pool_draining"
    assert crew.replica(running).state == "ready"
    pools.set_state(crew.ctx, crew.actor, "drained", "active")
    crew.await_ready(waiting)
    crew.end(running, waiting)


def test_a_new_pool_is_served_within_five_seconds_without_a_restart(crew: Crew) -> None:
    name = f"new-{int(time.time())}"
    begun = time.monotonic()
    pools.create(crew.ctx, crew.actor, {"name": name, "backend": "process", "slots": 2})
    replica = crew.create(pool=name)
    crew.await_ready(replica)
    assert time.monotonic() - begun < 5, crew.story(replica)
    crew.end(replica)


def test_fewer_slots_stop_nothing_and_are_never_exceeded_again(crew: Crew) -> None:
    name = f"resized-{int(time.time())}"
    add_pool(crew, name, "mock", 3)
    three = [crew.create(pool=name) for _ in range(3)]
    for one in three:
        crew.await_ready(one)
    three.sort(key=lambda replica: crew.leases(replica)["slot"])
    pools.update(crew.ctx, crew.actor, name, {"slots": 1})
    waiting = crew.create(pool=name)
    # slot 0 stays, but two more run than there are slots: what it held is not given out again yet
    for one in three[:2]:
        crew.end(one)
        assert crew.replica(waiting).state == "pending"
        assert explain(crew.ctx, waiting)["rule"] == "pool_full"
    assert crew.replica(three[2]).state == "ready"
    crew.end(three[2])
    crew.await_ready(waiting)
    crew.end(waiting)


def test_more_slots_are_used_at_once(crew: Crew) -> None:
    name = f"grown-{int(time.time())}"
    add_pool(crew, name, "mock", 1)
    first, waiting = (crew.create(pool=name) for _ in range(2))
    crew.await_ready(first)
    assert crew.replica(waiting).state == "pending"
    pools.update(crew.ctx, crew.actor, name, {"slots": 2})
    crew.await_ready(waiting)
    crew.end(first, waiting)


def test_gpus_come_by_lease_and_nobody_shares_them(crew: Crew) -> None:
    script = (
        "import os,http.server,sys\nprint('devices', os.environ['CUDA_VISIBLE_DEVICES'], flush=True)\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        " def do_GET(self): self.send_response(200); self.end_headers()\n"
        "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()"
    )
    body = {"platform_config": {"command": ["python3", "-c", script, "{port}"], "readiness_path": "/"}}
    more = {"mode": "platform_workload", "run_diagnostics": False, **body}
    environment = {"CUDA_VISIBLE_DEVICES": "7"}
    pair = crew.create(resources={"gpus": 2}, environment=environment, **more)
    other = crew.create(resources={"gpus": 2}, **more)
    none = crew.create(**more)
    seen = {}
    for one in (pair, other, none):
        crew.await_ready(one)
        seen[one] = (crew.attempt_folder(one) / "log").read_text().splitlines()[0]
    held = [crew.leases(one).get("gpu", []) for one in (pair, other, none)]
    assert sorted(held[0] + held[1]) == [0, 1, 2, 3]
    assert held[2] == []
    for one, devices in zip((pair, other, none), held, strict=True):
        assert seen[one] == ("devices " + ",".join(map(str, devices))), "a wish is not a lease"
    late = crew.create(resources={"gpus": 1}, **more)
    crew.await_that(lambda: explain(crew.ctx, late)["rule"] == "no_gpu", "the late one waiting for a GPU")
    crew.end(pair)
    crew.await_ready(late)
    crew.end(other, none, late)


def test_a_queue_timeout_ends_what_waits(crew: Crew) -> None:
    first = crew.create(pool="late")
    crew.await_ready(first)
    replica = crew.create(pool="late", timeouts={"queue_timeout_s": 1})
    row = crew.await_released(replica)
    assert (row.state, row.reason) == ("failed", "queue_timeout")
    [task] = crew.tasks(replica)
    assert (task.state, task.reason) == ("failed", "queue_timeout")
    assert crew.rows("SELECT 1 FROM attempts WHERE replica_id = :id", id=replica) == []
    crew.end(first)


def test_a_readiness_timeout_ends_what_never_answers(crew: Crew) -> None:
    replica = crew.create(mock={"startup_s": 60}, timeouts={"readiness_timeout_s": 1})
    row = crew.await_released(replica)
    assert (row.state, row.reason) == ("failed", "readiness_timeout")
    assert crew.engines(replica) == []
    assert crew.tasks(replica)[0].reason == "readiness_timeout"


@pytest.mark.parametrize("pool", ["local", "mock"])
def test_a_lifetime_that_is_over_stops_it(crew: Crew, pool: str) -> None:
    replica = crew.create(pool=pool, job={"job_timeout_s": 1})
    crew.await_ready(replica)
    row = crew.await_released(replica)
    assert (row.state, row.reason) == ("stopped", "lifetime_expired")
    assert crew.tasks(replica)[0].state == "succeeded"


def test_what_can_never_fit_fails_instead_of_holding_up_the_queue(crew: Crew) -> None:
    greedy = crew.create(resources={"gpus": crew.settings.node_gpus + 1})
    behind = crew.create()
    row = crew.await_released(greedy)
    assert (row.state, row.reason) == ("failed", "no_capacity")
    assert "no host has more than 4" in row.message
    assert crew.tasks(greedy)[0].reason == "no_capacity"
    crew.await_ready(behind)
    crew.end(behind)


def test_what_wants_no_gpu_passes_a_head_that_waits_for_them_and_never_delays_it(crew: Crew) -> None:
    name = f"passing-{int(time.time())}"
    pools.create(crew.ctx, crew.actor, {"name": name, "backend": "mock", "slots": 4, "gpus": 2})
    holder = crew.create(pool=name, resources={"gpus": 2})
    crew.await_ready(holder)
    head = crew.create(pool=name, resources={"gpus": 2})
    second = crew.create(pool=name, resources={"gpus": 1})
    plain = [crew.create(pool=name) for _ in range(4)]
    # two of them pass; the last slot is the head's
    for replica in plain[:2]:
        crew.await_ready(replica)
    ticks = crew.rows("SELECT count(*) FROM sweeps WHERE name = 'repair'")[0][0]
    crew.await_that(
        lambda: crew.rows("SELECT count(*) FROM sweeps WHERE name = 'repair'")[0][0] >= ticks + 3, "three more sweeps"
    )
    assert [crew.replica(one).state for one in (head, second, *plain[2:])] == ["pending"] * 4
    free = crew.rows("SELECT 1 FROM units WHERE kind = 'slot' AND scope = :name AND lease_id IS NULL", name=name)
    assert len(free) == 1
    crew.stop_replica(holder, force=True)
    crew.await_ready(head)
    crew.end(head)
    crew.await_ready(second)
    crew.end(second, *plain)


def test_a_pool_without_that_many_gpus_says_so(crew: Crew) -> None:
    name = f"gpus-{int(time.time())}"
    pools.create(crew.ctx, crew.actor, {"name": name, "backend": "mock", "slots": 4, "gpus": 2})
    pair, waiting = (crew.create(pool=name, resources={"gpus": 2}) for _ in range(2))
    greedy = crew.create(pool=name, resources={"gpus": 3})
    crew.await_ready(pair)
    assert sorted(crew.leases(pair)) == ["pool_gpu", "slot"]
    assert explain(crew.ctx, waiting)["rule"] == "no_gpu"
    crew.end(pair)
    crew.await_ready(waiting)
    crew.end(waiting)
    row = crew.await_released(greedy)
    assert (row.state, row.reason) == ("failed", "no_capacity")
    assert "has 2" in row.message
