"""All of a service or nothing, from its create to the processes: on one host, and never a part."""

from __future__ import annotations

import pytest

from app.usecases import services
from app.usecases.explain import explain
from tests.integration.services.serving import Serving

GPU = {"resources": {"gpu": 1}}


def test_a_gang_waits_until_all_of_it_has_room(serving: Serving) -> None:
    crew = serving.crew
    holder = crew.create(resources={"gpus": 2})
    crew.await_ready(holder)
    made = serving.create(pool="local", replicas=3, all_or_nothing=True, config=GPU)
    crew.await_that(lambda: len(serving.ids(made.service_id, "pending")) == 3, "three that wait")
    ticks = crew.rows("SELECT max(tick) FROM sweeps WHERE name = 'repair'")[0][0]
    crew.await_that(
        lambda: crew.rows("SELECT max(tick) FROM sweeps WHERE name = 'repair'")[0][0] >= ticks + 2, "two more sweeps"
    )
    members = serving.ids(made.service_id)
    assert serving.ids(made.service_id, "pending") == members
    assert not any(crew.leases(one) for one in members)
    assert "waits for 3 GPUs together with the 2 others" in explain(crew.ctx, members[0])["message"]
    crew.end(holder)
    serving.await_task(made)
    assert sorted(number for one in members for number in crew.leases(one)["gpu"]) != []
    claimed = crew.rows(
        "SELECT DISTINCT xid FROM events WHERE replica_id = ANY(:ids) AND to_state = 'scheduling'", ids=members
    )
    assert len(claimed) == 1, "their capacity was taken in one transaction"
    serving.end(made.service_id)


def test_two_gangs_that_want_the_same_follow_each_other(serving: Serving) -> None:
    made = [serving.create(pool="few", replicas=3, all_or_nothing=True) for _ in range(3)]
    for one in made:
        serving.await_task(one)
        serving.end(one.service_id)


def test_cancelling_a_gang_that_waits_leaves_nothing(serving: Serving) -> None:
    crew = serving.crew
    holder = crew.create(pool="few")
    crew.await_ready(holder)
    made = serving.create(pool="few", replicas=4, all_or_nothing=True)
    assert len(serving.ids(made.service_id, "pending")) == 4
    serving.end(made.service_id)
    assert crew.task(made.task_id).state == "cancelled"
    assert crew.rows("SELECT 1 FROM attempts WHERE replica_id = ANY(:ids)", ids=serving.ids(made.service_id)) == []
    crew.end(holder)


def test_cancelling_a_gang_that_is_being_launched_leaves_nothing(serving: Serving) -> None:
    crew = serving.crew
    config = {**GPU, "engine_config": {"mock": {"startup_s": 60}}}
    made = serving.create(pool="local", replicas=4, all_or_nothing=True, config=config)
    crew.await_that(lambda: serving.ids(made.service_id, "starting", "waiting_for_ready"), "a launch")
    serving.end(made.service_id)
    for one in serving.ids(made.service_id):
        assert crew.leases(one) == {}
        assert crew.engines(one) == []


def test_a_member_stopped_by_hand_while_they_wait_is_replaced_and_they_start_together(serving: Serving) -> None:
    crew = serving.crew
    holder = crew.create(pool="few")
    crew.await_ready(holder)
    made = serving.create(pool="few", replicas=4, all_or_nothing=True)
    first = serving.ids(made.service_id)
    crew.stop_replica(first[2])
    crew.await_that(lambda: len(serving.ids(made.service_id, "pending")) == 4, "a replacement that waits")
    crew.end(holder)
    serving.await_task(made)
    assert first[2] not in serving.await_settled(made.service_id, 4)
    serving.end(made.service_id)


@pytest.mark.parametrize(
    "body, words",
    [
        ({"pool": "local", "replicas": 3, "config": {"resources": {"gpu": 2}}}, "want 6 GPUs and 3 ports of one host"),
        ({"pool": "few", "replicas": 5}, "want 5 slots; pool few has 4, 1 missing"),
    ],
    ids=["gpus", "slots"],
)
def test_a_gang_that_fits_nowhere_ends_the_service_and_says_what_is_missing(
    serving: Serving, body: dict[str, object], words: str
) -> None:
    made = serving.create(all_or_nothing=True, **body)
    task = serving.await_task(made, "failed")
    assert task.reason == "no_capacity"
    serving.crew.await_that(lambda: serving.get(made.service_id)["ended_at"], "its end")
    members = serving.members(made.service_id)
    assert {(row.state, row.reason) for row in members} == {("failed", "no_capacity")}
    assert all(words in row.message for row in members)
    shown = serving.get(made.service_id)
    assert (shown["status"], shown["reason"]) == ("failed", "no_capacity")
    assert words in task.message, task.message


def test_one_that_fails_before_all_were_ready_ends_all(serving: Serving) -> None:
    config = {"engine_config": {"mock": {"exit_on_start": 3}}}
    made = serving.create(pool="local", replicas=3, all_or_nothing=True, config=config)
    assert serving.await_task(made, "failed").reason == "process_exited"
    serving.crew.await_that(lambda: serving.get(made.service_id)["ended_at"], "its end")
    assert len(serving.ids(made.service_id)) == 3, "none was replaced"


def test_afterwards_members_are_replaced_and_scaled_one_by_one(serving: Serving) -> None:
    crew = serving.crew
    made = serving.create(pool="few", replicas=2, all_or_nothing=True)
    serving.await_task(made)
    holder = crew.create(pool="few")
    crew.await_ready(holder)
    # one more fits, two do not: without the need to start together the first goes
    services.scale(crew.ctx, crew.actor, made.service_id, 4)
    crew.await_that(lambda: len(serving.ids(made.service_id, "ready")) == 3, "the one that fits")
    crew.end(holder)
    serving.await_settled(made.service_id, 4)
    serving.end(made.service_id)
