"""`/route` hands out who answers and has least to do; what goes through the gateway counts too."""

from __future__ import annotations

from typing import Any

from app.usecases import keys, registrations
from app.usecases.context import Actor, Context
from app.usecases.registry import registry_of


def register(ctx: Context, *ids: str, role: str = "admin", **capability: Any) -> None:
    made = keys.create(ctx, Actor("t", "t", "admin"), {"name": f"key-{ids[0]}", "role": role}, None).record
    for number, replica_id in enumerate(ids):
        body = {"replica_id": replica_id, "endpoint": f"localhost:{number + 1}", "capabilities": [capability]}
        registrations.register(ctx, Actor(made["id"], made["name"], role), body)


def say(ctx: Context, replica_id: str, health: str) -> None:
    found = registrations.get(ctx, replica_id)
    fact = {name: found[name] for name in ("replica_id", "generation", "address")}
    registrations.record_health(ctx, [fact | {"health": health, "speaks": "http", "message": ""}])


def routed(ctx: Context, times: int, **query: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for _ in range(times):
        replica_id = registry_of(ctx).route(list(query.items())).replica_id
        found[replica_id] = found.get(replica_id, 0) + 1
    return found


def test_healthy_ones_come_first_and_unhealthy_ones_at_all(ctx: Context) -> None:
    register(ctx, "a", "b", "c", type="chat")
    say(ctx, "a", "healthy")
    say(ctx, "b", "unhealthy")
    assert routed(ctx, 10, type="chat") == {"a": 10}
    say(ctx, "a", "unhealthy")
    # nobody has looked at it yet
    assert routed(ctx, 10, type="chat") == {"c": 10}
    say(ctx, "c", "unhealthy")
    assert set(routed(ctx, 30, type="chat")) == {"a", "b", "c"}


def test_equal_ones_get_equal_shares(ctx: Context) -> None:
    names = [f"r{number}" for number in range(10)]
    register(ctx, *names, type="chat")
    assert set(routed(ctx, 200, type="chat").values()) == {20}


def test_who_is_busy_with_the_gateways_requests_is_spared(ctx: Context) -> None:
    register(ctx, "idle", "busy", type="chat")
    registry = registry_of(ctx)
    registry.route([("type", "chat")])
    registry._busy = {"busy": 50}
    assert set(routed(ctx, 20, type="chat")) == {"idle"}


def test_who_may_not_serve_what_he_names_comes_last(ctx: Context) -> None:
    register(ctx, "stranger", role="register", model="ours")
    with ctx.database.begin() as connection:
        connection.exec_driver_sql("INSERT INTO models (name, engine, owner) SELECT 'ours', 'mock', id FROM keys")
    registry_of(ctx)._names_read_at = float("-inf")
    register(ctx, "entitled", model="ours")
    say(ctx, "stranger", "healthy")
    say(ctx, "entitled", "unhealthy")
    assert routed(ctx, 10, model="ours") == {"entitled": 10}
    registrations.remove(ctx, Actor("t", "t", "admin"), "entitled")
    # it is registered all the same: who asks for it finds it
    assert routed(ctx, 1, model="ours") == {"stranger": 1}
