"""Who has an id: the newest stream of the key that has it, whichever process or host holds it."""

from __future__ import annotations

from collections.abc import Callable

from tests.integration.registry.conftest import Api
from tests.support.embedded import wait_until

CHAT = {"type": "chat"}


def test_a_reconnect_takes_over_and_the_old_end_removes_nothing(api: Api) -> None:
    for _ in range(6):
        old = api.register("r1", "localhost:1001", CHAT)
        new = api.register("r1", "localhost:1002", CHAT)
        assert api.route(type="chat") == {"endpoint": "localhost:1002", "replica_id": "r1"}
        old.close()
        found = api.ask("GET", "/api/v1/registrations/r1").json()
        assert found.get("state") == "live", found
        assert found["endpoint"] == "localhost:1002"
        assert api.route(type="chat") == {"endpoint": "localhost:1002", "replica_id": "r1"}
        new.close()
        wait_until(lambda: api.route(type="chat") is None, 2, "the end")


def test_the_old_stream_is_ended(api: Api) -> None:
    old = api.register("r1", "localhost:1001", CHAT)
    api.register("r1", "localhost:1002", CHAT)
    assert old.read_to_end(5).endswith(b'data: {"status": "ended"}\n\n\r\n0\r\n\r\n')
    assert api.route(type="chat") == {"endpoint": "localhost:1002", "replica_id": "r1"}


def test_hosts_share_one_registry(start_api: Callable[..., Api]) -> None:
    here, there = start_api(), start_api()
    old = here.register("r1", "localhost:1001", CHAT)
    wait_until(lambda: there.route(type="chat") is not None, 5, "the other host to know")
    there.register("r1", "localhost:1002", CHAT)
    # this host is told so, and ends what it held
    assert b'"ended"' in old.read_to_end(10)
    for one in (here, there):
        wait_until(lambda api=one: (api.route(type="chat") or {})["endpoint"] == "localhost:1002", 5, "both to know")  # type: ignore[misc]
    old.close()
    assert here.ids() == there.ids() == ["r1"]
    assert here.ask("GET", "/api/v1/registrations/r1").json()["node"] == "api-1"


def test_another_key_does_not_get_the_id(api: Api, make_key: Callable[..., str]) -> None:
    first, second = make_key("register"), make_key("register")
    stream = api.register("r1", "localhost:1001", CHAT, key=first)
    body = {"replica_id": "r1", "endpoint": "localhost:1002", "capabilities": [CHAT]}
    # not even an admin's: who wants it ends it first
    for key in (second, api.key):
        answer = api.ask("POST", "/register", body, key=key)
        assert answer.status_code == 409
        assert answer.json()["code"] == "name_taken"
    assert api.route(type="chat") == {"endpoint": "localhost:1001", "replica_id": "r1"}
    stream.close()
    wait_until(lambda: api.route(type="chat") is None, 2, "the end")
    api.register("r1", "localhost:1002", CHAT, key=second)


def test_an_operator_ends_a_registration(api: Api, make_key: Callable[..., str]) -> None:
    stream = api.register("a/b", "localhost:1001", CHAT)
    assert api.ask("DELETE", "/api/v1/registrations/a/b", key=make_key("register")).status_code == 403
    assert api.ask("DELETE", "/api/v1/registrations/a/b", key=make_key("operate")).status_code == 204
    assert api.route(type="chat") is None
    assert b'"ended"' in stream.read_to_end(5)
    assert api.ask("DELETE", "/api/v1/registrations/a/b").status_code == 404
    found = api.ask("GET", "/api/v1/registrations?ended=true").json()
    assert [(one["replica_id"], one["state"], one["end_reason"]) for one in found["registrations"]] == [
        ("a/b", "ended", "removed")
    ]
    assert api.ask("GET", "/api/v1/registrations").json()["total"] == 0


def test_the_history_tells_who_registered_what(api: Api, make_key: Callable[..., str]) -> None:
    key = make_key("register")
    api.register("r1", "localhost:1001", CHAT, key=key)
    api.register("r1", "localhost:1002", CHAT, key=key).close()

    def told() -> list[tuple[str, str, str]]:
        found = api.ask("GET", "/api/v1/events?replica_id=r1&order=asc").json()["events"]
        return [(one["kind"], one["cause"], one["message"]) for one in found]

    wait_until(lambda: len(told()) == 3, 5, "three events")
    assert told() == [
        ("registration_started", "request", "localhost:1001"),
        ("registration_taken_over", "request", "localhost:1002"),
        ("registration_ended", "closed", "localhost:1002"),
    ]
    owner = api.ask("GET", "/api/v1/registrations/r1").json()["owner_name"]
    actors = {one["actor"] for one in api.ask("GET", "/api/v1/events?replica_id=r1").json()["events"]}
    assert actors == {owner}
