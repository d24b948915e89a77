"""The registry as its contract shows it, with real processes and real connections."""

from __future__ import annotations

from collections.abc import Callable

from tests.integration.registry.conftest import Api
from tests.support.embedded import wait_until

QWEN = {"model": "qwen2"}


def test_from_registering_to_the_end_of_the_stream(api: Api) -> None:
    assert api.route(model="qwen2") is None
    stream = api.register("r1", "localhost:50051", QWEN, {"model": "llama", "type": "chat"})
    # whichever process is asked, and at once
    for _ in range(8):
        assert api.route(model="qwen2") == {"endpoint": "localhost:50051", "replica_id": "r1"}
    assert api.route(model="llama", type="chat") is not None
    assert api.route(model="qwen2", type="chat") is None
    listed = api.ask("GET", "/registry").json()
    wanted = {
        "replica_id": "r1",
        "endpoint": "localhost:50051",
        "capabilities": [QWEN, {"model": "llama", "type": "chat"}],
    }
    assert listed["replicas"] == [wanted]
    stream.close()
    wait_until(lambda: api.route(model="qwen2") is None, 2, "the end of the registration")
    assert api.ids() == []


def test_the_stream_says_that_it_lives(api: Api) -> None:
    stream = api.register("r1", "localhost:50051", QWEN)
    head, _, rest = stream.read(b'"alive"', 8).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"content-type: text/event-stream" in head.lower()
    assert b"x-request-id: " in head.lower()
    first = b'data: {"status": "registered", "replica_id": "r1"}\n\n'
    assert rest.startswith(b"%x\r\n%b\r\n" % (len(first), first))
    assert b'data: {"status": "alive"}\n\n' in rest


def test_a_client_of_http_1_0_gets_no_chunks(api: Api) -> None:
    stream = api.send({"replica_id": "r1", "endpoint": "localhost:1", "capabilities": []}, version="1.0")
    found = stream.read(b"registered")
    assert b"chunked" not in found
    assert found.endswith(b'\r\n\r\ndata: {"status": "registered", "replica_id": "r1"}\n\n')


def test_no_match_is_told_in_the_words_of_the_contract(api: Api) -> None:
    answer = api.ask("GET", "/route?model=none")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"] == "no matching replica"


def test_types_come_through_http(api: Api) -> None:
    api.register("r1", "localhost:50051", {"n": 1, "on": True})
    found = {"n=1": True, "n=1.0": True, "n=2": False, "on=true": True, "on=True": True, "on=1": False, "": True}
    assert {query: api.ask("GET", f"/route?{query}").status_code == 200 for query in found} == found


def test_several_that_match_take_turns(api: Api) -> None:
    for name in "abcd":
        api.register(name, f"localhost:5005{ord(name) - 96}", {"type": "chat"})
    counts = dict.fromkeys("abcd", 0)
    for _ in range(80):
        found = api.route(type="chat")
        assert found is not None
        counts[found["replica_id"]] += 1
    assert min(counts.values()) >= 12, counts


def test_the_registry_comes_in_pages(api: Api) -> None:
    for number in range(5):
        api.register(f"r{number}", f"localhost:{number + 1}", QWEN)
    found, cursor = [], ""
    for _ in range(3):
        page = api.ask("GET", f"/registry?limit=2&cursor={cursor}").json()
        assert page["total"] == 5
        found += [one["replica_id"] for one in page["replicas"]]
        cursor = page["next_cursor"] or ""
    assert found == [f"r{number}" for number in range(5)]
    assert not cursor


def test_roles(api: Api, make_key: Callable[..., str]) -> None:
    register, infer, read = make_key("register"), make_key("infer"), make_key("read")
    body = {"replica_id": "r1", "endpoint": "localhost:1", "capabilities": [QWEN]}
    assert api.ask("POST", "/register", body, key=infer).status_code == 403
    assert api.ask("POST", "/register", body, key=read).status_code == 403
    assert api.ask("POST", "/register", body, key="none").status_code == 401
    api.register("r1", "localhost:1", QWEN, key=register)
    for key, status in ((infer, 200), (read, 200), (register, 403), ("", 401)):
        assert api.ask("GET", "/route?model=qwen2", key=key).status_code == status
        assert api.ask("GET", "/registry", key=key).status_code == status


def test_a_key_that_is_limited_to_models_finds_only_those(api: Api, make_key: Callable[..., str]) -> None:
    limited = make_key("infer", ["open"])
    api.register("r1", "localhost:1", {"model": "open"}, {"model": "secret"})
    api.register("r2", "localhost:2", {"model": "secret"})
    assert api.ask("GET", "/route?model=secret", key=limited).status_code == 404
    assert api.ask("GET", "/route?model=open", key=limited).json()["replica_id"] == "r1"
    listed = api.ask("GET", "/registry", key=limited).json()
    assert [(one["replica_id"], one["capabilities"]) for one in listed["replicas"]] == [("r1", [{"model": "open"}])]
    assert listed["total"] == 1


def test_hundreds_of_streams_live_and_end(start_api: Callable[..., Api]) -> None:
    """In one process, which has no greenlet and no connection to the database for each."""
    api = start_api(web_workers=1)
    streams = [api.register(f"r{number}", f"localhost:{number + 1000}", QWEN) for number in range(300)]
    for stream in streams:
        assert stream.read(b'"alive"').count(b'"registered"') == 1
    assert api.ask("GET", "/registry?limit=1").json()["total"] == 300
    assert api.ask("GET", "/api/v1/registrations?limit=1").json()["total"] == 300
    registrars = {one["registrar"] for one in api.ask("GET", "/api/v1/registrations").json()["registrations"]}
    assert len(registrars) == 1
    for stream in streams[:-1]:
        stream.close()
    wait_until(lambda: api.ids() == ["r299"], 10, "all but one to end")
    assert api.route(model="qwen2") == {"endpoint": "localhost:1299", "replica_id": "r299"}
