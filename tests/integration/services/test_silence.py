"""What cannot be asked is not dead: a silent pool or host gets no replacement, and nothing is doubled when it is back.

The proof of a host's silence takes ten real seconds in production; here it is shortened.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import pytest

from app.usecases import reconciling, silent_nodes
from app.usecases.silent_nodes import judge_silent_nodes
from tests.integration.services.serving import Serving
from tests.support.freezing import freeze

COUNT = 6


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silent_nodes, "PROOF_S", 0.5)


@pytest.fixture
def agentless(serving: Serving) -> Iterator[Serving]:
    """The agent may be killed or frozen in it, and is back afterwards."""
    yield serving
    process = serving.crew.processes.get("agent")
    if process is not None:
        os.kill(process.pid, signal.SIGCONT)
    else:
        serving.crew.start("agent")
        serving.crew.await_heartbeat("agent")


@pytest.mark.parametrize("lost", ["absent", "unknown"])
def test_a_pool_that_falls_silent_at_once_is_not_replaced(serving: Serving, lost: str) -> None:
    crew = serving.crew
    made = serving.create(pool="silent", replicas=COUNT)
    serving.await_task(made)
    members = serving.await_settled(made.service_id, COUNT)
    crew.await_that(lambda: all(crew.replica(one).last_health for one in members), "each to be looked at once")
    before = _suspected(serving)
    _lose(serving, members, {"lose_handle": lost, "fail_fingerprint": True})
    crew.await_that(lambda: _suspected(serving) == before + 1, "a pool_suspect event")
    _looks(serving, members)
    assert serving.ids(made.service_id) == members, serving.told(made.service_id)
    assert {crew.replica(one).state for one in members} <= {"ready", "unreachable"}
    # a scale down meanwhile must not choose by what it cannot know; up is asked of who answers
    _lose(serving, members, {})
    assert sorted(serving.await_settled(made.service_id, COUNT)) == sorted(members)
    assert serving.ids(made.service_id) == members, "nothing was made beside them"
    serving.end(made.service_id)


def test_one_that_falls_silent_alone_is_replaced_once(serving: Serving) -> None:
    crew = serving.crew
    made = serving.create(pool="silent", replicas=COUNT)
    serving.await_task(made)
    members = serving.await_settled(made.service_id, COUNT)
    _lose(serving, members[:1], {"lose_handle": "absent"})
    crew.await_state(members[0], "failed")
    now = serving.await_settled(made.service_id, COUNT)
    assert set(members) - set(now) == {members[0]}
    assert len(serving.ids(made.service_id)) == COUNT + 1
    serving.end(made.service_id)


def test_a_host_that_is_not_heard_of_gets_no_replacement_for_what_died_there_until_it_is_back(
    agentless: Serving,
) -> None:
    crew = agentless.crew
    made = agentless.create(pool="local", replicas=3)
    agentless.await_task(made)
    members = agentless.await_settled(made.service_id, 3)
    engines = {one: crew.engines(one) for one in members}
    crew.kill("agent")
    _fall_silent(agentless)
    for one in members:
        assert crew.replica(one).state == "unreachable"
    os.kill(engines[members[0]][0], signal.SIGKILL)
    # the reconcilers that are left look again and again, and leave it alone
    for _ in range(5):
        crew.change("UPDATE services SET look_at = hostler_now() WHERE id = :id", id=made.service_id)
        reconciling.sweep(crew.ctx)
    assert agentless.ids(made.service_id) == members, agentless.told(made.service_id)
    crew.start("agent")
    crew.await_heartbeat("agent")
    now = agentless.await_settled(made.service_id, 3)
    assert set(members) - set(now) == {members[0]}, "only the one that died was replaced"
    assert len(agentless.ids(made.service_id)) == 4
    assert {one: crew.engines(one) for one in members[1:]} == {one: engines[one] for one in members[1:]}
    agentless.end(made.service_id)


def test_a_launch_that_ran_out_of_time_on_a_silent_host_is_replaced_when_that_is_back(agentless: Serving) -> None:
    crew = agentless.crew
    config = {"engine_config": {"mock": {"startup_s": 600}}, "readiness": {"timeout_s": 3}}
    made = agentless.create(pool="local", replicas=1, config=config)
    crew.await_that(lambda: agentless.ids(made.service_id, "waiting_for_ready"), "a launch")
    (member,) = agentless.ids(made.service_id)
    crew.kill("agent")
    _fall_silent(agentless)
    crew.await_that(
        lambda: judge_silent_nodes(crew.ctx) or crew.replica(member).state == "failed", "its time to be over"
    )
    for _ in range(3):
        crew.change("UPDATE services SET look_at = hostler_now() WHERE id = :id", id=made.service_id)
        reconciling.sweep(crew.ctx)
    assert agentless.ids(made.service_id) == [member], "its process may run there still"
    assert crew.leases(member) != {}
    crew.start("agent")
    crew.await_heartbeat("agent")
    crew.await_released(member)
    crew.await_that(lambda: len(agentless.ids(made.service_id)) > 1, "a replacement")
    agentless.end(made.service_id)


def test_a_frozen_agent_and_all_it_watches_come_back_as_they_were(agentless: Serving) -> None:
    crew = agentless.crew
    made = agentless.create(pool="local", replicas=3)
    agentless.await_task(made)
    members = agentless.await_settled(made.service_id, 3)
    agent = crew.processes["agent"]
    freeze(agent.pid)
    _fall_silent(agentless)
    for _ in range(3):
        crew.change("UPDATE services SET look_at = hostler_now() WHERE id = :id", id=made.service_id)
        reconciling.sweep(crew.ctx)
    assert agentless.ids(made.service_id) == members
    os.kill(agent.pid, signal.SIGCONT)
    assert sorted(agentless.await_settled(made.service_id, 3)) == sorted(members)
    assert agentless.ids(made.service_id) == members
    agentless.end(made.service_id)


def _fall_silent(serving: Serving) -> None:
    """The host's heartbeat is old, and stays so for the time that proves it."""
    crew = serving.crew
    crew.change("UPDATE nodes SET heartbeat_at = heartbeat_at - interval '1 hour'")
    crew.await_that(lambda: judge_silent_nodes(crew.ctx), "the host to count as silent")


def _looks(serving: Serving, members: list[str], rounds: int = 3) -> None:
    """The watch has looked at each again, so often."""
    for _ in range(rounds):
        seen = serving.crew.rows("SELECT max(next_check_at) FROM replicas WHERE id = ANY(:ids)", ids=members)[0][0]
        query = "SELECT min(next_check_at) FROM replicas WHERE id = ANY(:ids)"
        serving.crew.await_that(
            lambda seen=seen, query=query: serving.crew.rows(query, ids=members)[0][0] > seen, "another round of looks"
        )


def _suspected(serving: Serving) -> int:
    return len(serving.crew.rows("SELECT 1 FROM events WHERE kind = 'pool_suspect' AND pool = 'silent'"))


def _lose(serving: Serving, replicas: list[str], options: dict[str, object]) -> None:
    """Change what the mock backend is told of running attempts, in one instant for the watch."""
    serving.crew.change(
        "WITH a AS (UPDATE attempts SET backend_ref = jsonb_set(backend_ref, '{ref,options}', CAST(:options AS jsonb))"
        " WHERE replica_id = ANY(:ids))"
        " UPDATE replicas SET spec = jsonb_set(spec, '{resolved,backend_options}', CAST(:options AS jsonb))"
        " WHERE id = ANY(:ids)",
        options=json.dumps(options),
        ids=replicas,
    )
