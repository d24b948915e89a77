"""Whatever the origin of a difference, one turn puts it right; and a thousand replicas cost no more for one change."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace

import pytest

from app.domain.routing import hashed
from app.gateway.maps import CHECKS as CHECKS_MAP
from app.gateway.maps import REPLICAS, ROUTES
from tests.integration.gateway.conftest import World, paths
from tests.support.embedded import wait_until
from tests.support.haproxies import Front

A, B = "00000000000a", "00000000000b"
Harm = Callable[[World], None]


def _slot(world: World) -> str:
    return next(slot for slot, server in world.front.shown().servers if server == f"{A}-1")


def _delete_server(world: World) -> None:
    name = f"{_slot(world)}/{A}-1"
    world.front.ask(f"set server {name} state maint")
    wait_until(lambda: "deleted" in world.front.ask(f"del server {name}")[0], 10, "the server to be deleted")


def _drain(world: World) -> None:
    world.front.ask(f"set server {_slot(world)}/{A}-1 state drain")


def _disable(world: World) -> None:
    world.front.ask(f"set server {_slot(world)}/{A}-1 state maint")


def _move(world: World) -> None:
    world.front.ask(f"set server {_slot(world)}/{A}-1 addr 127.0.0.1 port {world.servers[B].port}")


def _turn_down(world: World) -> None:
    world.front.ask(f"set server {_slot(world)}/{A}-1 weight 0")


def _forget_name(world: World) -> None:
    world.front.ask(f"del map maps/{ROUTES} {hashed('tiny')}")


def _mislead(world: World) -> None:
    world.front.ask(f"set map maps/{ROUTES} {hashed('tiny')} route_0019|x")


def _double(world: World) -> None:
    path = f"maps/{ROUTES}"
    value = dict(world.front.shown().maps[ROUTES])[hashed("tiny")]
    world.front.ask(f"del map {path} {hashed('tiny')}", f"add map {path} {hashed('tiny')} route_0019|x")
    world.front.ask(f"add map {path} {hashed('tiny')} {value}")


def _add_stranger(world: World) -> None:
    slot = _slot(world)
    world.front.ask(f"add server {slot}/stranger 127.0.0.1:{world.servers[B].port}", f"enable server {slot}/stranger")
    world.front.ask(f"add map maps/{ROUTES} {hashed('stranger')} {slot}|x")


def _empty_maps(world: World) -> None:
    world.front.ask(*(f"clear map maps/{name}" for name in (ROUTES, REPLICAS, CHECKS_MAP)))


def _restart(world: World) -> None:
    world.front.kill()
    world.front.start()


def _restart_from_nothing(world: World) -> None:
    world.front.kill()
    world.front.places.config.write_text(world.front.render({}))
    for name in (ROUTES, REPLICAS, CHECKS_MAP):
        (world.front.places.maps / name).write_text("")
    world.front.start()


def _lose_files(world: World) -> None:
    world.front.places.table.unlink()
    world.front.places.config.unlink()
    shutil.rmtree(world.front.places.maps)
    world.front.places.maps.mkdir()


def _damage_files(world: World) -> None:
    world.front.places.table.write_text('{"version": 1, "routes": [{"kind"')
    world.front.places.config.write_text("backend nonsense\n")
    (world.front.places.maps / ROUTES).write_text("x y\n")


HARMS: list[Harm] = [
    _delete_server, _drain, _disable, _move, _turn_down, _forget_name, _mislead, _double, _add_stranger, _empty_maps,
    _restart, _restart_from_nothing, _lose_files, _damage_files,
]  # fmt: skip


@pytest.mark.parametrize("again", [False, True], ids=["same agent", "next agent"])
@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__.strip("_"))
def test_a_foreign_hand(world: World, harm: Harm, again: bool) -> None:
    world.add(A)
    world.add(B, model="other")
    world.turn()
    files, shown = paths(world.front.places.folder), world.front.shown()
    harm(world)
    keeper = world.new_keeper() if again else world.keeper
    assert keeper is not None
    wait_until(lambda: not keeper.turn().unfinished, 10, "everything to be as it was")
    assert world.answers("tiny") == {A}
    assert world.answers("other") == {B}
    assert world.answers("stranger", 1) == {"404"}
    now = world.front.shown()
    assert {name: dict(entries) for name, entries in now.maps.items()} == {
        name: dict(entries) for name, entries in shown.maps.items()
    }
    assert all(len(entries) == len(dict(entries)) for entries in now.maps.values())
    assert {key: replace(one, up=True) for key, one in now.servers.items()} == {
        key: replace(one, up=True) for key, one in shown.servers.items()
    }
    assert {name: text for name, text in paths(world.front.places.folder).items() if "log" not in name} == {
        name: text for name, text in files.items() if "log" not in name
    }


def test_haproxy_started_without_an_agent_serves_what_was_written_last(world: World) -> None:
    world.add(A)
    world.turn()
    world.front.kill()
    world.front.start()
    assert world.answers() == {A}


def test_while_haproxy_is_away_the_files_go_on(world: World) -> None:
    world.add(A)
    world.turn()
    world.front.kill()
    world.add(B)
    world.set_state(A, "failed")
    assert not world.turn().haproxy_up
    assert world.held() == {f"{A}-1", f"{B}-1"}
    world.front.start()
    assert world.answers() == {B}


def test_a_gateway_that_was_declared_gone_takes_out_what_it_may_not_have(world: World) -> None:
    """Its agent was frozen, and what it routed to may be another's by now."""
    world.add(A)
    world.add(B)
    world.turn()
    world.change("DELETE FROM gateways")
    world.change("UPDATE attempts SET released_at = hostler_now() WHERE replica_id = :id", id=A)
    keeper = world.new_keeper()
    wait_until(lambda: not keeper.turn().unfinished, 10, "the server to be deleted")
    assert world.answers() == {B}
    assert world.held() == {f"{B}-1"}


@pytest.mark.timeout(180)
def test_a_thousand_replicas_of_five_hundred_models(world: World, front_of: Callable[[int], Front]) -> None:
    world.front.kill()
    world.front = front_of(500)
    world.change(
        "INSERT INTO replicas (id, owner, pool, backend, engine, server_mode, model_name, priority, state, node, host,"
        " port, base_url, spec) SELECT lpad(to_hex(g), 12, '0'), '000000000000', 'local', 'process', 'mock',"
        " 'replica_mock', 'm' || g % 500, 2, 'ready', 'here', '127.0.0.1', 20000 + g, 'http://127.0.0.1:' || 20000 + g,"
        ' \'{"resolved": {"config": {}}}\' FROM generate_series(1, 1000) g'
    )
    world.change(
        "INSERT INTO attempts (replica_id, number, name, pool, backend, node, port)"
        " SELECT id, 1, 'x-' || id, 'local', 'process', 'here', port FROM replicas"
    )
    keeper = world.new_keeper()
    assert keeper.turn().commands > 3000
    assert len(world.front.shown().servers) == 1000
    assert keeper.turn().commands == 0
    world.add("ffffffffffff", model="m7")
    # the server, its health, its state, its check's path, its address
    assert keeper.turn().commands == 5
    world.set_state("ffffffffffff", "unhealthy")
    # it gets nothing new, and is named no more
    assert keeper.turn().commands == 2
    assert keeper.turn().commands == 0
    assert len(world.held()) == 1001
