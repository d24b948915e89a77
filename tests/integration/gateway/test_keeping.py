"""One turn after the other against a real HAProxy and Postgres: what is ready is routed, what is not is not."""

from __future__ import annotations

import pytest

from app.domain.routing import hashed
from app.errors import Unavailable
from tests.integration.gateway.conftest import World
from tests.support.embedded import wait_until

A, B, C = "00000000000a", "00000000000b", "00000000000c"


def test_what_is_ready_takes_requests_by_model_alias_and_service(world: World) -> None:
    world.add(A, service="chat")
    world.change("INSERT INTO models (name, engine, owner, aliases) VALUES ('tiny', 'mock', '000000000000', '{gpt}')")
    world.turn()
    assert world.answers("tiny") == world.answers("gpt") == {A}
    assert world.front.get(service="chat").text == A
    assert world.front.get(route="other").status_code == 404
    assert world.held() == {f"{A}-1"}


def test_a_known_model_without_a_ready_replica_is_503_and_an_unknown_one_404(world: World) -> None:
    world.add(A, state="waiting_for_ready")
    world.change("INSERT INTO models (name, engine, owner) VALUES ('asleep', 'mock', '000000000000')")
    world.turn()
    assert world.answers("tiny", 1) == world.answers("asleep", 1) == {"503"}
    assert world.answers("nobody", 1) == {"404"}
    assert world.held() == set()


def test_the_row_is_there_before_the_server_and_gone_after_it(world: World) -> None:
    world.add(A)
    world.turn()
    assert world.held() == {f"{A}-1"}
    world.release(A)
    world.servers[A].close()
    wait_until(lambda: not world.turn().unfinished, 10, "the server to be deleted")
    assert world.held() == set()
    assert not world.front.shown().servers


def test_what_is_seen_gone_before_it_is_held_is_never_routed(world: World) -> None:
    world.add(A)
    world.change("UPDATE attempts SET released_at = hostler_now() WHERE replica_id = :id", id=A)
    world.turn()
    assert world.held() == set()
    assert world.answers("tiny", 1) == {"503"}


def test_what_turns_unhealthy_gets_nothing_new_and_comes_back(world: World) -> None:
    world.add(A)
    world.add(B)
    world.turn()
    assert world.answers() == {A, B}
    world.set_state(A, "unhealthy")
    with world.front.stream("/stream", {}, route="tiny") as before:
        pieces = before.iter_raw()
        assert next(pieces) == b"begun"
        world.turn()
        assert world.front.servers("tiny") == {f"{A}-1": False, f"{B}-1": True}
        assert world.answers() == {B}
        for server in world.servers.values():
            server.finish()
        assert b"".join(pieces) == b" ended"
    world.set_state(A, "ready")
    world.turn()
    assert world.answers() == {A, B}


def test_what_nobody_of_us_can_ask_is_asked_as_long_as_it_answers(world: World) -> None:
    world.add(A)
    world.add(B)
    world.turn()
    for one in (A, B):
        world.set_state(one, "unreachable")
    world.turn()
    assert world.answers("tiny", 8) == {A, B}
    world.servers[A].close()
    wait_until(lambda: not _is_up(world, A), 10, "HAProxy's own check")
    assert world.answers("tiny", 8) == {B}


def test_a_stopping_replica_finishes_what_it_began_and_is_told_idle_after_that(world: World) -> None:
    world.add(A)
    world.turn()
    world.change(
        "INSERT INTO drains (replica_id, attempt, seconds, until) VALUES (:id, 1, 30, hostler_now() + interval '30 s')",
        id=A,
    )
    with world.front.stream("/stream", {}, route="tiny") as answer:
        pieces = answer.iter_raw()
        assert next(pieces) == b"begun"
        world.set_state(A, "stopping")
        draining = world.turn().draining
        assert list(draining) == [f"{A}-1"]
        assert world.keeper is not None
        assert not world.keeper.confirm_idle(draining)
        assert not world.keeper.confirm_idle(draining)
        assert world.answers("tiny", 1) == {"503"}
        world.servers[A].finish()
        assert b"".join(pieces) == b" ended"
    wait_until(lambda: world.keeper and world.keeper.confirm_idle(draining), 5, "it to be idle")
    assert world.rows("SELECT idle_at FROM gateway_servers")[0].idle_at is not None
    assert not world.rows("SELECT 1 FROM drains")


def test_a_port_is_kept_as_long_as_it_may_be_routed(world: World) -> None:
    from app.db.repos import leases

    server = world.add(A)
    world.change("INSERT INTO units (kind, scope, number) VALUES ('port', 'here', :port)", port=server.port)
    world.turn()
    world.front.kill()
    world.release(A)
    with world.ctx.database.begin() as connection:
        assert leases.take(connection, "port", "here", 1, 0, "b") == []
    world.turn()
    assert world.held() == {f"{A}-1"}, "nobody said that HAProxy has it no more"
    world.front.start()
    wait_until(lambda: not world.turn().unfinished, 10, "the server to be deleted")
    assert world.held() == set()
    with world.ctx.database.read() as connection:
        assert leases.free_count(connection, "port", "here") == 1


def test_without_the_database_everything_stays(world: World) -> None:
    world.add(A)
    world.turn()
    broken = World(world.settings, world.ctx, world.actor, world.front)
    broken.change("ALTER TABLE replicas RENAME TO away")
    keeper = world.new_keeper()
    with pytest.raises(Unavailable):
        keeper.turn()
    assert world.answers() == {A}
    broken.change("ALTER TABLE away RENAME TO replicas")
    assert keeper.turn().commands == 0


def test_two_names_never_meet_in_a_slot(world: World) -> None:
    world.add(A, model="a")
    world.turn()
    slot = dict(world.front.shown().maps["routes.map"])[hashed("a")]
    keeper = world.new_keeper(rest_s=60)
    keeper.turn()
    world.release(A)
    world.servers[A].close()
    wait_until(lambda: not keeper.turn().unfinished, 10, "the slot to be empty")
    world.add(B, model="b")
    keeper.turn()
    assert dict(world.front.shown().maps["routes.map"])[hashed("b")] != slot
    assert world.answers("b") == {B}


def test_another_hosts_loopback_is_not_ours(world: World) -> None:
    world.add(A, node="elsewhere")
    world.turn()
    assert world.answers("tiny", 1) == {"503"}
    assert not world.front.shown().servers


def test_how_many_at_once_is_what_the_replica_says(world: World) -> None:
    world.add(A, gateway_config={"max_concurrency": 3})
    world.turn()
    slot = next(iter(world.front.shown().servers))[0]
    figures = world.front.ask(f"show stat {slot} 4 -1")[0].splitlines()
    limit = figures[0].removeprefix("# ").split(",").index("slim")
    assert figures[1].split(",")[limit] == "3"


def _is_up(world: World, replica_id: str) -> bool:
    return any(one.up for (_slot, server), one in world.front.shown().servers.items() if server == f"{replica_id}-1")
