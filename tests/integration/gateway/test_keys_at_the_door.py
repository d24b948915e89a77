"""Who may: keys, roles, models, expiry and limits, as the gateway holds them."""

from __future__ import annotations

import base64
import http.client
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.domain.routing import ModelFacts
from tests.integration.gateway.doors import ENGINE_KEY, Door, open_door, replica
from tests.support.sayers import Sayer, wait_for

BODY = {"model": "m", "messages": []}
PATH = "/v1/chat/completions"


@pytest.fixture(scope="module")
def engine() -> Iterator[Sayer]:
    one = Sayer("m").start()
    yield one
    one.stop()


@pytest.fixture(scope="module")
def door(engine: Sayer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    soon = datetime.now(UTC) + timedelta(hours=1)
    past = datetime.now(UTC) - timedelta(seconds=1)
    keys = {
        **{role: {"role": role} for role in ("read", "register", "operate", "admin")},
        "living": {"role": "infer", "expires_at": soon},
        "expired": {"role": "infer", "expires_at": past},
        "limited": {"role": "infer", "models": ["m"]},
        "nothing": {"role": "infer", "models": []},
        "by alias": {"role": "infer", "models": ["nick"]},
        "slow": {"role": "infer", "limits": {"requests_per_second": 5}},
        "narrow": {"role": "infer", "limits": {"concurrent_requests": 2}},
    }
    facts = [replica(engine, "m", 1, service="svc"), replica(engine, "other", 2, service="mixed")]
    facts.append(replica(engine, "m", 3, service="mixed"))
    with open_door(
        tmp_path_factory.mktemp("door"), facts, models=[ModelFacts("m", ("nick",)), ModelFacts("other")], keys=keys
    ) as found:
        yield found


@pytest.mark.parametrize(
    "form",
    [
        lambda key: {"X-API-Key": key},
        lambda key: {"Authorization": f"Bearer {key}"},
        lambda key: {"Authorization": f"bearer {key}"},
        lambda key: {"Authorization": f"Basic {base64.b64encode(f'me:{key}'.encode()).decode()}"},
        # as clients of Qdrant send it, whatever else they are given
        lambda key: {"api-key": key},
        lambda key: {"X-API-Key": key, "api-key": "nonsense"},
        lambda key: {"Authorization": f"Bearer {key}", "api-key": "nonsense"},
        # the header with the key in it comes before the other
        lambda key: {"X-API-Key": key, "Authorization": "Bearer nonsense"},
    ],
)
def test_a_key_in_each_form(door: Door, engine: Sayer, form: object) -> None:
    answer = door.ask("POST", PATH, BODY, key=None, headers=form(door.keys["all"]))  # type: ignore[operator]
    assert (answer.status, answer.served_by) == (200, "m")
    seen = engine.asked[-1]
    assert seen.headers["authorization"] == f"Bearer {ENGINE_KEY}"
    assert door.keys["all"] not in repr(seen.headers)
    assert "api-key" not in seen.headers
    assert {name for name in seen.headers if name.startswith("x-hostler")} == {"x-hostler-server"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": "x" * 40},
        {"X-API-Key": ""},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Digest abc"},
        {"X-API-Key": "nonsense", "Authorization": "Bearer {all}"},
        {"Cookie": "X-API-Key={all}"},
        {"api-key": "x" * 40},
        {"api-key": ""},
        {"X-API-Key": "nonsense", "api-key": "{all}"},
    ],
)
def test_no_key_that_lives(door: Door, headers: dict[str, str]) -> None:
    sent = {name: value.format(**door.keys) for name, value in headers.items()}
    answer = door.ask("POST", PATH, BODY, key=None, headers=sent)
    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json["code"] == "unauthenticated"
    assert answer.json["source"] == "gateway"


