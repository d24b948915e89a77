"""A host that is not heard of: what it ran is unreachable, nothing is torn down, and all is as before when it is back.

The proof of silence takes ten real seconds in production; here it is shortened.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.usecases import presence, silent_nodes
from app.usecases.silent_nodes import judge_silent_nodes
from tests.support.crew import Crew
from workers.backends.proc import boot_id


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silent_nodes, "PROOF_S", 0.5)


@pytest.fixture
def agentless(crew: Crew) -> Iterator[Crew]:
    yield crew
    if "agent" not in crew.processes:
        crew.start("agent")
        crew.await_heartbeat("agent")


def test_what_a_silent_host_runs_is_unreachable_until_it_is_back(agentless: Crew) -> None:
    crew = agentless
    serving, waiting = crew.create(), crew.create(mock={"startup_s": 600}, timeouts={"readiness_timeout_s": 500})
    crew.await_ready(serving)
    deadline = crew.await_state(waiting, "waiting_for_ready").deadline_at
    before = crew.engines(serving)
    crew.kill("agent")
    _age(crew)
    assert judge_silent_nodes(crew.ctx) == 0, "an old heartbeat alone proves nothing"
    crew.await_that(lambda: judge_silent_nodes(crew.ctx), "the host to count as silent")
    for replica in (serving, waiting):
        row = crew.replica(replica)
        assert row.state == "unreachable"
        assert crew.settings.node_name in row.message
    assert crew.replica(waiting).deadline_at == deadline
    [told] = crew.rows("SELECT pool, node, message FROM events WHERE kind = 'pool_suspect' AND cause = 'host silent'")
    assert (told.pool, told.node) == ("local", crew.settings.node_name)
    assert "2 replicas" in told.message
    assert set(crew.leases(serving)) == {"slot", "port"}
    crew.start("agent")
    crew.await_heartbeat("agent")
    crew.await_ready(serving)
    crew.await_state(waiting, "waiting_for_ready")
    assert crew.engines(serving) == before
    assert crew.starts(serving) == 1
    crew.end(serving, waiting)


def test_a_launch_on_a_silent_host_ends_at_its_deadline(agentless: Crew) -> None:
    crew = agentless
    replica = crew.create(mock={"startup_s": 600}, timeouts={"readiness_timeout_s": 3})
    crew.await_state(replica, "waiting_for_ready")
    crew.await_that(lambda: crew.tasks(replica)[0].lease_token is None, "its worker to leave it to the agent")
    crew.kill("agent")
    _age(crew)
    crew.await_that(lambda: judge_silent_nodes(crew.ctx) and crew.replica(replica).state == "failed", "its end")
    assert crew.replica(replica).reason == "readiness_timeout"
    assert crew.tasks(replica)[0].state == "failed"
    assert crew.replica(replica).released_at is None, "nobody saw it gone"
    crew.start("agent")
    crew.await_heartbeat("agent")
    crew.await_released(replica)


def test_a_clock_that_jumps_makes_no_host_silent(crew: Crew) -> None:
    replica = crew.create()
    crew.await_ready(replica)
    events = len(crew.events(replica))
    crew.change("UPDATE clock SET shift = interval '1 hour'")
    try:
        # the sweep comes before the next heartbeat
        judge_silent_nodes(crew.ctx)
        assert presence.heartbeat_node(crew.ctx, boot_id(), canary_sent=False)
        assert crew.rows("SELECT attributes FROM nodes")[0].attributes.get("silent") is not None
        crew.await_that(lambda: judge_silent_nodes(crew.ctx) == 0 and not _marked(crew), "the mark to go")
    finally:
        crew.change("UPDATE clock SET shift = interval '0'")
    assert len(crew.events(replica)) == events, crew.story(replica)
    crew.end(replica)


def _age(crew: Crew) -> None:
    crew.change("UPDATE nodes SET heartbeat_at = hostler_now() - interval '1 minute'")


def _marked(crew: Crew) -> bool:
    return "silent" in crew.rows("SELECT attributes FROM nodes")[0].attributes
