"""``Client.infer`` against a real V2 server, over gRPC and HTTP, and what it does when servers fail."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy
import pytest

from hostler import AsyncClient, Client
from hostler.errors import (
    BadInput,
    HostlerError,
    InferenceRefused,
    InferenceTimedOut,
    NoMatchingServer,
    ServerFailed,
)
from hostler.inference import grpc_v2
from hostler.inference.endpoint import Endpoint
from tests.integration.cli.stub import Answer, Stub, problem, serve
from tests.integration.discovery.conftest import names
from tests.support.ports import free_port
from tests.support.v2 import V2Server

CHAT = {"type": "chat"}
Another = Callable[[], V2Server]


def client_of(registry: Stub, **more: object) -> Client:
    return Client(api_server=registry.url, key="k" * 32, capability=CHAT, **more)  # type: ignore[arg-type]


@pytest.fixture(params=["grpc", "http"])
def endpoint(request: pytest.FixtureRequest, server: V2Server) -> str:
    """The same server by each of its ports; which protocol it is, nobody tells the client."""
    return str(getattr(server, request.param))


@pytest.mark.timeout(240)
def test_the_seeds_example(registry: Stub, endpoint: str) -> None:
    names(registry, endpoint)
    client = client_of(registry)
    assert client.endpoint is None
    assert client.replica_id is None
    assert registry.asked == []

    assert client.infer(model_name="echo", inputs={"prompt": ["Hello, world!"]}) == {"prompt": ["Hello, world!"]}

    assert client.endpoint == endpoint
    assert client.replica_id == "r1"
    client.infer("echo", {"prompt": ["again"]})
    (asked,) = registry.asked
    assert (asked.path, asked.query) == ("/route", {"type": ["chat"]})
    client.close()
    with pytest.raises(BadInput, match="closed"):
        client.infer("echo", {"prompt": ["too late"]})


def test_values_come_back_as_they_went(registry: Stub, endpoint: str) -> None:
    names(registry, endpoint)
    inputs = {
        "text": ["a", "ü\0", ""],
        "whole": [[1, -2, 2**62], [4, 5, 6]],
        "real": [0.1, 2],
        "truth": [True, False],
        "deep": [[[1.5]], [[2.5]]],
        "one": "alone",
    }
    with client_of(registry) as client:
        found = client.infer("echo", inputs)
        arrays = client.infer(
            "echo",
            {
                "f4": numpy.array([[0.5, 1.25]], numpy.float32),
                "i1": numpy.array([-1, 7], numpy.int8),
                "u8": numpy.array([2**63], numpy.uint64),
                "swapped": numpy.array([1, 2], ">i4"),
                "striped": numpy.arange(6, dtype=numpy.int32).reshape(2, 3).T,
                "words": numpy.array([["x", "yy"]]),
            },
        )
    assert found == {**inputs, "real": [0.1, 2.0], "one": ["alone"]}
    assert arrays == {
        "f4": [[0.5, 1.25]],
        "i1": [-1, 7],
        "u8": [2**63],
        "swapped": [1, 2],
        "striped": [[0, 3], [1, 4], [2, 5]],
        "words": [["x", "yy"]],
    }


def test_bytes_and_odd_numbers_need_grpc(registry: Stub, server: V2Server) -> None:
    names(registry, server.grpc, server.http)
    with client_of(registry) as client:
        found = client.infer("echo", {"raw": [b"\xff\x00"], "odd": [float("inf")], "half": numpy.array([1.5], "f2")})
        assert found == {"raw": [b"\xff\x00"], "odd": [float("inf")], "half": [1.5]}
    with client_of(registry, protocol="http") as client:
        for inputs in ({"raw": [b"\xff"]}, {"odd": [float("nan")]}):
            with pytest.raises(BadInput, match="grpc"):
                client.infer("echo", inputs)


@pytest.mark.parametrize("model_name, inputs", [("echo", {"refuse": [1]}), ("nobody's", {"x": [1]})])
def test_a_callers_error_is_asked_once(
    registry: Stub, endpoint: str, model_name: str, inputs: dict[str, object]
) -> None:
    names(registry, endpoint)
    with client_of(registry) as client, pytest.raises(InferenceRefused) as caught:
        client.infer(model_name, inputs)
    assert caught.value.calls == 1
    assert endpoint in caught.value.message
    assert len(registry.asked) == 1


def test_a_model_that_breaks_is_asked_twice(registry: Stub, endpoint: str) -> None:
    names(registry, endpoint)
    with client_of(registry) as client:
        with pytest.raises(ServerFailed) as caught:
            client.infer("echo", {"fail": [1]})
        assert (caught.value.calls, caught.value.sent) == (2, True)
        with pytest.raises(ServerFailed) as caught:
            client.infer("echo", {"fail": [1]}, retry_on_failure=False)
        assert caught.value.calls == 1
        # what failed is not kept
        assert client.endpoint is None


@pytest.mark.timeout(240)
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_killed_server_is_replaced_by_another(
    registry: Stub, server: V2Server, another: Another, protocol: str
) -> None:
    first = another()
    names(registry, getattr(first, protocol), getattr(server, protocol))
    with client_of(registry) as client:
        client.infer("echo", {"prompt": ["one"]})
        first.kill()
        assert client.infer("echo", {"prompt": ["two"]}) == {"prompt": ["two"]}
        assert client.replica_id == "r2"
        assert len(registry.asked) == 2


@pytest.mark.timeout(240)
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_threads_share_a_client_over_the_death_of_its_server(
    registry: Stub, server: V2Server, another: Another, protocol: str
) -> None:
    first = another()
    names(registry, getattr(first, protocol), getattr(server, protocol))
    half, whole = threading.Barrier(9), 40

    def ask(thread: int) -> int:
        for number in range(whole):
            if number == whole // 2:
                half.wait(60)
            asked = {"n": [thread, number]}
            assert client.infer("echo", asked) == asked
        return thread

    with client_of(registry) as client, ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(ask, thread) for thread in range(8)]
        half.wait(60)
        first.kill()
        assert [answer.result(60) for answer in answers] == list(range(8))
        assert client.endpoint == getattr(server, protocol)


@pytest.mark.timeout(240)
def test_a_server_that_dies_of_the_call_is_told_honestly(registry: Stub, server: V2Server, another: Another) -> None:
    names(registry, another().grpc, "")
    dies = pytest.raises(ServerFailed, match="no registered server can do type=chat")
    with client_of(registry) as client, dies as caught:
        client.infer("echo", {"die": [1]})
    assert (caught.value.calls, caught.value.sent) == (1, True)


def test_one_that_is_named_again_is_asked_only_where_there_is_no_other(registry: Stub, server: V2Server) -> None:
    dead = {"endpoint": f"127.0.0.1:{free_port()}", "replica_id": "dead"}
    living = {"endpoint": server.http, "replica_id": "living"}
    registry.on("GET", "/route", Answer(body=dead), Answer(body=dead), Answer(body=living))
    with client_of(registry) as client:
        assert client.infer("echo", {"prompt": ["Hello"]}) == {"prompt": ["Hello"]}
        assert client.replica_id == "living"


def test_nobody_listens(registry: Stub) -> None:
    registry.on("GET", "/route", Answer(body={"endpoint": f"127.0.0.1:{free_port()}", "replica_id": "dead"}))
    with client_of(registry) as client:
        with pytest.raises(ServerFailed) as caught:
            client.infer("echo", {"x": [1]})
        assert (caught.value.calls, caught.value.sent) == (2, False)
        with pytest.raises(ServerFailed) as caught:
            client.infer("echo", {"x": [1]}, retry_on_failure=False)
        assert caught.value.calls == 1
    # twice for each second look, and once for the call that wanted none
    assert len(registry.asked) == 3 + 1


def test_no_match_names_the_capability_and_the_next_step(registry: Stub) -> None:
    names(registry, "")
    with client_of(registry) as client, pytest.raises(NoMatchingServer, match="type=chat") as caught:
        client.infer("echo", {"x": [1]})
    assert caught.value.capability == CHAT
    assert "hostler register" in caught.value.hint


def test_an_older_server_is_no_empty_registry(registry: Stub) -> None:
    registry.on("GET", "/route", problem(404, "not_found", "no such route"))
    with client_of(registry) as client, pytest.raises(HostlerError) as caught:
        client.infer("echo", {"x": [1]})
    assert not isinstance(caught.value, NoMatchingServer)


def test_the_key_is_not_sent_to_the_server(registry: Stub) -> None:
    with serve(Stub()) as stranger:
        names(registry, stranger.url)
        with client_of(registry) as client, pytest.raises(InferenceRefused):
            client.infer("echo", {"x": [1]})
        (asked,) = stranger.asked
    assert asked.path == "/v2/models/echo/infer"
    assert not {"x-api-key", "authorization"} & set(asked.headers)
    assert registry.asked[0].headers["x-api-key"] == "k" * 32


def test_a_silent_server_is_waited_for_once(registry: Stub) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        names(registry, f"127.0.0.1:{silent.getsockname()[1]}")
        with client_of(registry, protocol="grpc") as client, pytest.raises(InferenceTimedOut) as caught:
            client.infer("echo", {"x": [1]}, timeout_s=0.5)
    assert caught.value.calls == 1


def test_asyncio_has_the_same(registry: Stub, server: V2Server) -> None:
    names(registry, server.grpc, server.http, f"127.0.0.1:{free_port()}", server.grpc)

    async def ask() -> None:
        async with AsyncClient(registry.url, capability=CHAT) as client:
            assert client.endpoint is None
            assert await client.infer("echo", {"prompt": ["one"]}) == {"prompt": ["one"]}
            with pytest.raises(ServerFailed) as caught:
                await client.infer("echo", {"fail": [1]})
            assert caught.value.calls == 2
            # it was forgotten; the next one found is not there, the one after it is
            assert await client.infer("echo", {"prompt": ["two"]}) == {"prompt": ["two"]}
            assert client.endpoint == server.grpc
        with pytest.raises(BadInput, match="closed"):
            await client.infer("echo", {"prompt": ["three"]})

    asyncio.run(ask())
    assert len(registry.asked) == 4


def test_calls_that_begin_at_once_share_a_connection(
    registry: Stub, server: V2Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    names(registry, server.grpc)
    make, made = grpc_v2.async_channel, []

    def count(endpoint: Endpoint) -> object:
        made.append(endpoint)
        return make(endpoint)

    monkeypatch.setattr(grpc_v2, "async_channel", count)

    async def ask() -> None:
        async with AsyncClient(registry.url, capability=CHAT) as client:
            asked = [client.infer("echo", {"n": [number]}) for number in range(50)]
            assert await asyncio.gather(*asked) == [{"n": [number]} for number in range(50)]

    asyncio.run(ask())
    assert len(made) == 1


def test_without_the_extra_it_says_what_to_install(registry: Stub, server: V2Server) -> None:
    names(registry, server.http, server.grpc)
    code = f"""
import sys
sys.modules["tritonclient"] = None
from hostler import Client
from hostler.errors import MissingExtra
with Client({registry.url!r}, capability={{"type": "chat"}}) as client:
    print(client.infer("echo", {{"prompt": ["one"]}}), "numpy" in sys.modules)
with Client({registry.url!r}, capability={{"type": "chat"}}) as client:
    try:
        client.infer("echo", {{"prompt": ["two"]}})
    except MissingExtra as error:
        print(error.hint)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "{'prompt': ['one']} False\npip install 'hostler[grpc]'\n"
