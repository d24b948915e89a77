"""What cannot be made now is told, tried again later and never lost; what can never be is refused at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import text

from app.errors import Forbidden, InvalidConfig, ModelForbidden, UnknownModel, UnknownPool
from app.usecases import creates, reconciling, services, tasks
from app.usecases.context import Actor, Context
from tests.support.services import Hands, change, create


def test_a_full_queue_is_no_refusal(ctx: Context, actor: Actor, hands: Hands) -> None:
    ctx.settings = replace(ctx.settings, max_queued_per_pool=2)
    outcome = create(ctx, actor, 3)
    assert len(hands.live(outcome.service_id)) == 2
    shown = services.get(ctx, outcome.service_id)
    assert shown["reason"] == "no_capacity"
    assert "2 creates queued" in shown["message"]
    assert shown["plan"]["until"] is not None
    assert tasks.get(ctx, outcome.task_id)["state"] == "running"

    # while there is no room it is tried less and less often
    waits = []
    for _ in range(8):
        waits.append(_wait_s(ctx, outcome.service_id))
        hands.pass_time(waits[-1] + 0.5)
        reconciling.sweep(ctx)
    assert [round(wait) for wait in waits] == [5, 10, 20, 40, 80, 160, 300, 300]
    assert len(hands.live(outcome.service_id)) == 2

    hands.make_ready(*(row.id for row in hands.live(outcome.service_id)))
    hands.pass_time(301)
    reconciling.sweep(ctx)
    assert len(hands.live(outcome.service_id)) == 3
    hands.settle(outcome.service_id)
    shown = services.get(ctx, outcome.service_id)
    assert (shown["overall_status"], shown["reason"], shown["message"]) == ("healthy", None, "")
    assert tasks.get(ctx, outcome.task_id)["state"] == "succeeded"


def test_a_pool_that_was_deleted_is_told_and_waited_for(ctx: Context, actor: Actor, hands: Hands) -> None:
    _add_pool(ctx, "gone")
    service = create(ctx, actor, 0, pool="gone").service_id
    _change(ctx, "DELETE FROM pools WHERE name = 'gone'")
    services.scale(ctx, actor, service, 1)
    assert hands.live(service) == []
    assert "No pool is called 'gone'" in services.get(ctx, service)["message"]
    _add_pool(ctx, "gone")
    hands.pass_time(6)
    reconciling.sweep(ctx)
    assert len(hands.live(service)) == 1


def test_a_model_that_was_deleted_is_told_and_the_others_serve_on(ctx: Context, actor: Actor, hands: Hands) -> None:
    _change(ctx, "INSERT INTO models (name, engine, source, owner) VALUES ('big', 'vllm', 'org/big', 'x')")
    body = {"server_mode": "replica", "model_name": "big", "resources": {"gpus": 1}}
    service = create(ctx, actor, 2, body=body).service_id
    hands.settle(service)
    _change(ctx, "DELETE FROM models")
    first, second = hands.live(service)
    hands.pass_time(100)
    hands.fail(first.id)
    reconciling.sweep(ctx)
    shown = services.get(ctx, service)
    assert [row.id for row in hands.live(service)] == [second.id]
    assert "'big'" in shown["message"]
    assert shown["overall_status"] == "degraded"
    _change(ctx, "INSERT INTO models (name, engine, source, owner) VALUES ('big', 'vllm', 'org/big', 'x')")
    hands.pass_time(6)
    reconciling.sweep(ctx)
    assert len(hands.live(service)) == 2


def test_an_update_of_which_nothing_can_be_made_comes_back(ctx: Context, actor: Actor, hands: Hands) -> None:
    _add_pool(ctx, "brief")
    service = create(ctx, actor, 1).service_id
    hands.settle(service)
    old = [row.id for row in hands.live(service)]
    services.pause(ctx, actor, service)
    asked = change(ctx, actor, service, pool="brief")
    _change(ctx, "DELETE FROM pools WHERE name = 'brief'")
    services.resume(ctx, actor, service)
    for _ in range(4):
        hands.pass_time(290)
        reconciling.sweep(ctx)
    task = tasks.get(ctx, asked.task_id)
    assert (task["state"], task["reason"]) == ("failed", "invalid_config")
    assert "No pool is called 'brief'" in task["message"]
    shown = services.get(ctx, service)
    assert (shown["revision"], shown["overall_status"], shown["pool"]) == (1, "healthy", "mock")
    assert [row.id for row in hands.live(service)] == old


def test_what_is_refused_of_one_revision_holds_up_no_other(ctx: Context, actor: Actor, hands: Hands) -> None:
    _add_pool(ctx, "brief")
    service = create(ctx, actor, 2, pool="brief").service_id
    hands.settle(service)
    first = hands.live(service)[0]
    hands.pass_time(100)
    # the old revision cannot be made any more, and the new one is what mends that
    _change(ctx, "UPDATE replicas SET pool = 'mock'")
    _change(ctx, "DELETE FROM pools WHERE name = 'brief'")
    hands.fail(first.id)
    reconciling.sweep(ctx)
    assert "'brief'" in services.get(ctx, service)["message"]
    change(ctx, actor, service)
    hands.settle(service)
    assert [row.revision for row in hands.live(service)] == [2, 2]
    shown = services.get(ctx, service)
    assert (shown["overall_status"], shown["message"]) == ("healthy", "")


def test_what_can_never_be_made_is_refused_at_once(ctx: Context, actor: Actor) -> None:
    with pytest.raises(UnknownPool):
        create(ctx, actor, 1, pool="nowhere")
    with pytest.raises(UnknownModel):
        create(ctx, actor, 1, body={"server_mode": "replica", "model_name": "nothing"})
    operator = replace(actor, role="operate")
    argv = {"server_mode": "platform_workload", "platform_config": {"command": ["true"]}}
    with pytest.raises(Forbidden):
        create(ctx, operator, 1, body=argv)
    with pytest.raises(InvalidConfig, match="replicas"):
        create(ctx, actor, 10_001)
    with pytest.raises(InvalidConfig, match="looks like an id"):
        create(ctx, actor, 1, name="0123456789ab")
    assert services.page(ctx, {}, 10, None) == ([], 0, None)


def test_a_key_of_certain_models_makes_no_service_of_another(ctx: Context, actor: Actor, hands: Hands) -> None:
    limited = replace(actor, role="operate", models=("other",))
    with pytest.raises(ModelForbidden):
        create(ctx, limited, 1)
    service = create(ctx, replace(limited, models=("m",)), 1).service_id
    [made] = hands.live(service)
    assert made.spec["granted_role"] == "operate"


def test_replicas_are_made_by_the_rights_of_who_asked_for_their_revision(
    ctx: Context, actor: Actor, hands: Hands
) -> None:
    service = create(ctx, replace(actor, role="operate"), 1).service_id
    services.scale(ctx, actor, service, 2)
    assert {row.spec["granted_role"] for row in hands.live(service)} == {"operate"}
    assert {row.owner for row in hands.live(service)} == {actor.key_id}


def test_nobody_else_says_which_service_a_replica_belongs_to(ctx: Context, actor: Actor) -> None:
    service = create(ctx, actor, 1).service_id
    body = {"server_mode": "replica_mock", "model_name": "m", "pool": "mock", "labels": {"service_id": service}}
    for ask in (creates.request_create, creates.plan_create):
        with pytest.raises(InvalidConfig, match="hostler service create") as refused:
            ask(ctx, actor, body)
        assert list(refused.value.errors) == ["labels.service_id"]


def _wait_s(ctx: Context, service_id: str) -> float:
    query = text(
        "SELECT CAST(rollout->'refused'->'1'->>'until' AS float8) - extract(epoch FROM hostler_now()) FROM services"
        " WHERE id = :id"
    )
    with ctx.database.read() as connection:
        return float(connection.execute(query, {"id": service_id}).scalar_one())


def _add_pool(ctx: Context, name: str) -> None:
    _change(ctx, f"INSERT INTO pools (name, backend, slots) VALUES ('{name}', 'mock', 4)")


def _change(ctx: Context, statement: str) -> None:
    with ctx.database.begin() as connection:
        connection.execute(text(statement))


def test_a_key_changes_only_services_whose_models_it_may_have(ctx: Context, actor: Actor, hands: Hands) -> None:
    service = create(ctx, actor, 1, body={"model_name": "mine"}).service_id
    hands.settle(service)
    limited, other = replace(actor, models=("mine",)), replace(actor, models=("theirs",))
    before = services.get(ctx, service)
    asks: list[Callable[[Actor], object]] = [
        lambda who: services.scale(ctx, who, service, 2),
        lambda who: services.pause(ctx, who, service),
        lambda who: services.resume(ctx, who, service),
        lambda who: change(ctx, who, service, body={"model_name": who.models[0] if who.models else "m"}),
        lambda who: services.rollback(ctx, who, service, 1),
    ]
    for ask in asks:
        with pytest.raises(ModelForbidden, match="not allowed the model"):
            ask(other)
    shown = services.get(ctx, service)
    assert [shown[name] for name in ("count", "revision", "paused")] == [
        before[name] for name in ("count", "revision", "paused")
    ]
    for ask in asks:
        ask(limited)

    # nor may it bring back what ran before
    change(ctx, actor, service, count=2, body={"model_name": "theirs"})
    hands.settle(service)
    with pytest.raises(ModelForbidden):
        services.rollback(ctx, other, service, 1)
    services.scale(ctx, other, service, 1)
    with pytest.raises(ModelForbidden):
        services.scale(ctx, limited, service, 2)
    # what it may not change it may put away, as it may stop any replica
    services.cancel(ctx, limited, service)