def test_two_keys_are_none(door: Door) -> None:
    for name in ("X-API-Key", "Authorization", "api-key"):
        head = f"{name}: {door.keys['all']}\r\n" * 2
        answer = door.raw(f"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "key,status",
    [("read", 403), ("register", 403), ("operate", 200), ("admin", 200), ("living", 200), ("expired", 401)],
)
def test_roles_and_expiry(door: Door, key: str, status: int) -> None:
    assert door.chat("m", key=key).status == status
    assert door.ask("GET", "/v1/models", key=key).status == status
    assert door.ask("GET", f"/api/v1/replicas/{1:012x}/proxy/x", key=key).status == status


@pytest.mark.parametrize(
    "key,model,status",
    [
        ("limited", "m", 200),
        ("limited", "nick", 200),
        ("limited", "other", 403),
        ("nothing", "m", 403),
        ("by alias", "nick", 200),
        ("by alias", "m", 403),
        ("all", "other", 200),
    ],
)
def test_models_of_a_key(door: Door, key: str, model: str, status: int) -> None:
    fast = door.chat(model, key=key)
    slow = door.ask("POST", PATH, json.dumps({"a": "\\u0061", "model": model}).replace("\\\\", "\\").encode(), key=key)
    large = door.chat(model, key=key, pad="x" * 100_000)
    assert (fast.status, slow.status, large.status) == (status, status, status)


@pytest.mark.parametrize(
    "headers,body,status",
    [
        ({"X-Hostler-Service": "svc"}, BODY, 200),
        ({"X-Hostler-Service": "svc"}, {}, 200),
        ({"X-Hostler-Service": "svc"}, {"model": "other"}, 403),
        ({"X-Hostler-Service": "svc"}, {"model": "m", "pad": "x" * 100_000}, 200),
        ({"X-Hostler-Service": "svc"}, {"pad": "x" * 100_000, "model": "other"}, 403),
        ({"X-Hostler-Service": "svc"}, b'{"model": "m", "model": "other"}', 400),
        ({"X-Hostler-Service": "svc"}, '{"model": "other"}'.encode("utf-16"), 400),
        ({"X-Hostler-Service": "svc"}, b"\0\1\2 no JSON", 200),
        # more than one model is behind it
        ({"X-Hostler-Service": "mixed"}, BODY, 403),
        ({"X-Hostler-Service": "nobody"}, BODY, 404),
        # names of models are none of services
        ({"X-Hostler-Service": "m"}, BODY, 404),
        ({"X-Hostler-Replica": f"{1:012x}"}, BODY, 200),
        ({"X-Hostler-Replica": f"{2:012x}"}, BODY, 403),
        ({"X-Hostler-Replica": f"{1:012x}"}, {"model": "other"}, 403),
        ({"X-Hostler-Replica": f"{9:012x}"}, BODY, 503),
        ({"X-Hostler-Replica": "../../etc"}, BODY, 503),
        ({"X-Hostler-Replica": f"{1:012x}", "X-Hostler-Service": "svc"}, BODY, 400),
        # what only our own processes may say
        ({"X-Hostler-Route": "0" * 64, "X-Hostler-Scope": "all", "X-Hostler-Key-Id": "1"}, {"model": "other"}, 403),
    ],
)
def test_where_a_header_leads(door: Door, headers: dict[str, str], body: object, status: int) -> None:
    answer = door.ask("POST", PATH, body, key="limited", headers=headers)
    assert answer.status == status, answer.body


@pytest.mark.parametrize(
    "number,path,body,status",
    [
        (1, "v1/chat/completions", BODY, 200),
        (1, "v1/chat/completions", {"model": "other"}, 403),
        (1, "v1/chat/completions", b'{"model": "m", "Model": "other"}', 400),
        (1, "any/thing?q=1", None, 200),
        (2, "any/thing", None, 403),
        (2, "v1/chat/completions", BODY, 403),
    ],
)
def test_a_limited_key_at_one_replica(door: Door, number: int, path: str, body: object, status: int) -> None:
    method = "GET" if body is None else "POST"
    answer = door.ask(method, f"/api/v1/replicas/{number:012x}/proxy/{path}", body, key="limited")
    assert answer.status == status, answer.body


