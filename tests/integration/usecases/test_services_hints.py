"""Who reconciles hears of changes by hints and looks by the clock: a lost hint costs a moment, a wrong one nothing."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text

from app.usecases import creates, events, reconciling, service_acts, services
from app.usecases.context import Actor, Context
from tests.support.services import Hands, create


def test_what_changed_without_a_hint_is_found_by_the_clock(ctx: Context, actor: Actor, hands: Hands) -> None:
    service = create(ctx, actor, 2, restart={"stable_s": 0}).service_id
    hands.settle(service)
    hands.fail(hands.live(service)[0].id)
    change(ctx, "DELETE FROM service_hints")
    reconciling.sweep(ctx)
    assert len(hands.live(service)) == 1
    hands.pass_time(reconciling.LOOK_S + 1)
    reconciling.sweep(ctx)
    assert len(hands.live(service)) == 2


def test_no_clock_keeps_a_service_from_being_looked_at(ctx: Context, actor: Actor, hands: Hands) -> None:
    service = create(ctx, actor, 1).service_id
    hands.pass_time(1_000_000)
    hands.settle(service)
    hands.fail(hands.live(service)[0].id)
    change(ctx, "DELETE FROM service_hints")
    hands.pass_time(-1_000_000)
    # neither its next look nor the end of its backoff lies a week ahead
    reconciling.sweep(ctx)
    assert len(hands.live(service)) == 1


def test_at_rest_it_costs_a_look_now_and_then_and_writes_nothing_else(ctx: Context, actor: Actor, hands: Hands) -> None:
    made = [create(ctx, actor, 2).service_id for _ in range(5)]
    for service in made:
        hands.settle(service)
    before = versions(ctx)
    assert reconciling.turn(ctx) == 0
    hands.pass_time(reconciling.LOOK_S + 1)
    assert reconciling.turn(ctx) == 5
    assert reconciling.turn(ctx) == 0
    assert versions(ctx) == before


def test_hints_of_what_is_no_service_go(ctx: Context, actor: Actor) -> None:
    asked = creates.request_create(ctx, actor, {"server_mode": "replica_mock", "model_name": "m", "pool": "mock"})
    # as replicas were labelled by hand before there were services
    change(ctx, 'UPDATE replicas SET labels = \'{"service_id": "mine"}\' WHERE id = :id', id=asked.replica_id)
    change(ctx, "UPDATE replicas SET desired_state = 'stopped' WHERE id = :id", id=asked.replica_id)
    assert count(ctx, "service_hints") == 1
    reconciling.sweep(ctx)
    assert count(ctx, "service_hints") == 0


def test_one_that_somebody_is_at_is_left_to_them(ctx: Context, actor: Actor, hands: Hands) -> None:
    first, second = (create(ctx, actor, 1, restart={"stable_s": 0}).service_id for _ in range(2))
    for service in (first, second):
        hands.settle(service)
    for service in (first, second):
        hands.fail(hands.live(service)[0].id)
    with ctx.database.begin() as other:
        other.execute(text("SELECT 1 FROM services WHERE id = :id FOR UPDATE"), {"id": first})
        reconciling.sweep(ctx)
        assert (hands.live(first), len(hands.live(second))) == ([], 1)
    # its hint was not taken
    reconciling.sweep(ctx)
    assert len(hands.live(first)) == 1


def test_many_replicas_are_made_by_several_transactions(
    ctx: Context, actor: Actor, hands: Hands, monkeypatch: Any
) -> None:
    monkeypatch.setattr(service_acts, "MOST_CREATES", 4)
    service = create(ctx, actor, 10).service_id
    assert len(hands.live(service)) == 4
    reconciling.turn(ctx)
    assert len(hands.live(service)) == 8
    reconciling.sweep(ctx)
    assert len(hands.live(service)) == 10
    assert [row.ordinal for row in hands.live(service)] == list(range(10))


def test_events_of_a_service_are_listed_by_it(ctx: Context, actor: Actor, hands: Hands) -> None:
    service = create(ctx, actor, 1, restart={"stable_s": 0}).service_id
    create(ctx, actor, 1)
    hands.settle(service)
    hands.fail(hands.live(service)[0].id)
    hands.settle(service)
    services.scale(ctx, actor, service, 0)
    hands.settle(service)
    services.cancel(ctx, actor, service)
    hands.settle(service)
    told, _ = events.list_events(ctx, {"service_id": service}, 100, None, oldest_first=True)
    kinds = [one["kind"] for one in told]
    assert kinds == [
        "service_created", "service_good", "task_succeeded", "service_replacing", "service_scaled", "task_succeeded",
        "service_cancelled", "service_ended", "task_succeeded",
    ]  # fmt: skip
    assert {one["service_id"] for one in told} == {service}


def change(ctx: Context, statement: str, **values: Any) -> None:
    with ctx.database.begin() as connection:
        connection.execute(text(statement), values)


def count(ctx: Context, table: str) -> int:
    with ctx.database.read() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())


def versions(ctx: Context) -> list[Any]:
    with ctx.database.read() as connection:
        return list(connection.execute(text("SELECT id, version, updated_at FROM services ORDER BY id")))
