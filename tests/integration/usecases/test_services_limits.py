"""Changes of what is beside what a replica runs: no replica is replaced for them."""

from __future__ import annotations

import pytest

from app.db.repos import service_revisions as repo
from app.errors import InvalidConfig
from app.usecases import reconciling, service_changes, service_revisions, services
from app.usecases.context import Actor, Context
from tests.support.services import Hands

MOCK = {"recipe_name": "inference/mock", "pool": "mock", "replicas": 2, "name": "web"}


def settled(ctx: Context, actor: Actor, hands: Hands, **more: object) -> str:
    service_id = services.create(ctx, actor, MOCK | more).service_id
    hands.settle(service_id)
    return service_id


def test_other_limits_replace_no_replica(ctx: Context, actor: Actor, hands: Hands) -> None:
    service_id = settled(ctx, actor, hands)
    before = [row.id for row in hands.live(service_id)]

    outcome = services.update(ctx, actor, "web", {"update": {"max_surge": 3}, "restart": {"tries": 1}})

    assert (outcome.already, outcome.task_id) == (True, None)
    shown = services.get(ctx, service_id)
    assert (shown["revision"], shown["good_revision"], shown["status"]) == (2, 2, "running")
    assert (shown["update"]["max_surge"], shown["restart"]["tries"]) == (3, 1)
    assert {one["revision"] for one in shown["replicas"]} == {2}
    hands.pass_time(100)
    reconciling.sweep(ctx)
    assert [row.id for row in hands.live(service_id)] == before
    # the new limit counts from now on
    hands.fail(before[0])
    reconciling.sweep(ctx)
    assert len(hands.live(service_id)) == 2


def test_while_an_update_is_under_way_they_are_an_update_too(ctx: Context, actor: Actor, hands: Hands) -> None:
    service_id = settled(ctx, actor, hands)
    services.update(ctx, actor, "web", {"config": {"environment": {"MOCK_SEED": "1"}}})
    outcome = services.update(ctx, actor, "web", {"update": {"max_surge": 3}})
    assert outcome.task_id
    assert services.get(ctx, service_id)["revision"] == 3
    hands.settle(service_id)
    assert services.get(ctx, service_id)["good_revision"] == 3


def test_a_masked_value_stands_for_the_present_one(ctx: Context, actor: Actor, hands: Hands) -> None:
    secret, other = "hf_first_secret", "hf_second_secret"
    service_id = settled(ctx, actor, hands, config={"environment": {"HF_TOKEN": secret, "MOCK_SEED": "1"}})
    shown = services.get(ctx, service_id)["config"]
    assert shown == {"environment": {"HF_TOKEN": "***", "MOCK_SEED": "1"}}
    assert services.update(ctx, actor, "web", {"config": shown, "replace_config": True}).already
    assert service_changes.plan_update(ctx, actor, "web", {"config": shown, "replace_config": True})["changes"] == []
    # that it would be another one is told, and neither
    change = {"config": {"environment": {"HF_TOKEN": other}}}
    plan = service_changes.plan_update(ctx, actor, "web", change)
    assert plan["changes"] == [{"field": "config.environment.HF_TOKEN", "before": "***", "after": "***"}]
    assert secret not in repr(plan)
    assert other not in repr(plan)
    services.update(ctx, actor, "web", change)
    kept = {"config": {"environment": {"HF_TOKEN": "***", "MOCK_SEED": "2"}}}
    services.update(ctx, actor, "web", kept)
    with ctx.database.read() as connection:
        present = repo.read(connection, service_id, 3)
    assert service_revisions.config_of(ctx, present)["environment"] == {"HF_TOKEN": other, "MOCK_SEED": "2"}
    for nowhere in ({"environment": {"LOG_LEVEL": "***"}}, {"environment": {"HF_TOKEN": "***"}}):
        with pytest.raises(InvalidConfig) as refused:
            services.create(ctx, actor, MOCK | {"name": "new", "config": nowhere})
        [field] = refused.value.errors
        assert field == f"config.environment.{next(iter(nowhere['environment']))}"


def test_what_is_taken_out_of_a_config_that_is_replaced_is_gone(ctx: Context, actor: Actor, hands: Hands) -> None:
    service_id = settled(ctx, actor, hands, config={"environment": {"MOCK_SEED": "1", "MOCK_SLOTS": "2"}})
    services.update(ctx, actor, "web", {"config": {"environment": {"MOCK_SEED": "1"}}, "replace_config": True})
    assert list(services.get(ctx, service_id)["config"]["environment"]) == ["MOCK_SEED"]
    services.update(ctx, actor, "web", {"config": {"environment": {"MOCK_SLOTS": "3"}}})
    assert sorted(services.get(ctx, service_id)["config"]["environment"]) == ["MOCK_SEED", "MOCK_SLOTS"]


def test_what_is_so_by_default_may_be_said_too(ctx: Context, actor: Actor, hands: Hands) -> None:
    service_id = settled(ctx, actor, hands)
    shown = services.get(ctx, service_id)
    said = {
        "recipe_name": "mock",
        "pool": "mock",
        "model_name": shown["model_name"],
        "update": {"max_surge": shown["update"]["max_surge"]},
        "restart": {"tries": shown["restart"]["tries"]},
        "all_or_nothing": False,
        "replace_config": True,
        "config": {},
    }
    assert service_changes.plan_update(ctx, actor, "web", said)["changes"] == []
    assert services.update(ctx, actor, "web", said).already
    assert services.get(ctx, service_id)["revision"] == 1


def test_an_update_that_could_never_move_is_refused_however_it_comes_about(ctx: Context, actor: Actor) -> None:
    stuck = {"max_surge": 0, "max_unavailable": 0}
    for update in (stuck, {"max_surge": 0}):
        with pytest.raises(InvalidConfig) as refused:
            services.create(ctx, actor, MOCK | {"update": update})
        assert list(refused.value.errors) == ["update.max_unavailable"]
    services.create(ctx, actor, MOCK | {"update": {"max_surge": 0, "max_unavailable": 1}})
    with pytest.raises(InvalidConfig):
        services.update(ctx, actor, "web", {"update": {"max_unavailable": 0}})
    services.update(ctx, actor, "web", {"update": {"max_surge": 1, "max_unavailable": 0}})
