"""What its cluster queued again after it had served: exempt while it waits there, held to its time once it runs."""

from __future__ import annotations

from functools import partial

import pytest

from app.usecases import services
from app.usecases.explain import explain
from tests.support.site import POOL, Site

#: Beginning with its second run it takes for ever to become ready.
MUTE = {"timeouts": {"readiness_timeout_s": 50}}


def silence(site: Site, replica: str) -> None:
    """Its next run is there and says nothing: it listens nowhere."""
    site.cluster.say(site.name(replica), liveness="running", host="127.0.0.1", port=1, message="")


def test_one_that_runs_again_and_never_answers_fails_when_its_time_is_over(site: Site) -> None:
    replica = site.ready(**MUTE)
    site.cluster.requeue(site.name(replica))
    site.look()
    site.change("UPDATE clock SET shift = shift + interval '1 hour'")
    site.look()
    row = site.replica(replica)
    assert (row.state, row.reason, row.deadline_at) == ("unhealthy", "preempted", None), "its cluster will run it"
    silence(site, replica)
    row = site.look_until(replica, "waiting_for_ready")
    assert row.reason == "preempted"
    assert row.deadline_at is not None
    found = explain(site.ctx, replica)
    assert found["rule"] == "preempted"
    assert "runs again and does not answer" in found["message"]
    site.change("UPDATE clock SET shift = shift + interval '40 seconds'")
    site.look()
    assert site.replica(replica).state == "waiting_for_ready"
    site.change("UPDATE clock SET shift = shift + interval '11 seconds'")
    assert site.look_until(replica, "failed").reason == "readiness_timeout"
    (site.cluster.folder / f"{site.name(replica)}.said").unlink()
    site.await_that(lambda: site.look() or site.replica(replica).released_at, "its job being cancelled")


@pytest.mark.parametrize("before", ["queued", "running"])
def test_a_cluster_that_falls_silent_meanwhile_neither_stops_nor_restarts_its_clock(site: Site, before: str) -> None:
    replica = site.ready(**MUTE)
    site.cluster.requeue(site.name(replica))
    site.look()
    if before == "running":
        silence(site, replica)
        site.look_until(replica, "waiting_for_ready")
    deadline = site.replica(replica).deadline_at
    site.cluster.set("away")
    row = site.look_until(replica, "unreachable")
    assert row.reason == "preempted"
    site.cluster.set("away", False)
    silence(site, replica)
    row = site.look_until(replica, "waiting_for_ready")
    assert row.deadline_at is not None
    if deadline:
        assert row.deadline_at == deadline
    site.change("UPDATE clock SET shift = shift + interval '51 seconds'")
    assert site.look_until(replica, "failed").reason == "readiness_timeout"
    (site.cluster.folder / f"{site.name(replica)}.said").unlink()
    site.await_that(lambda: site.look() or site.replica(replica).released_at, "its job being cancelled")


def test_one_that_is_queued_a_third_time_waits_its_turn_and_serves_again(site: Site) -> None:
    replica = site.ready(**MUTE)
    site.cluster.requeue(site.name(replica))
    site.look()
    silence(site, replica)
    site.look_until(replica, "waiting_for_ready")
    (site.cluster.folder / f"{site.name(replica)}.said").unlink()
    assert site.look_until(replica, "scheduling").reason == "preempted"
    site.change("UPDATE clock SET shift = shift + interval '1 hour'")
    site.look()
    assert site.replica(replica).state == "scheduling"
    site.cluster.run(site.name(replica))
    row = site.look_until(replica, "ready")
    assert (row.reason, row.deadline_at) == (None, None)
    site.end(replica)


def test_its_service_replaces_it(site: Site) -> None:
    asked = {"recipe_name": "inference/mock", "name": "s", "pool": POOL}
    made = services.create(site.ctx, site.actor, asked, None)
    members = partial(site.members, made.service_id)
    [first] = members()
    site.launch()
    site.look_until(first.id, "ready")
    site.cluster.requeue(site.name(first.id))
    site.look()
    site.change("UPDATE clock SET shift = shift + interval '1 hour'")
    assert [one.id for one in members()] == [first.id], "it waits in its cluster's queue"
    silence(site, first.id)
    site.look_until(first.id, "waiting_for_ready")
    assert [one.id for one in members()] == [first.id], "it has its time to become ready"
    site.change("UPDATE clock SET shift = shift + interval '3 hours'")
    site.look_until(first.id, "failed")
    (site.cluster.folder / f"{site.name(first.id)}.said").unlink()
    site.await_that(lambda: site.look() or site.replica(first.id).released_at, "its job being cancelled")
    second = site.await_that(lambda: next((one for one in members() if one.id != first.id), None), "its successor")
    site.launch()
    site.look_until(second.id, "ready")
    site.end(second.id)
