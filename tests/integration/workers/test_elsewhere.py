"""What runs where its backend decides: queued in a cluster, at a port that is learned, moved, lost, ended behind us."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pytest

from app.usecases import replicas, services, silent_nodes
from app.usecases.explain import explain
from app.usecases.stops import request_stop
from tests.support.elsewhere import ElsewhereBackend
from tests.support.embedded import wait_until
from tests.support.site import POOL, Site
from workers import gc
from workers.backends.base import Handle, Liveness, Observation
from workers.backends.registry import BACKENDS
from workers.bootstrap import Runtime
from workers.launching import launch_best
from workers.orphans import clear_orphans
from workers.stopping import carry_out_stop

QUEUED = ["pending", "scheduling"]
LAUNCHED = [*QUEUED, "preparing", "starting", "waiting_for_ready", "ready"]


def test_it_goes_from_the_cluster_queue_to_a_learned_address_and_is_put_away(site: Site) -> None:
    site.cluster.set("full")
    replica = site.create()
    assert "outcome=starting" in site.launch()
    row = site.replica(replica)
    assert (row.state, row.port, row.node, row.message) == ("scheduling", None, None, "waits for resources")
    attempt = site.attempt(replica)
    assert attempt.launching_at is not None
    assert attempt.backend_ref["ref"]["job_id"] == attempt.job_id
    assert attempt.told["why"] == "Resources"
    site.look()
    assert site.path(replica) == QUEUED
    found = explain(site.ctx, replica)
    assert (found["rule"], found["deadline"]) == ("cluster_queue", None)
    assert "PENDING, Resources" in found["message"]
    assert {"what": "cluster", **attempt.told} in found["evidence"]
    shown = replicas.get(site.ctx, replica)
    assert (shown["job_id"], shown["cluster"]["expected_start"]) == (attempt.job_id, "2030-01-01T00:00:00+00:00")
    assert replicas.id_of_job(site.ctx, attempt.job_id) == replica
    assert replicas.id_of_job(site.ctx, "999999") is None
    site.cluster.run(site.name(replica))
    row = site.look_until(replica, "ready")
    job = site.cluster.job(site.name(replica))
    assert job is not None
    assert (row.host, row.port, row.base_url) == ("127.0.0.1", job["port"], f"http://127.0.0.1:{job['port']}")
    assert (site.attempt(replica).port, site.attempt(replica).told["state"]) == (job["port"], "RUNNING")
    assert site.path(replica) == LAUNCHED
    assert list(site.leases(replica)) == ["slot"], "no port of this host"
    assert row.diagnostics["passed"] is True
    with urllib.request.urlopen(f"{row.base_url}/health") as answer:
        assert answer.status == 200
    site.end(replica)
    assert site.replica(replica).state == "stopped"
    shown = replicas.get(site.ctx, replica)["cluster"]
    assert shown["state"] == "CANCELLED", "the cluster's last word is not that it runs"


def test_a_stop_takes_it_out_of_the_cluster_queue(site: Site) -> None:
    site.cluster.set("full")
    replica = site.create()
    site.launch()
    site.end(replica)
    assert site.path(replica) == [*QUEUED, "stopping", "stopped"]
    job = site.cluster.job(site.name(replica))
    assert job is not None
    assert job["ended"]
    assert job["run"] == 0


def test_a_launcher_that_died_after_it_submitted_loses_and_doubles_nothing(site: Site) -> None:
    site.cluster.set("dies")
    site.cluster.set("full")
    replica = site.create()
    with pytest.raises(SystemExit):
        site.launch()
    assert site.attempt(replica).backend_ref is None
    assert site.attempt(replica).launching_at is not None
    site.cluster.set("dies", False)
    site.change("UPDATE tasks SET not_before = NULL")
    site.launch()
    assert len(site.cluster.list_marked("hostler-")) == 1
    site.cluster.run(site.name(replica))
    site.look_until(replica, "ready")
    assert site.path(replica) == LAUNCHED
    site.end(replica)


def test_a_requeue_changes_the_address_and_nothing_is_sent_to_the_old_one(site: Site) -> None:
    replica = site.ready()
    before = site.replica(replica)
    site.cluster.requeue(site.name(replica))
    site.look()
    row = site.replica(replica)
    assert (row.state, row.reason, row.port, row.base_url) == ("unhealthy", "preempted", None, None)
    site.cluster.run(site.name(replica))
    row = site.look_until(replica, "ready")
    assert row.port not in (None, before.port)
    assert row.base_url.endswith(f":{row.port}")
    assert site.attempt(replica).port == row.port
    assert site.attempt(replica).told["restarts"] == 1
    site.end(replica)


def test_a_move_that_nobody_saw_queued_takes_it_out_until_it_answers_there(site: Site) -> None:
    replica = site.ready()
    before = site.replica(replica)
    site.cluster.requeue(site.name(replica))
    site.cluster.run(site.name(replica))
    site.look()
    row = site.replica(replica)
    assert (row.state, row.reason, row.base_url) == ("unhealthy", "preempted", None)
    row = site.look_until(replica, "ready")
    assert row.port != before.port
    site.end(replica)


def test_a_requeue_before_it_was_ready_waits_its_turn_and_gets_its_time_anew(site: Site) -> None:
    body = {"replica_config": {"mock": {"startup_s": 60}}, "timeouts": {"readiness_timeout_s": 50}}
    replica = site.create(**body)
    site.launch()
    site.look_until(replica, "waiting_for_ready")
    site.cluster.requeue(site.name(replica))
    site.change("UPDATE clock SET shift = shift + interval '40 seconds'")
    site.look()
    row = site.replica(replica)
    assert (row.state, row.reason, row.port, row.deadline_at) == ("scheduling", "preempted", None, None)
    site.change("UPDATE clock SET shift = shift + interval '40 seconds'")
    site.look()
    assert site.replica(replica).state == "scheduling", "the time to become ready does not pass in the queue"
    site.cluster.run(site.name(replica))
    row = site.look_until(replica, "waiting_for_ready")
    assert row.deadline_at is not None
    site.look()
    assert site.replica(replica).state == "waiting_for_ready", "it has all its time again"
    site.change("UPDATE clock SET shift = shift + interval '51 seconds'")
    assert site.look_until(replica, "failed").reason == "readiness_timeout"
    site.await_that(lambda: site.look() or site.replica(replica).released_at, "its job being cancelled")


def test_a_cluster_that_falls_silent_right_after_it_took_the_launch_fails_nothing(site: Site) -> None:
    site.cluster.set("deaf")
    replica = site.create()
    assert "outcome=starting" in site.launch()
    attempt = site.attempt(replica)
    assert attempt.backend_ref["ref"]["job_id"]
    assert site.replica(replica).state == "scheduling"
    site.cluster.set("away", False)
    site.look_until(replica, "ready")
    assert site.path(replica) == LAUNCHED
    site.end(replica)


def test_a_cluster_that_is_away_is_asked_again_and_explain_says_so(site: Site) -> None:
    site.cluster.set("away")
    replica = site.create()
    assert "again in" in site.launch()
    found = explain(site.ctx, replica)
    assert found["rule"] == "launch_retried"
    assert "the cluster cannot be asked" in found["message"]
    site.cluster.set("away", False)
    site.change("UPDATE clock SET shift = shift + interval '1 minute'")
    site.launch()
    site.look_until(replica, "ready")
    assert site.replica(replica).message == ""
    site.end(replica)


def test_a_cluster_that_is_away_for_long_is_asked_until_the_time_to_start_is_over(site: Site) -> None:
    site.cluster.set("away")
    replica = site.create(timeouts={"port_discovery_timeout_s": 600})
    pauses_s = [2, 8, *[32] * 5]
    for pause_s in pauses_s:
        assert f"again in {pause_s} s" in site.launch()
        assert "the cluster cannot be asked" in site.replica(replica).message
        site.change(f"UPDATE clock SET shift = shift + interval '{pause_s} seconds'")
    site.cluster.set("away", False)
    site.launch()
    site.look_until(replica, "ready")
    site.end(replica)
    site.cluster.set("away")
    late = site.create(timeouts={"port_discovery_timeout_s": 600})
    assert "again in 2 s" in site.launch()
    site.change("UPDATE clock SET shift = shift + interval '601 seconds'")
    assert "failed:backend_error" in site.launch()
    assert site.replica(late).message == "the cluster cannot be asked"
    site.cluster.set("away", False)
    site.await_that(lambda: site.look() or site.replica(late).released_at, "its place being returned")


def test_a_stop_is_asked_for_again_when_its_cluster_falls_silent_meanwhile(site: Site) -> None:
    replica = site.ready()
    site.cluster.set("mute")
    request_stop(site.ctx, site.actor, replica, force=True)
    assert "outcome=unreachable" in carry_out_stop(site.runtime, POOL)
    assert site.replica(replica).state == "stopping"
    site.cluster.set("mute", False)
    site.cluster.set("away", False)
    site.await_that(lambda: site.look() or site.replica(replica).released_at, "its end")
    assert site.replica(replica).state == "stopped"


def test_a_stop_at_a_place_that_is_away_holds_no_control_worker(site: Site) -> None:
    replica = site.ready()
    site.cluster.set("away")
    site.look_until(replica, "unreachable")
    request_stop(site.ctx, site.actor, replica)
    site.cluster.set("away", False)
    # it would be heard now, and was not asked
    assert "outcome=unreachable" in carry_out_stop(site.runtime, POOL)
    job = site.cluster.job(site.name(replica))
    assert job is not None
    assert "ended" not in job
    site.await_that(lambda: site.look() or site.replica(replica).released_at, "its end")
    assert site.replica(replica).state == "stopped"


@pytest.mark.parametrize("reason", ["walltime", "preempted", "cancelled", "out_of_memory"])
def test_the_end_has_the_reason_that_the_cluster_tells(site: Site, reason: str) -> None:
    replica = site.ready()
    name = site.name(replica)
    site.cluster.requeue(name)
    site.cluster.say(name, liveness="exited", reason=reason, message=f"the cluster says {reason}")
    site.look()
    row = wait_until(lambda: site.replica(replica) if site.replica(replica).state == "failed" else None, 10, "its end")
    assert (row.reason, row.message) == (reason, f"the cluster says {reason}")
    site.await_released(replica)


def test_what_is_lost_is_unreachable_for_two_sweeps_and_then_given_up(site: Site) -> None:
    replica = site.ready()
    name = site.name(replica)
    site.cluster.say(name, liveness="lost", message="no job, no file")
    for failures in (1, 2):
        site.look()
        row = site.replica(replica)
        assert (row.state, row.check_failures, row.message) == ("unreachable", failures, "no job, no file")
    site.cluster.requeue(name)
    row = site.look_until(replica, "failed")
    assert row.reason == "node_lost"
    site.await_that(lambda: site.look() or site.replica(replica).released_at, "it being given up")
    assert site.leases(replica) == {}


def test_a_cluster_that_cannot_be_asked_proves_nothing(site: Site) -> None:
    replica = site.ready()
    site.cluster.set("away")
    for _ in range(4):
        site.look()
    assert site.replica(replica).state == "unreachable"
    site.cluster.set("away", False)
    site.look_until(replica, "ready")
    site.end(replica)


@pytest.mark.parametrize("full", [True, False], ids=["queued", "running"])
def test_a_forgotten_job_is_adopted_where_it_is(site: Site, full: bool) -> None:
    site.cluster.set("full", full)
    site.change("UPDATE pools SET gpus = 4 WHERE name = 'cluster'")
    site.change("INSERT INTO units (kind, scope, number) SELECT 'pool_gpu', 'cluster', n FROM generate_series(0, 3) n")
    replica = site.create(resources={"gpus": 2})
    site.launch()
    held = site.leases(replica)
    assert len(held["pool_gpu"]) == 2
    job = site.cluster.job(site.name(replica))
    assert job is not None
    assert job["gpus"] == held["pool_gpu"]
    site.change("UPDATE units SET lease_id = NULL; UPDATE leases SET released_at = hostler_now(); DELETE FROM replicas")
    site.runtime.settings = replace(site.runtime.settings, orphans="adopt")
    assert clear_orphans(site.runtime) == 1
    row = site.replica(replica)
    assert (row.state, row.node, row.port) == ("scheduling", None, None)
    assert site.leases(replica)["pool_gpu"] == held["pool_gpu"]
    if full:
        site.look()
        assert site.replica(replica).state == "scheduling"
        site.cluster.run(site.name(replica))
    site.look_until(replica, "ready")
    assert clear_orphans(site.runtime) == 0
    site.end(replica)


def test_what_outlived_its_attempt_is_looked_for_at_every_place_that_a_pool_names(site: Site) -> None:
    site.change(
        "INSERT INTO pools (name, backend, slots, options) VALUES ('south', 'elsewhere', 1, '{\"site\": \"south\"}')"
    )
    site.change("INSERT INTO units (kind, scope, number) VALUES ('slot', 'south', 0)")
    replica = site.create(pool="south")
    assert "outcome=waiting_for_ready" in launch_best(site.runtime, "south")
    south = site.runtime.backend("elsewhere", {"site": "south"})
    assert south.list_marked("hostler-") == [site.name(replica)]
    assert site.cluster.list_marked("hostler-") == [], "each place has its own"
    assert clear_orphans(site.runtime) == 0
    site.change("UPDATE attempts SET released_at = hostler_now()")
    # a place that does not answer hides nothing of the others
    site.cluster.set("away")
    assert clear_orphans(site.runtime) == 1
    assert not site.engines(replica)
    for served, places in (("south", ["south"]), ("cluster", ["here"]), ("local", [])):
        site.runtime.ctx.settings = replace(site.runtime.ctx.settings, node_pools=served)
        found = [one.folder.name for one in site.runtime.places() if isinstance(one, ElsewhereBackend)]
        assert found == places, "only where this host serves the pool"


def test_what_is_left_is_found_by_hand_too(site: Site) -> None:
    replica = site.ready()
    site.change("UPDATE attempts SET released_at = hostler_now()")
    [leak] = [one for one in gc.find(site.runtime) if one.kind == "engine" and one.name == site.name(replica)]
    [gone] = gc.remove(site.runtime, [(leak.kind, leak.name)])
    assert gone.removed
    assert not site.engines(replica)


def test_a_version_that_does_not_know_the_backend_leaves_it_alone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    replica = site.ready()
    known = site.runtime
    site.watch.runtime = newer = Runtime(site.settings, "agent")
    monkeypatch.delitem(BACKENDS, "elsewhere")
    site.look()
    assert site.replica(replica).state == "ready"
    newer.ctx.close()
    monkeypatch.setitem(BACKENDS, "elsewhere", ElsewhereBackend)
    site.watch.runtime = known
    site.end(replica)


def test_the_cluster_queue_has_a_clock_of_its_own(site: Site) -> None:
    site.cluster.set("full")
    replica = site.create(timeouts={"queue_timeout_s": 60})
    patient = site.create()
    site.launch()
    site.launch()
    site.change("UPDATE clock SET shift = shift + interval '61 seconds'")
    row = site.look_until(replica, "failed")
    assert row.reason == "queue_timeout"
    assert site.replica(patient).state == "scheduling"
    site.await_that(lambda: site.look() or site.replica(replica).released_at, "its job being cancelled")
    site.end(patient)


@pytest.mark.parametrize(
    "seen",
    [
        {"liveness": "exited", "reason": "cancelled", "message": "cancelled behind us"},
        {"liveness": "exited", "reason": "walltime", "message": "its time was over"},
        {"liveness": "exited", "reason": "preempted", "message": "preempted"},
        {"liveness": "lost", "message": "nowhere"},
    ],
    ids=["cancelled", "walltime", "preempted", "lost"],
)
def test_a_service_replaces_what_its_cluster_took_away(site: Site, seen: dict[str, str]) -> None:
    made = services.create(site.ctx, site.actor, {"recipe_name": "inference/mock", "name": "s", "pool": POOL}, None)
    members = partial(site.members, made.service_id)
    [first] = members()
    site.launch()
    site.look_until(first.id, "ready")
    job = site.attempt(first.id).job_id
    assert services.get(site.ctx, job)["id"] == made.service_id
    assert services.get(site.ctx, "s")["job_id"] == job
    site.cluster.requeue(site.name(first.id))
    site.cluster.say(site.name(first.id), **seen)
    ended = site.look_until(first.id, "failed")
    assert ended.reason == seen.get("reason", "node_lost")
    second = site.await_that(lambda: next((one for one in members() if one.id != first.id), None), "its successor")
    site.look()
    site.launch()
    site.look_until(second.id, "ready")
    site.await_that(lambda: site.look() or site.replica(first.id).released_at, "the first being gone")
    [running] = [one for one in members() if one.state == "ready"]
    assert running.id == second.id
    assert services.get(site.ctx, "s")["overall_status"] == "healthy"
    site.end(second.id)


def test_a_queue_whose_hosts_are_all_silent_is_waited_in_no_longer_than_was_said(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silent_nodes, "PROOF_S", 0.0)
    site.cluster.set("full")
    replica = site.create(timeouts={"queue_timeout_s": 60})
    site.launch()
    site.change(
        "INSERT INTO nodes (name, pools, heartbeat_at) VALUES"
        " ('served', '{cluster}', hostler_now() - interval '1 hour'),"
        " ('other', '{local}', hostler_now() + interval '1 hour')"
    )
    silent_nodes.judge_silent_nodes(site.ctx)
    assert site.replica(replica).state == "scheduling"
    site.change("UPDATE clock SET shift = shift + interval '61 seconds'")
    site.await_that(lambda: silent_nodes.judge_silent_nodes(site.ctx), "the end")
    row = site.replica(replica)
    assert (row.state, row.reason, row.released_at) == ("failed", "queue_timeout", None)
    site.await_that(lambda: site.look() or site.replica(replica).released_at, "its job being cancelled")


def test_places_are_asked_at_the_same_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not answer holds up no other: here each answers only once both were asked."""
    both = threading.Barrier(2, timeout=20)

    def inspect(backend: ElsewhereBackend, handles: Sequence[Handle], timeout_s: float = 5) -> list[Observation]:
        both.wait()
        return [Observation(Liveness.RUNNING, message=backend.folder.name) for _ in handles]

    monkeypatch.setattr(ElsewhereBackend, "inspect", inspect)
    places = [site.runtime.backend("elsewhere", {"site": name}) for name in ("north", "south")]
    seen = site.watch.inspect_all({place: [Handle("elsewhere", "x")] for place in places})
    assert [seen[place][0].message for place in places] == ["north", "south"]
