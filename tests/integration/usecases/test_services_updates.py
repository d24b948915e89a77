"""A new revision takes the place of the old one by surge, or the old one comes back; wishes overtake wishes."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.lifecycle import Reason
from app.domain.services import Update
from app.errors import Conflict, HostlerError
from app.usecases import reconciling, services, tasks
from app.usecases.context import Actor, Context, Idempotency
from app.usecases.services import ServiceOutcome
from tests.support.services import Hands, change, create


def test_an_update_surges_and_never_has_less_than_asked(ctx: Context, actor: Actor, hands: Hands) -> None:
    service = create(ctx, actor, 3, name="web").service_id
    hands.settle(service)
    old = {row.id for row in hands.live(service)}

    asked = change(ctx, actor, "web", body={"model_name": "n"})
    seen = []
    for _ in range(20):
        live = hands.live(service)
        ready = [row for row in live if row.state == "ready"]
        seen.append((len(live), len(ready)))
        assert len(live) <= 4
        assert len(ready) >= 3
        shown = services.get(ctx, service)
        launching = [row.id for row in live if row.state == "pending"]
        stopping = [row.id for row in hands.replicas(service, "stopping")]
        if not launching and not stopping:
            break
        assert shown["rollout"]["state"] == "under_way"
        hands.make_ready(*launching)
        hands.see_gone(*stopping)
        reconciling.sweep(ctx)
    assert not old & {row.id for row in hands.live(service)}
    assert {row.revision for row in hands.live(service)} == {2}
    assert {row.model_name for row in hands.live(service)} == {"n"}
    assert tasks.get(ctx, asked.task_id)["state"] == "succeeded"
    shown = services.get(ctx, service)
    assert (shown["revision"], shown["good_revision"], shown["rollout"]["state"]) == (2, 2, "complete")
    assert (4, 3) in seen


def test_an_update_that_fails_comes_back_by_itself_and_says_why(ctx: Context, actor: Actor, hands: Hands) -> None:
    service = create(ctx, actor, 2).service_id
    hands.settle(service)
    old = {row.id for row in hands.live(service)}
    asked = change(ctx, actor, service, body={"model_name": "bad"})
    for _ in range(2):
        [new] = [row for row in hands.live(service) if row.revision == 2]
        hands.fail(new.id, Reason.OUT_OF_MEMORY)
        reconciling.sweep(ctx)
        hands.pass_time(11)
        reconciling.sweep(ctx)
    hands.settle(service)

    assert {row.id for row in hands.live(service)} == old, "no healthy replica was touched"
    task = tasks.get(ctx, asked.task_id)
    assert (task["state"], task["reason"]) == ("failed", "out_of_memory")
    assert "back to revision 1" in task["message"]
    shown = services.get(ctx, service)
    assert (shown["revision"], shown["good_revision"]) == (1, 1)
    assert (shown["reason"], shown["rollout"]["state"]) == ("out_of_memory", "failed")
    assert "revision 2 failed" in shown["message"]
    # the next one has a number of its own, and what was told of the last one is over
    change(ctx, actor, service, body={"model_name": "better"})
    hands.settle(service)
    shown = services.get(ctx, service)
    assert (shown["revision"], shown["reason"], shown["message"]) == (3, None, "")
    numbers = [(one["number"], one["good"]) for one in services.revisions(ctx, service)]
    assert numbers == [(3, True), (2, False), (1, False)]


def test_an_update_that_gets_nowhere_ends_at_its_deadline(ctx: Context, actor: Actor, hands: Hands) -> None:
    service = create(ctx, actor, 1).service_id
    hands.settle(service)
    asked = change(ctx, actor, service, body={"model_name": "slow"})
    deadline_s = Update().progress_deadline_s
    hands.pass_time(deadline_s - 5)
    reconciling.sweep(ctx)
    assert tasks.get(ctx, asked.task_id)["state"] == "running"
    hands.pass_time(6)
    reconciling.sweep(ctx)
    task = tasks.get(ctx, asked.task_id)
    assert (task["state"], task["reason"]) == ("failed", "readiness_timeout")
    assert [row.revision for row in hands.live(service)] == [1]


def test_a_deadline_is_kept_though_nothing_happens_meanwhile(ctx: Context, actor: Actor, hands: Hands) -> None:
    service = create(ctx, actor, 1).service_id
    hands.settle(service)
    deadline_s = reconciling.LOOK_S / 4
    asked = change(ctx, actor, service, body={"model_name": "waits"}, update={"progress_deadline_s": deadline_s})
    # the new one waits for capacity, so that nothing hints at the service again
    reconciling.sweep(ctx)
    hands.pass_time(deadline_s + 1)
    reconciling.sweep(ctx)
    assert tasks.get(ctx, asked.task_id)["state"] == "failed"
    assert [row.revision for row in hands.live(service)] == [1]


def test_the_newest_wish_overtakes(ctx: Context, actor: Actor, hands: Hands) -> None:
    created = create(ctx, actor, 2)
    service = created.service_id
    first = change(ctx, actor, service, body={"model_name": "b"})
    second = change(ctx, actor, service, body={"model_name": "c"})
    scaled = [services.scale(ctx, actor, service, count) for count in (3, 4)]
    for overtaken in (created, first, scaled[0]):
        task = tasks.get(ctx, overtaken.task_id)
        assert (task["state"], task["reason"]) == ("cancelled", "cancelled")
        assert task["message"].startswith("superseded")
    hands.settle(service)
    assert {row.model_name for row in hands.live(service)} == {"c"}
    assert len(hands.live(service)) == 4
    assert tasks.get(ctx, second.task_id)["state"] == "succeeded"
    assert tasks.get(ctx, scaled[1].task_id)["state"] == "succeeded"


def test_a_pause_holds_the_update_and_not_the_replacement(ctx: Context, actor: Actor, hands: Hands) -> None:
    service = create(ctx, actor, 2).service_id
    hands.settle(service)
    services.pause(ctx, actor, service)
    asked = change(ctx, actor, service, body={"model_name": "n"})
    hands.settle(service)
    assert {row.revision for row in hands.live(service)} == {1}
    hands.pass_time(100)
    hands.fail(hands.live(service)[0].id)
    hands.settle(service)
    assert [row.revision for row in hands.live(service)] == [1, 1]
    assert "paused" in services.get(ctx, service)["plan"]["waits_for"]
    assert tasks.get(ctx, asked.task_id)["state"] == "running"
    # it paused for longer than an update may stand still, which is nobody's failure
    hands.pass_time(Update().progress_deadline_s + 10)
    assert services.resume(ctx, actor, service).already is False
    hands.settle(service)
    assert {row.revision for row in hands.live(service)} == {2}
    assert tasks.get(ctx, asked.task_id)["state"] == "succeeded"
    assert services.resume(ctx, actor, service).already is True


def test_going_back_by_hand(ctx: Context, actor: Actor, hands: Hands) -> None:
    service = create(ctx, actor, 2).service_id
    with pytest.raises(Conflict, match="no revision 0"):
        services.rollback(ctx, actor, service)
    hands.settle(service)
    for model in ("b", "c"):
        change(ctx, actor, service, body={"model_name": model})
        hands.settle(service)
    asked = services.rollback(ctx, actor, service)
    hands.settle(service)
    assert {row.revision for row in hands.live(service)} == {2}
    assert tasks.get(ctx, asked.task_id)["state"] == "succeeded"
    services.rollback(ctx, actor, service, 1)
    hands.settle(service)
    assert {row.model_name for row in hands.live(service)} == {"m"}
    assert services.rollback(ctx, actor, service, 1).already is True
    with pytest.raises(Conflict, match="no revision 9"):
        services.rollback(ctx, actor, service, 9)


@pytest.mark.parametrize("kind", ["service_create", "service_update", "service_scale", "service_stop"])
def test_a_task_that_is_cancelled_is_taken_back(ctx: Context, actor: Actor, hands: Hands, kind: str) -> None:
    created = create(ctx, actor, 2)
    service = created.service_id
    if kind != "service_create":
        hands.settle(service)
    asked: dict[str, Any] = {
        "service_create": lambda: created,
        "service_update": lambda: change(ctx, actor, service, body={"model_name": "n"}),
        "service_scale": lambda: services.scale(ctx, actor, service, 5),
        "service_stop": lambda: services.cancel(ctx, actor, service),
    }
    outcome: ServiceOutcome = asked[kind]()
    if kind == "service_stop":
        with pytest.raises(Conflict):
            tasks.request_cancel(ctx, actor, str(outcome.task_id))
        return
    key = Idempotency("once", "POST", "/tasks", "hash")
    for _ in range(2):
        task = tasks.request_cancel(ctx, actor, str(outcome.task_id), key)
        assert (task["kind"], task["state"], task["reason"]) == (kind, "cancelled", "cancelled")
    hands.settle(service)
    live = hands.live(service)
    expected = [] if kind == "service_create" else [("m", 1), ("m", 1)]
    assert [(row.model_name, row.revision) for row in live] == expected
    assert services.get(ctx, service)["desired_state"] == ("cancelled" if kind == "service_create" else "running")


def test_a_group_that_is_whole_or_nothing_ends_with_its_first_failure(ctx: Context, actor: Actor, hands: Hands) -> None:
    outcome = create(ctx, actor, 3, all_or_nothing=True)
    first, second, third = hands.live(outcome.service_id)
    hands.make_ready(first.id, second.id)
    reconciling.sweep(ctx)
    hands.fail(third.id, Reason.NO_CAPACITY)
    reconciling.sweep(ctx)
    task = tasks.get(ctx, outcome.task_id)
    assert (task["state"], task["reason"]) == ("failed", "no_capacity")
    assert hands.live(outcome.service_id) == []
    hands.settle(outcome.service_id)
    shown = services.get(ctx, outcome.service_id)
    assert (shown["status"], shown["reason"]) == ("failed", "no_capacity")
    assert shown["ended_at"] is not None


def test_an_update_says_nothing_new_twice(ctx: Context, actor: Actor, hands: Hands) -> None:
    service = create(ctx, actor, 1).service_id
    hands.settle(service)
    assert change(ctx, actor, service).already is True
    asked = [change(ctx, actor, service, body={"model_name": "n"}) for _ in range(2)]
    assert [one.already for one in asked] == [False, True]
    services.cancel(ctx, actor, service)
    with pytest.raises(HostlerError):
        change(ctx, actor, service, body={"model_name": "x"})


def test_an_update_that_is_paused_without_replicas_is_under_way_until_it_is_resumed(
    ctx: Context, actor: Actor, hands: Hands
) -> None:
    service = create(ctx, actor, 1).service_id
    hands.settle(service)
    services.pause(ctx, actor, service)
    down = services.scale(ctx, actor, service, 0)
    hands.settle(service)
    asked = change(ctx, actor, service, count=0, body={"model_name": "n"})
    assert tasks.get(ctx, down.task_id)["state"] == "succeeded"
    for count in (1, 0):
        shown = services.get(ctx, service)
        assert (shown["rollout"]["state"], shown["plan"]["settled"]) == ("under_way", False)
        assert shown["plan"]["waits_for"].startswith("the update to revision 2 is paused")
        scaled = services.scale(ctx, actor, service, count)
        hands.settle(service)
        assert [row.revision for row in hands.live(service)] == [1] * count
    assert tasks.get(ctx, scaled.task_id)["state"] == "succeeded"
    assert tasks.get(ctx, asked.task_id)["state"] == "running"
    services.resume(ctx, actor, service)
    hands.settle(service)
    shown = services.get(ctx, service)
    assert (shown["rollout"]["state"], shown["plan"]["settled"]) == ("complete", True)
    assert tasks.get(ctx, asked.task_id)["state"] == "succeeded"
    services.pause(ctx, actor, service)
    services.scale(ctx, actor, service, 2)
    assert [row.revision for row in hands.live(service)] == [2, 2]
    hands.settle(service)
    assert services.get(ctx, service)["good_revision"] == 2
