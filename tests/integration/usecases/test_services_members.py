"""A service's replicas under the hands of others: stopped, restarted, deleted, out of sight."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from app.db.repos import replicas as replicas_repo
from app.db.repos import service_members
from app.db.repos.replicas import Move
from app.domain.lifecycle import State
from app.errors import Conflict
from app.usecases import reconciling, replicas, services, tasks
from app.usecases.context import Actor, Context
from tests.support.services import Hands, create


def test_one_that_a_user_stops_is_replaced_at_once(ctx: Context, actor: Actor, hands: Hands) -> None:
    service = create(ctx, actor, 2).service_id
    hands.settle(service)
    victim, other = hands.live(service)
    replicas.request_stop(ctx, actor, victim.id)
    reconciling.sweep(ctx)
    new = hands.live(service)[-1]
    assert (new.ordinal, new.tries, new.state) == (victim.ordinal, 0, "pending")
    assert {row.id for row in hands.live(service)} == {other.id, new.id}


def test_one_that_a_user_restarts_keeps_its_place(ctx: Context, actor: Actor, hands: Hands) -> None:
    service = create(ctx, actor, 2).service_id
    hands.settle(service)
    before = {row.id for row in hands.live(service)}
    victim = hands.live(service)[0]
    replicas.request_restart(ctx, actor, victim.id)
    reconciling.sweep(ctx)
    assert {row.id for row in hands.replicas(service)} == before
    # the old attempt was seen gone, and the next one is on its way
    with ctx.database.begin() as connection:
        move = Move(victim.id, 1, (State.STOPPING, State.PENDING), cause="seen gone", patch={"attempt": 2})
        assert replicas_repo.record_moves(connection, [move])
    reconciling.sweep(ctx)
    hands.make_ready(victim.id)
    hands.settle(service)
    assert {row.id for row in hands.replicas(service)} == before
    assert services.get(ctx, service)["overall_status"] == "healthy"


def test_one_that_was_replaced_and_is_restarted_is_one_too_many(ctx: Context, actor: Actor, hands: Hands) -> None:
    service = create(ctx, actor, 1).service_id
    hands.settle(service)
    [first] = hands.live(service)
    hands.pass_time(100)
    hands.fail(first.id)
    hands.settle(service)
    [second] = hands.live(service)
    replicas.request_restart(ctx, actor, first.id)
    assert len(hands.live(service)) == 2
    hands.settle(service)
    assert [row.id for row in hands.live(service)] == [second.id]
    assert services.get(ctx, service)["plan"]["settled"]


def test_one_of_a_cancelled_service_that_is_restarted_is_put_away(ctx: Context, actor: Actor, hands: Hands) -> None:
    service = create(ctx, actor, 1).service_id
    hands.settle(service)
    [only] = hands.live(service)
    services.cancel(ctx, actor, service)
    hands.settle(service)
    replicas.request_restart(ctx, actor, only.id)
    reconciling.sweep(ctx)
    assert hands.live(service) == []


def test_one_that_dies_again_and_again_costs_no_more_each_time(ctx: Context, actor: Actor, hands: Hands) -> None:
    service = create(ctx, actor, 1).service_id
    for _ in range(12):
        hands.settle(service)
        hands.pass_time(100)
        [living] = hands.live(service)
        hands.fail(living.id)
        reconciling.sweep(ctx)
    hands.settle(service)
    assert len(hands.replicas(service)) == 13
    with ctx.database.read() as connection:
        present = service_members.planned(connection, [service])
    assert len(present) <= 2
    [living] = hands.live(service)
    assert living.tries <= 1


def test_one_that_lives_is_not_deleted_and_one_that_ended_may_be(ctx: Context, actor: Actor, hands: Hands) -> None:
    service = create(ctx, actor, 1).service_id
    hands.settle(service)
    [living] = hands.live(service)
    with pytest.raises(Conflict):
        replicas.delete(ctx, actor, living.id)
    hands.pass_time(100)
    hands.fail(living.id)
    reconciling.sweep(ctx)
    replicas.delete(ctx, actor, living.id)
    reconciling.sweep(ctx)
    [new] = hands.replicas(service)
    assert new.replaces == living.id
    hands.settle(service)
    assert services.get(ctx, service)["overall_status"] == "healthy"


def test_a_given_up_one_that_is_deleted_makes_room_for_a_new_one(ctx: Context, actor: Actor, hands: Hands) -> None:
    service = create(ctx, actor, 1, restart={"tries": 0}).service_id
    [victim] = hands.live(service)
    hands.fail(victim.id)
    reconciling.sweep(ctx)
    assert hands.live(service) == []
    replicas.delete(ctx, actor, victim.id)
    reconciling.sweep(ctx)
    assert len(hands.live(service)) == 1


def test_a_host_out_of_sight_loses_no_replica(ctx: Context, actor: Actor, hands: Hands) -> None:
    service = create(ctx, actor, 3).service_id
    hands.settle(service)
    with ctx.database.begin() as connection:
        connection.execute(text("INSERT INTO nodes (name, attributes) VALUES ('n', '{\"silent\": {}}')"))
        connection.execute(text("UPDATE replicas SET node = 'n'"))
        moves = [Move(row.id, 1, (State.READY, State.UNREACHABLE), cause="host silent") for row in hands.live(service)]
        assert len(replicas_repo.record_moves(connection, moves)) == 3
    hands.pass_time(10_000)
    reconciling.sweep(ctx)
    assert len(hands.replicas(service)) == 3
    assert {row.desired_state for row in hands.replicas(service)} == {"running"}


def test_an_ended_one_that_is_not_seen_gone_is_told(ctx: Context, actor: Actor, hands: Hands) -> None:
    outcome = create(ctx, actor, 1)
    hands.settle(outcome.service_id)
    [living] = hands.live(outcome.service_id)
    hands.pass_time(100)
    hands.fail(living.id, gone=False)
    reconciling.sweep(ctx)
    shown = services.get(ctx, outcome.service_id)
    assert [one["replica_id"] for one in shown["replicas"]] == [row.id for row in hands.replicas(outcome.service_id)]
    assert shown["cleanup"]["replicas"] == [living.id]
    asked = services.cancel(ctx, actor, outcome.service_id)
    reconciling.sweep(ctx)
    # nothing may be called gone before it is
    assert tasks.get(ctx, asked.task_id)["state"] == "running"
    hands.see_gone(living.id)
    hands.settle(outcome.service_id)
    assert tasks.get(ctx, asked.task_id)["state"] == "succeeded"


def test_who_is_stopped_is_unhealthy_or_has_least_to_do(
    ctx: Context, actor: Actor, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = create(ctx, actor, 5).service_id
    hands.settle(service)
    first, second, third, fourth, fifth = hands.live(service)
    with ctx.database.begin() as connection:
        move = Move(second.id, 1, (State.READY, State.UNHEALTHY), cause="observed")
        assert replicas_repo.record_moves(connection, [move])
    loads = {first.id: 3, third.id: 1, fourth.id: 7, fifth.id: 2}
    monkeypatch.setattr(reconciling, "load_of", lambda _: loads)
    services.scale(ctx, actor, service, 3)
    assert {row.id for row in hands.live(service)} == {first.id, fourth.id, fifth.id}
    # as whoever sweeps sees it too
    with ctx.database.begin() as connection:
        connection.execute(text("UPDATE services SET count = 2, look_at = hostler_now()"))
    reconciling.sweep(ctx)
    assert {row.id for row in hands.live(service)} == {first.id, fourth.id}


def test_who_is_routed_finishes_first_when_it_is_scaled_away(ctx: Context, actor: Actor, hands: Hands) -> None:
    service = create(ctx, actor, 2, body={"gateway_config": {"drain_s": 40}}).service_id
    hands.settle(service)
    with ctx.database.begin() as connection:
        connection.execute(text("INSERT INTO gateways (id, node, pid) VALUES ('g', 'n', 1)"))
        connection.execute(
            text(
                "INSERT INTO gateway_servers (gateway, server, replica_id, attempt, port)"
                " SELECT 'g', id || '-1', id, 1, 20000 FROM replicas"
            )
        )
    services.scale(ctx, actor, service, 1)
    with ctx.database.read() as connection:
        drains = list(connection.execute(text("SELECT replica_id, seconds FROM drains")))
    [leaving] = hands.replicas(service, "stopping")
    assert [(row.replica_id, row.seconds) for row in drains] == [(leaving.id, 40.0)]
