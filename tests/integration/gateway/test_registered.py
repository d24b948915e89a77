"""Registered servers that answer are routes like any other, through the relay, and only where their key may serve."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.routing import hashed, registered_name
from app.gateway.maps import REGISTERED, REPLICAS, ROUTES
from app.usecases.gateway_load import GatewayLoad
from tests.integration.gateway.conftest import NODE, World
from tests.support.embedded import wait_until

A = "00000000000a"


def register(world: World, name: str, model: str = "mine", **more: Any) -> str:
    """A registration that lives; returns its server's name."""
    values = {"owner": "000000000001", "health": "healthy", "speaks": "http", "node": NODE, "local": True} | more
    world.change("INSERT INTO registrars (id, node) VALUES ('r', :node) ON CONFLICT DO NOTHING", node=NODE)
    world.change(
        "INSERT INTO registrations (replica_id, generation, owner, registrar, node, endpoint, host, port, addresses,"
        " address, local, capabilities, health, speaks) VALUES (:id, nextval('registration_generations'), :owner, 'r',"
        " :node, '127.0.0.1:7001', '127.0.0.1', 7001, '{127.0.0.1}', '127.0.0.1', :local,"
        " jsonb_build_array(jsonb_build_object('model', CAST(:model AS text))), :health, :speaks)",
        id=name,
        model=model,
        **values,
    )
    row = world.rows("SELECT generation FROM registrations WHERE replica_id = :id", id=name)[0]
    return registered_name(name, row.generation, model)


@pytest.fixture(autouse=True)
def _keys(world: World) -> None:
    world.change(
        "INSERT INTO keys (id, name, hash, prefix, role, models) VALUES"
        " ('000000000001', 'a', repeat('B', 64), 'x', 'register', NULL),"
        " ('000000000002', 'b', repeat('C', 64), 'x', 'register', NULL),"
        " ('000000000003', 'c', repeat('D', 64), 'x', 'register', '{tiny}'),"
        " ('000000000004', 'd', repeat('E', 64), 'x', 'operate', NULL)"
    )


def members(world: World, model: str) -> set[str]:
    world.turn()
    shown = world.front.shown()
    slot = dict(shown.maps[ROUTES]).get(hashed(model), "-").partition("|")[0]
    return {server for at, server in shown.servers if at == slot}


def test_what_answers_is_reached_through_the_relay_and_holds_no_port(world: World) -> None:
    server = register(world, "gpu box / 1")
    assert members(world, "mine") == {server}
    shown = world.front.shown()
    assert [one.ip for one in shown.servers.values()] == ["-"]
    assert dict(shown.maps[REGISTERED]) == {server: "127.0.0.1|7001"}
    assert not shown.maps[REPLICAS]
    assert world.held() == set()


@pytest.mark.parametrize(
    "more", [{"health": "unknown"}, {"health": "unhealthy"}, {"speaks": "other"}, {"node": "elsewhere"}], ids=str
)
def test_what_does_not_answer_here_is_no_route(world: World, more: dict[str, Any]) -> None:
    register(world, "one", **more)
    assert members(world, "mine") == set()


def test_it_draws_nobody_elses_prompts(world: World) -> None:
    world.add(A, model="tiny")
    world.change("INSERT INTO models (name, engine, owner) VALUES ('asleep', 'mock', '000000000000')")
    register(world, "thief", "tiny")
    register(world, "early", "asleep")
    assert members(world, "tiny") == {f"{A}-1"}
    assert members(world, "asleep") == set()
    first = register(world, "first", "new")
    register(world, "second", "new", owner="000000000002")
    assert members(world, "new") == {first}
    allowed, trusted = (register(world, f"by-{n}", "tiny", owner=f"00000000000{n}") for n in (3, 4))
    assert members(world, "tiny") == {f"{A}-1", allowed, trusted}


def test_it_leaves_when_it_ends_and_comes_back_under_another_name(world: World) -> None:
    before = register(world, "one")
    assert members(world, "mine") == {before}
    world.change("UPDATE registrations SET ended_at = hostler_now(), end_reason = 'closed'")
    assert members(world, "mine") == set()
    world.change(
        "UPDATE registrations SET ended_at = NULL, end_reason = NULL, generation = nextval('registration_generations')"
    )
    after = members(world, "mine")
    assert len(after) == 1
    assert after != {before}


def test_what_is_in_flight_is_told_by_member(world: World) -> None:
    """Whoever hands out servers asks who is busy."""
    world.add(A)
    world.turn()
    load = GatewayLoad(world.front.settings)
    assert load.read() == {}
    with world.front.stream("/stream", {}, route="tiny") as answer:
        assert answer.status_code == 200
        assert load.read() == {A: 1}
        world.servers[A].finish()
        answer.read()
    wait_until(lambda: load.read() == {}, 5, "the figures of an idle gateway")
    world.front.kill()
    assert load.read() == {}
