"""What is asked of a service comes to be: its replicas are made, kept, scaled, updated and put away, once each."""

from __future__ import annotations

import pytest

from app.domain.lifecycle import Reason
from app.errors import Conflict, NameTaken, NotFound
from app.usecases import reconciling, replicas, services, tasks
from app.usecases.context import Actor, Context, Idempotency
from tests.support.services import Hands, create


def test_a_create_makes_its_replicas_in_its_own_transaction(ctx: Context, actor: Actor, hands: Hands) -> None:
    outcome = create(ctx, actor, 3, name="trio", labels={"team": "a"})

    made = hands.replicas(outcome.service_id)
    assert [(row.ordinal, row.revision, row.tries, row.state) for row in made] == [
        (0, 1, 0, "pending"), (1, 1, 0, "pending"), (2, 1, 0, "pending"),
    ]  # fmt: skip
    assert all(row.labels == {"team": "a", "service_id": outcome.service_id} for row in made)
    assert all(row.owner == actor.key_id for row in made)
    assert outcome.replicas == 3
    shown = services.get(ctx, "trio")
    assert (shown["status"], shown["overall_status"], shown["ready"], shown["count"]) == ("pending", "starting", 0, 3)
    assert shown["group_id"] == shown["id"] == outcome.service_id
    assert len(shown["replicas"]) == 3


def test_its_task_ends_when_all_are_ready_and_tells_how_far_it_is(ctx: Context, actor: Actor, hands: Hands) -> None:
    outcome = create(ctx, actor, 2)
    first, second = hands.replicas(outcome.service_id)

    hands.make_ready(first.id)
    reconciling.sweep(ctx)
    task = tasks.get(ctx, outcome.task_id)
    assert (task["kind"], task["state"], task["progress"]) == ("service_create", "running", 50)
    assert (task["replica_id"], task["service_id"]) == (None, outcome.service_id)
    assert services.get(ctx, outcome.service_id)["overall_status"] == "partial"

    hands.make_ready(second.id)
    reconciling.sweep(ctx)
    task = tasks.get(ctx, outcome.task_id)
    assert (task["state"], task["progress"]) == ("succeeded", 100)
    shown = services.get(ctx, outcome.service_id)
    assert (shown["status"], shown["overall_status"], shown["good_revision"]) == ("running", "healthy", 1)
    assert shown["plan"] == {"settled": True, "waits_for": "", "until": None, "given_up": []}


def test_a_replica_that_dies_is_replaced_by_a_new_one_in_its_place(ctx: Context, actor: Actor, hands: Hands) -> None:
    service = create(ctx, actor, 2).service_id
    hands.settle(service)
    victim, other = hands.replicas(service)

    hands.pass_time(100)
    hands.fail(victim.id)
    reconciling.sweep(ctx)

    new = hands.replicas(service)[-1]
    assert (new.ordinal, new.revision, new.replaces, new.state) == (victim.ordinal, 1, victim.id, "pending")
    assert [row.id for row in hands.live(service)] == [other.id, new.id]
    assert replicas.get(ctx, victim.id)["status"] == "failed", "the dead one is kept as evidence"
    hands.settle(service)
    assert services.get(ctx, service)["overall_status"] == "healthy"


def test_what_fails_again_waits_longer_and_is_given_up(ctx: Context, actor: Actor, hands: Hands) -> None:
    outcome = create(ctx, actor, 1)
    for wait_s in (10, 20, 40):
        [living] = hands.live(outcome.service_id)
        hands.fail(living.id)
        reconciling.sweep(ctx)
        assert hands.live(outcome.service_id) == []
        hands.pass_time(wait_s - 1)
        reconciling.sweep(ctx)
        assert hands.live(outcome.service_id) == [], f"not before {wait_s} s"
        hands.pass_time(1.5)
        reconciling.sweep(ctx)
        assert len(hands.live(outcome.service_id)) == 1, f"after {wait_s} s"
    [last] = hands.live(outcome.service_id)
    assert last.tries == 3
    hands.fail(last.id)
    reconciling.sweep(ctx)

    shown = services.get(ctx, outcome.service_id)
    assert (shown["status"], shown["reason"]) == ("failed", "process_exited")
    assert last.id in shown["message"]
    task = tasks.get(ctx, outcome.task_id)
    assert (task["state"], task["reason"]) == ("failed", "process_exited")
    hands.pass_time(100_000)
    reconciling.sweep(ctx)
    assert hands.live(outcome.service_id) == []

    again = services.scale(ctx, actor, outcome.service_id, 1)
    [new] = hands.live(outcome.service_id)
    assert (new.tries, again.already) == (0, False)
    hands.settle(outcome.service_id)
    shown = services.get(ctx, outcome.service_id)
    assert (shown["status"], shown["reason"], shown["message"]) == ("running", None, "")
    assert tasks.get(ctx, again.task_id)["state"] == "succeeded"


def test_scale_up_and_down(ctx: Context, actor: Actor, hands: Hands) -> None:
    service = create(ctx, actor, 1).service_id
    hands.settle(service)

    up = services.scale(ctx, actor, service, 3)
    assert len(hands.live(service)) == 3
    hands.settle(service)
    assert tasks.get(ctx, up.task_id)["state"] == "succeeded"

    down = services.scale(ctx, actor, service, 1)
    assert len(hands.live(service)) == 1
    assert tasks.get(ctx, down.task_id)["state"] == "running"
    hands.settle(service)
    assert tasks.get(ctx, down.task_id)["state"] == "succeeded"
    assert len(services.get(ctx, service)["replicas"]) == 1
    same = services.scale(ctx, actor, service, 1)
    assert (same.already, same.task_id) == (True, None)


