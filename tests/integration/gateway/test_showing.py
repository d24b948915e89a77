"""What the API shows of the gateway: routes from HAProxy's own socket, gateways from their heartbeats."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app import create_app
from app.usecases import keys
from app.usecases.gateways import gateway_id
from tests.integration.api.conftest import Caller
from tests.integration.gateway.conftest import World
from tests.support.embedded import wait_until

A, B = "00000000000a", "00000000000b"


@pytest.fixture
def ask(world: World) -> Iterator[Caller]:
    key = f"admin-{secrets.token_hex(16)}"
    keys.ensure_admin_key(world.settings, key)
    app = create_app(world.settings)
    yield Caller(app.test_client(), key)
    app.extensions["hostler"].close()


def test_routes_with_their_replicas_and_what_is_in_flight(world: World, ask: Caller) -> None:
    world.add(A, service="chat", gateway_config={"max_concurrency": 2})
    world.add(B, model="other", state="starting")
    world.turn()
    with world.front.stream("/stream", {}, route="tiny") as answer:
        assert next(answer.iter_raw()) == b"begun"
        body = ask.get("/api/v1/routes").json
        world.servers[A].finish()
    assert body is not None
    assert body["gateway"] == gateway_id(world.settings)
    assert body["total"] == 3
    by_name = {(route["kind"], route["name"]): route for route in body["routes"]}
    route = by_name["model", "tiny"]
    assert route | {"replicas": [], "slot": ""} == {
        "name": "tiny", "kind": "model", "model": "tiny", "state": "ready", "slot": "", "replicas_up": 1,
        "in_flight": 1, "queued": 0, "replicas": [],
    }  # fmt: skip
    (replica,) = route["replicas"]
    assert (replica["replica_id"], replica["state"], replica["in_flight"]) == (A, "up", 1)
    assert (replica["max_concurrency"], replica["pool"], replica["requests"]) == (2, "local", 1)
    assert datetime.now(UTC) - datetime.fromisoformat(replica["since"]) < timedelta(seconds=60)
    assert by_name["service", "chat"]["in_flight"] == 1
    assert by_name["model", "other"]["state"] == "out"


def test_what_checks_took_out_is_down_and_what_stops_drains(world: World, ask: Caller) -> None:
    world.add(A)
    world.add(B)
    world.turn()
    world.set_state(B, "stopping")
    world.turn()
    world.servers[A].close()

    def states() -> dict[str, str]:
        body = ask.get("/api/v1/routes?name=tiny").json
        assert body is not None
        return {one["replica_id"]: one["state"] for one in body["routes"][0]["replicas"]}

    wait_until(lambda: states() == {A: "down", B: "draining"}, 10, "HAProxy's check")


def test_pages_and_filters(world: World, ask: Caller) -> None:
    for number in range(5):
        world.add(f"{number:012x}", model=f"m{number}", service="all")
    world.turn()
    seen, cursor = [], ""
    while cursor is not None:
        body = ask.get(f"/api/v1/routes?limit=2&cursor={cursor}").json
        assert body is not None
        seen += [(route["kind"], route["name"]) for route in body["routes"]]
        cursor = body["next_cursor"]
    assert seen == [*(("model", f"m{number}") for number in range(5)), ("service", "all")]
    found = ask.get("/api/v1/routes?kind=service").json
    assert found is not None
    assert found["total"] == 1
    assert ask.get("/api/v1/routes?kind=nonsense").status_code == 422


def test_without_haproxy_it_is_a_503_that_says_so(world: World, ask: Caller) -> None:
    world.add(A)
    world.turn()
    world.front.kill()
    answer = ask.get("/api/v1/routes")
    assert answer.status_code == 503
    assert answer.json is not None
    assert answer.json["code"] == "gateway_unavailable"
    assert "Retry-After" in answer.headers
    assert "hostler_gateway_up 0.0" in ask.get("/metrics").text


def test_figures_for_prometheus_bear_model_and_pool(world: World, ask: Caller) -> None:
    world.add(A, service="chat")
    world.turn()
    assert world.answers("tiny", 3) == {A}
    families = {one.name: one for one in text_string_to_metric_families(ask.get("/metrics").text)}
    labels = {"model": "tiny", "pool": "local", "replica_id": A}
    requests = families["hostler_gateway_requests"].samples
    assert [(one.labels, one.value) for one in requests] == [(labels, 3.0)]
    assert [one.value for one in families["hostler_gateway_replica_up"].samples] == [1.0]
    assert families["hostler_gateway_up"].samples[0].value == 1.0


def test_a_gateway_is_forgotten_when_it_is_gone_and_not_while_it_lives(world: World, ask: Caller) -> None:
    world.add(A)
    world.turn()
    found = ask.get("/api/v1/gateways").json
    assert found is not None
    (gateway,) = found["gateways"]
    assert (gateway["id"], gateway["state"], gateway["servers"]) == (gateway_id(world.settings), "up", 1)
    path = f"/api/v1/gateways/{gateway['id']}"
    assert ask("DELETE", path).status_code == 409
    world.change("UPDATE gateways SET heartbeat_at = hostler_now() - interval '1 hour'")
    assert ask("DELETE", path).status_code == 204
    assert ask("DELETE", path).status_code == 404
    assert world.held() == set()
    assert [row.kind for row in world.rows("SELECT kind FROM events WHERE kind = 'gateway_forgotten'")]


def test_reading_takes_the_role_read(world: World, ask: Caller) -> None:
    anybody = Caller(ask.client, "x" * 40)
    assert [anybody.get(f"/api/v1/{path}").status_code for path in ("routes", "gateways")] == [401, 401]
