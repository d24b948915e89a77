"""What must not be registered, and bodies that nobody should send: refused by name, and never a defect."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from app.usecases.context import Context
from app.usecases.registrations import Watch
from tests.integration.registry.conftest import Api
from tests.support.embedded import wait_until

CHAT = {"type": "chat"}
#: Streams that come and go; far more than connections that are kept for something else.
COUNT = 80


@pytest.fixture(scope="module")
def bodies() -> dict[str, Any]:
    return {"replica_id": "r1", "endpoint": "localhost:1001", "capabilities": [CHAT]}


NOWHERE = [
    "10.0.0.1:80",
    "[2001:db8::1]:80",
    "example.invalid.:80",
    "169.254.169.254:80",
    "[::ffff:169.254.169.254]:80",
    "[fe80::1]:80",
    "0.0.0.0:80",
    "[::]:80",
    "[::ffff:0.0.0.0]:80",
    "224.0.0.1:80",
    "[ff02::1]:80",
    "255.255.255.255:80",
]


def test_where_nothing_may_be_registered(api: Api, bodies: dict[str, Any], subtests: pytest.Subtests) -> None:
    for endpoint in NOWHERE:
        with subtests.test(endpoint):
            answer = api.ask("POST", "/register", bodies | {"endpoint": endpoint})
            # a name that means nothing is no endpoint at all
            assert answer.status_code == (422 if "invalid" in endpoint else 403), answer.text
            assert answer.headers["content-type"] == "application/problem+json"
            assert "endpoint" in answer.json()["detail"]
    assert api.ids() == []


def test_the_list_does_not_open_what_is_never_allowed(start_api: Callable[..., Api], bodies: dict[str, Any]) -> None:
    api = start_api(register_allow="0.0.0.0/0,::/0")
    for endpoint in (
        "169.254.169.254:80",
        "[64:ff9b::a9fe:a9fe]:80",
        "[2002:a9fe:a9fe::]:80",
        "0.0.0.0:1",
        "224.0.0.1:1",
    ):
        assert api.ask("POST", "/register", bodies | {"endpoint": endpoint}).status_code == 403, endpoint
    api.register("r1", "192.0.2.1:80", CHAT)
    assert api.route(type="chat") == {"endpoint": "192.0.2.1:80", "replica_id": "r1"}


def test_ports_of_hostlers_own_are_refused(start_api: Callable[..., Api], ctx: Context, bodies: dict[str, Any]) -> None:
    api = start_api(flower_port=5555)
    port = api.address[1]
    flower = api.settings.flower_port
    assert api.ask("POST", "/register", bodies | {"endpoint": f"localhost:{flower}"}).status_code == 403
    for host in ("localhost", "127.0.0.1", "127.9.9.9", "[::1]", "[::ffff:127.0.0.1]"):
        answer = api.ask("POST", "/register", bodies | {"endpoint": f"{host}:{port}"})
        assert answer.status_code == 403
        assert answer.json()["code"] == "endpoint_refused"
    with engine_at(ctx, "api-0", 23456):
        for host in ("localhost", "127.0.0.1", "[::1]"):
            answer = api.ask("POST", "/register", bodies | {"endpoint": f"{host}:23456"})
            assert answer.status_code == 403, answer.text
    api.register("r1", "localhost:23456", CHAT)


@contextmanager
def engine_at(ctx: Context, node: str, port: int) -> Iterator[None]:
    """An attempt of a replica of that host's holds the port."""
    replica = secrets.token_hex(6)
    with ctx.database.begin() as connection:
        owner = connection.execute(text("SELECT id FROM keys LIMIT 1")).scalar_one()
        connection.execute(
            text(
                "INSERT INTO replicas (id, owner, pool, backend, engine, server_mode, model_name, priority, state)"
                " VALUES (:id, :owner, 'local', 'process', 'mock', 'replica_mock', 'm', 2, 'starting')"
            ),
            {"id": replica, "owner": owner},
        )
        attempt = connection.execute(
            text(
                "INSERT INTO attempts (replica_id, number, name, pool, backend, node)"
                " VALUES (:id, 1, :id || '-1', 'local', 'process', :node) RETURNING id"
            ),
            {"id": replica, "node": node},
        ).scalar_one()
        connection.execute(text("SET CONSTRAINTS ALL DEFERRED"))
        connection.execute(
            text("INSERT INTO units (kind, scope, number) VALUES ('port', :node, :port) ON CONFLICT DO NOTHING"),
            {"node": node, "port": port},
        )
        lease = connection.execute(
            text(
                "INSERT INTO leases (kind, scope, number, attempt_id, holder)"
                " VALUES ('port', :node, :port, :attempt, 'h') RETURNING id"
            ),
            {"node": node, "port": port, "attempt": attempt},
        ).scalar_one()
        connection.execute(
            text("UPDATE units SET lease_id = :lease WHERE scope = :node AND number = :port"),
            {"lease": lease, "node": node, "port": port},
        )
    yield
    with ctx.database.begin() as connection:
        values = {"lease": lease, "node": node, "port": port}
        connection.execute(text("UPDATE units SET lease_id = NULL WHERE scope = :node AND number = :port"), values)
        connection.execute(text("UPDATE leases SET released_at = hostler_now() WHERE id = :lease"), values)


def test_what_stands_where_an_engine_comes_to_be_is_ended(api: Api, ctx: Context) -> None:
    stream = api.register("r1", "localhost:23457", CHAT)
    assert Watch().turn(ctx) == 0
    with engine_at(ctx, "api-0", 23457):
        assert Watch().turn(ctx) == 1
    assert b'"ended"' in stream.read_to_end(5)
    assert api.route(type="chat") is None
    assert api.ask("GET", "/api/v1/registrations/r1").json()["end_reason"] == "refused"