def test_what_is_on_its_way_already_is_waited_for(ctx: Context, actor: Actor, hands: Hands) -> None:
    outcome = create(ctx, actor, 2)
    same = services.scale(ctx, actor, outcome.service_id, 2)
    assert (same.already, same.task_id) == (False, outcome.task_id)
    up = services.scale(ctx, actor, outcome.service_id, 3)
    again = services.scale(ctx, actor, outcome.service_id, 3)
    assert again.task_id in (outcome.task_id, up.task_id)
    assert len(hands.live(outcome.service_id)) == 3


def test_a_cancel_ends_all_of_it_and_keeps_the_record(ctx: Context, actor: Actor, hands: Hands) -> None:
    outcome = create(ctx, actor, 2, name="pair")
    hands.settle(outcome.service_id)

    asked, again = services.cancel(ctx, actor, "pair"), services.cancel(ctx, actor, outcome.service_id)
    assert asked.task_id == again.task_id
    assert asked.replicas == 2
    shown = services.get(ctx, outcome.service_id)
    assert (shown["status"], shown["cleanup"]["state"], shown["ended_at"]) == ("cancelled", "pending", None)
    hands.settle(outcome.service_id)
    shown = services.get(ctx, outcome.service_id)
    assert shown["cleanup"] is None
    assert shown["ended_at"] is not None
    assert tasks.get(ctx, asked.task_id)["state"] == "succeeded"
    third = services.cancel(ctx, actor, outcome.service_id)
    assert (third.already, third.task_id) == (True, asked.task_id)
    with pytest.raises(Conflict):
        services.scale(ctx, actor, "pair", 3)
    # its name is free again, and means whoever has it now
    new = create(ctx, actor, 1, name="pair").service_id
    assert (services.find(ctx, "pair"), services.find(ctx, outcome.service_id)) == (new, outcome.service_id)
    with pytest.raises(NotFound):
        services.get(ctx, "other")


def test_a_cancel_while_creates_are_queued_overtakes_them(ctx: Context, actor: Actor, hands: Hands) -> None:
    outcome = create(ctx, actor, 2)
    asked = services.cancel(ctx, actor, outcome.service_id)
    assert {row.state for row in hands.replicas(outcome.service_id)} == {"stopped"}
    assert tasks.get(ctx, outcome.task_id)["state"] == "cancelled"
    # nothing was launched, so nothing has to be waited for
    reconciling.sweep(ctx)
    assert tasks.get(ctx, asked.task_id)["state"] == "succeeded"


def test_the_same_request_twice_makes_one_service(ctx: Context, actor: Actor, hands: Hands) -> None:
    key = Idempotency("once", "POST", "/api/v1/services", "hash")
    first, second = (create(ctx, actor, 2, idempotency=key) for _ in range(2))
    assert (second.service_id, second.task_id, second.replayed) == (first.service_id, first.task_id, True)
    assert len(hands.replicas(first.service_id)) == 2


def test_a_name_is_taken_while_its_service_runs(ctx: Context, actor: Actor) -> None:
    create(ctx, actor, 1, name="one")
    with pytest.raises(NameTaken):
        create(ctx, actor, 1, name="one")


def test_a_service_of_none_is_settled_at_once(ctx: Context, actor: Actor, hands: Hands) -> None:
    outcome = create(ctx, actor, 0)
    assert hands.replicas(outcome.service_id) == []
    assert tasks.get(ctx, outcome.task_id)["state"] == "succeeded"
    assert services.get(ctx, outcome.service_id)["overall_status"] == "stopped"
    services.scale(ctx, actor, outcome.service_id, 1)
    assert len(hands.live(outcome.service_id)) == 1


def test_what_a_place_waits_through_is_told_until_all_are_ready(ctx: Context, actor: Actor, hands: Hands) -> None:
    service = create(ctx, actor, 1).service_id
    told = services.get(ctx, service)
    assert (told["reason"], told["message"]) == (None, "")
    for number in (1, 2):
        [failed] = hands.live(service)
        hands.fail(failed.id, Reason.NO_CAPACITY)
        reconciling.sweep(ctx)
        why = f"{failed.id} failed (no_capacity): as the test wants; try {number} of 3"
        told = services.get(ctx, service)
        assert told["reason"] == "no_capacity"
        assert told["message"].startswith(f"{why} at 2")
        assert told["plan"]["waits_for"] == f"1 of 1 replicas to be ready; {told['message']}"
        hands.pass_time(41)
        reconciling.sweep(ctx)
        [new] = hands.live(service)
        told = services.get(ctx, service)
        assert (told["reason"], told["message"]) == ("no_capacity", f"{why} is {new.id}")
        assert services.status(ctx, service)["plan"]["waits_for"].endswith(told["message"])
    hands.settle(service)
    told = services.get(ctx, service)
    assert (told["reason"], told["message"], told["plan"]["waits_for"]) == (None, "", "")
