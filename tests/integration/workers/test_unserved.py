"""What runs on no host of ours, and nobody is left to look at: unreachable until an agent of its pool is back."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from app.db.repos import routes
from app.usecases import presence, services, silent_nodes
from app.usecases.explain import explain
from app.usecases.presence import NodeFacts
from tests.support.site import POOL, Site


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silent_nodes, "PROOF_S", 0.0)


def serve(site: Site, node: str, pools: str) -> None:
    """An agent of that host says that it is there and which pools it serves."""
    here = replace(site.ctx, settings=replace(site.settings, node_name=node, node_pools=pools))
    presence.register_node(here, NodeFacts(4, 2**30, [], "boot", "0.4.0"))


def silence(site: Site, *nodes: str) -> None:
    """They were not heard of for an hour, and a sweep after that."""
    site.change(
        "UPDATE nodes SET heartbeat_at = hostler_now() - interval '1 hour' WHERE name = ANY(:names)", names=list(nodes)
    )
    silent_nodes.judge_silent_nodes(site.ctx)
    silent_nodes.judge_silent_nodes(site.ctx)


def routed(site: Site) -> list[tuple[str, str]]:
    with site.ctx.database.read() as connection:
        return [(one.id, one.state) for one in routes.members(connection)]


def test_without_an_agent_of_its_pool_it_is_unreachable_and_comes_back_by_itself(site: Site) -> None:
    serve(site, "a", "cluster")
    serve(site, "b", "cluster,local")
    serve(site, "other", "local")
    replica, slow = site.ready(), site.create(replica_config={"mock": {"startup_s": 600}})
    site.launch()
    deadline = site.look_until(slow, "waiting_for_ready").deadline_at
    silence(site, "a")
    assert site.replica(replica).state == "ready", "b looks at it"
    silence(site, "b")
    for one in (replica, slow):
        row = site.replica(one)
        assert row.state == "unreachable"
        assert "no agent serves pool cluster" in row.message
    assert site.replica(slow).deadline_at == deadline
    [told] = site.rows("SELECT pool, node, message FROM events WHERE kind = 'pool_suspect' AND pool = 'cluster'")
    assert (told.pool, told.node) == (POOL, None)
    assert "2 replicas" in told.message
    assert explain(site.ctx, replica)["rule"] == "no_agent"
    assert routed(site) == [(replica, "unreachable")], "requests go on to it"
    assert site.leases(replica)
    assert silent_nodes.judge_silent_nodes(site.ctx) == 0
    serve(site, "b", "cluster")
    site.look_until(replica, "ready")
    site.look_until(slow, "waiting_for_ready")
    assert site.replica(slow).deadline_at == deadline
    site.end(replica)
    site.end(slow)


def test_a_stack_without_any_host_yet_has_lost_nothing(site: Site) -> None:
    replica = site.ready()
    assert silent_nodes.judge_silent_nodes(site.ctx) == 0
    assert site.replica(replica).state == "ready"
    site.end(replica)


def test_its_service_starts_nothing_in_its_place(site: Site) -> None:
    serve(site, "a", "cluster")
    body = {"recipe_name": "inference/mock", "name": "s", "pool": POOL, "replicas": 2}
    made = services.create(site.ctx, site.actor, body, None)
    members = partial(site.members, made.service_id)
    first, second = members()
    site.launch()
    site.launch()
    for one in (first, second):
        site.look_until(one.id, "ready")
    # one of them is not ready yet when its agent goes: its time is over before anybody looks again
    site.cluster.requeue(site.name(second.id))
    site.look()
    site.cluster.say(site.name(second.id), liveness="running", host="127.0.0.1", port=1, message="")
    site.look_until(second.id, "waiting_for_ready")
    silence(site, "a")
    assert {one.state for one in members()} == {"unreachable"}
    site.change("UPDATE clock SET shift = shift + interval '3 hours'")
    silent_nodes.judge_silent_nodes(site.ctx)
    silent_nodes.judge_silent_nodes(site.ctx)
    assert sorted(one.state for one in members()) == ["failed", "unreachable"]
    assert len(members()) == 2, "nobody knows whether it runs"
    (site.cluster.folder / f"{site.name(second.id)}.said").unlink()
    serve(site, "a", "cluster")
    silent_nodes.judge_silent_nodes(site.ctx)
    site.look_until(first.id, "ready")
    site.await_that(lambda: site.look() or site.replica(second.id).released_at, "the second being gone")
    third = site.await_that(lambda: next((one for one in members() if one.state == "pending"), None), "its successor")
    assert len(members()) == 3
    site.launch()
    site.look_until(third.id, "ready")
    site.end(first.id)
    site.end(third.id)