def test_the_id_of_a_replica_is_not_to_be_had(api: Api, ctx: Context, bodies: dict[str, Any]) -> None:
    with engine_at(ctx, "api-0", 23458), ctx.database.read() as connection:
        replica = connection.execute(text("SELECT id FROM replicas")).scalar_one()
        answer = api.ask("POST", "/register", bodies | {"replica_id": replica})
    assert answer.status_code == 409
    assert answer.json()["code"] == "name_taken"


WRONG: list[dict[str, Any]] = [
    {"replica_id": None},
    {"replica_id": ""},
    {"replica_id": "a" * 129},
    {"replica_id": "a b"},
    {"replica_id": "a\nb"},
    {"replica_id": "\u00e9"},
    {"replica_id": 1},
    {"replica_id": ["r1"]},
    {"endpoint": None},
    {"endpoint": "nowhere"},
    {"endpoint": "localhost:99999"},
    {"endpoint": "http://localhost:1"},
    {"endpoint": "localhost:1\r\nX: y"},
    {"endpoint": "2130706433:1"},
    {"endpoint": "127.1:1"},
    {"endpoint": "a" * 400 + ":1"},
    {"capabilities": None},
    {"capabilities": {}},
    {"capabilities": ["chat"]},
    {"capabilities": [[]]},
    {"capabilities": [{"a": None}]},
    {"capabilities": [{"a": {}}]},
    {"capabilities": [{"a": [1]}]},
    {"capabilities": [{"": 1}]},
    {"capabilities": [{"a" * 129: 1}]},
    {"capabilities": [{"a": "x" * 513}]},
    {"capabilities": [{str(n): 1 for n in range(33)}]},
    {"capabilities": [CHAT] * 65},
    {"capabilities": [{"a": "x\u0000y"}]},
    {"capability": [CHAT]},
]


def test_bodies_that_are_wrong_are_told_the_field(api: Api, bodies: dict[str, Any], subtests: pytest.Subtests) -> None:
    for change in WRONG:
        with subtests.test(str(change)[:60]):
            answer = api.ask("POST", "/register", bodies | change)
            assert answer.status_code == 422, answer.text
            assert answer.json()["errors"], answer.text


def test_what_is_missing_is_named(api: Api) -> None:
    answer = api.ask("POST", "/register", {})
    assert answer.status_code == 400
    assert set(answer.json()["errors"]) == {"replica_id", "endpoint", "capabilities"}


MEANT_BY_NOBODY = [
    "model=" + "x" * 3000,
    "&".join(f"k{number}=1" for number in range(300)),
    "model=a&model=b",
    "model=%ff%fe",
    "=x",
    "n=1e999999999",
    "n=" + "9" * 2000,
    "n=-nan",
    "&&&",
]


def test_queries_that_nobody_means_find_nothing(api: Api, subtests: pytest.Subtests) -> None:
    api.register("r1", "localhost:1001", {"model": "a", "n": 1})
    for query in MEANT_BY_NOBODY:
        with subtests.test(query[:60]):
            answer = api.ask("GET", f"/route?{query}")
            assert answer.status_code == (200 if query == "&&&" else 404), answer.text


def test_words_of_any_alphabet_come_through(api: Api) -> None:
    capability = {"\u6a21\u578b": "\u5343\u95ee \U0001f600", "quote'\"\\": "%00&=+"}
    api.register("r1", "localhost:1001", capability)
    assert api.route(**capability) == {"endpoint": "localhost:1001", "replica_id": "r1"}
    assert api.ask("GET", "/registry").json()["replicas"][0]["capabilities"] == [capability]


def test_the_registry_has_an_end(start_api: Callable[..., Api], bodies: dict[str, Any]) -> None:
    api = start_api(max_registrations=2)
    first, second = api.register("r1"), api.register("r2")
    answer = api.ask("POST", "/register", bodies | {"replica_id": "r3"})
    assert answer.status_code == 429
    assert answer.headers["retry-after"]
    # who is in it may come back
    api.register("r2")
    first.close()
    wait_until(lambda: api.ids() == ["r2"], 2, "room")
    api.register("r3")
    second.close()


def test_who_talks_on_a_stream_that_he_only_reads_is_not_heard(api: Api) -> None:
    stream = api.register("r1", "localhost:1001", CHAT)
    with_more = json.dumps({"more": "x" * 100_000}).encode()
    stream.connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(with_more) + with_more)
    assert b'"alive"' in stream.read(b'"alive"', 8)
    assert api.ids() == ["r1"]
    stream.close()
    # the gateway reads no further before this answer is over: it hears of the end when it writes the next keep-alive
    wait_until(lambda: api.ids() == [], 15, "its end within the lease")


def test_no_stream_leaves_anything_open(start_api: Callable[..., Api]) -> None:
    """Not a descriptor for each that came and went, refused ones too."""
    api = start_api(web_workers=1)
    api.register("first").close()
    wait_until(lambda: api.ids() == [], 5, "its end")
    before = _descriptors(api)
    for number in range(COUNT):
        api.register(f"r{number}").close()
        api.ask("POST", "/register", {"replica_id": "r", "endpoint": "10.0.0.1:1", "capabilities": []})
    wait_until(lambda: api.ids() == [], 5, "all to end")
    # but for the connections that the gateway keeps for other requests, and the database's
    wait_until(lambda: _descriptors(api) <= before + COUNT // 2, 10, "their descriptors to be closed")


def _descriptors(api: Api) -> int:
    master = api.processes["web"].pid
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    return sum(len(os.listdir(f"/proc/{child}/fd")) for child in children)