def test_a_header_twice(door: Door) -> None:
    key = f"X-API-Key: {door.keys['all']}\r\n"
    for name, value in (("X-Hostler-Service", "svc"), ("X-Hostler-Replica", f"{1:012x}"), ("Content-Type", "a/b")):
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n{key}"
        twice = f"{name}: {value}\r\n" * 2
        assert door.raw(f"{head}{twice}\r\n".encode()).startswith(b"HTTP/1.1 400 ")


def test_requests_per_second(door: Door) -> None:
    answers = [door.chat("m", key="slow") for _ in range(20)]
    statuses = [answer.status for answer in answers]
    assert statuses.count(200) >= 5
    assert statuses.count(429) >= 5
    refused = next(answer for answer in answers if answer.status == 429)
    assert refused.headers["retry-after"] == "1"
    assert refused.json["code"] == "rate_limited"
    # who asks too often is not kept out for it
    wait_for(lambda: door.chat("m", key="slow").status == 200)
    assert door.chat("m").status == 200


def test_requests_in_flight(door: Door, engine: Sayer) -> None:
    # who has its answer may be counted for a moment yet
    wait_for(lambda: engine.active == 0)
    engine.hold = threading.Event()
    try:
        waiting = [threading.Thread(target=door.chat, args=("m",), kwargs={"key": "narrow"}) for _ in range(2)]
        for one in waiting:
            one.start()
        wait_for(lambda: engine.active == 2)
        refused = door.chat("m", key="narrow")
        assert (refused.status, refused.json["code"]) == (429, "rate_limited")
        assert refused.headers["retry-after"] == "1"
        # the slow lane does not count a request twice, nor not at all
        assert door.chat("m", key="narrow", pad="x" * 100_000).status == 429
    finally:
        engine.hold.set()
        engine.hold = None
    for one in waiting:
        one.join()
    assert door.chat("m", key="narrow").status == 200
    assert door.chat("m", key="narrow", pad="x" * 100_000).status == 200


def test_the_list_of_models_is_that_of_the_key(door: Door) -> None:
    def names(key: str) -> set[str]:
        return {one["id"] for one in door.ask("GET", "/v1/models", key=key).json["data"]}

    assert names("all") == {"m", "nick", "other"}
    assert names("limited") == {"m", "nick"}
    assert names("by alias") == {"nick"}
    assert names("nothing") == set()
    assert door.ask("GET", "/v1/models/other", key="all").json["id"] == "other"
    hidden = door.ask("GET", "/v1/models/other", key="limited")
    assert (hidden.status, hidden.json["near_matches"]) == (404, [])
    assert door.ask("DELETE", "/v1/models/other", key="all").status == 405


def test_near_matches_are_those_that_the_key_may_ask(door: Door) -> None:
    assert door.chat("othr").json["near_matches"] == ["other"]
    assert "near_matches" not in door.chat("othr", key="limited").json


def test_a_revoked_key_is_out_with_the_map(door: Door) -> None:
    record = door.command("show map maps/keys.map")
    line = next(line for line in record.splitlines() if "|operate|" in line)
    connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=10)
    headers = {"X-API-Key": door.keys["operate"]}
    try:
        connection.request("GET", "/v1/models", headers=headers)
        answer = connection.getresponse()
        assert (answer.status, bool(answer.read())) == (200, True)
        door.command(f"del map maps/keys.map {line.split()[1]}")
        # on the same connection
        connection.request("GET", "/v1/models", headers=headers)
        assert connection.getresponse().status == 401
    finally:
        connection.close()
        door.command(f"add map maps/keys.map {line.split()[1]} {line.split()[2]}")


def test_no_key_in_the_log(door: Door, tmp_path: Path) -> None:
    door.chat("m", key="limited")
    log = (door.settings.state_dir.parent / "access.log").read_text()
    assert '"key_id":"00000000000' in log
    for key in door.keys.values():
        assert key not in log
    assert ENGINE_KEY not in log
