"""The real ``openai`` client against llama.cpp and the mock engine, through the door of a whole stack."""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.request
from collections import deque
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from app.engines.tiny_model import write_tiny_gguf
from tests.support import plain_http
from tests.support.embedded import wait_until
from tests.support.stacks import Stack, stack

#: Until an engine has noticed that nobody reads any more; and as much again for a busy machine.
SOON_S = 1.0
PATIENCE_S = 5.0


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("openai")
    models = folder / "models"
    models.mkdir(0o755)
    for name in ("tiny", "embeds"):
        write_tiny_gguf(models / f"{name}.gguf")
    # a deep probe would be a request that nobody here has made
    with stack(folder / "state", HOSTLER_MODELS_DIR=str(models), HOSTLER_DEEP_PROBE_S="0") as made:
        made.up()
        create = {"server_mode": "replica", "run_diagnostics": False}
        made.call("POST", "/api/v1/replicas", {**create, "model_name": "tiny"}, 201)
        embedding = {"embedding": True, "pooling": "mean"}
        made.call("POST", "/api/v1/replicas", {**create, "model_name": "embeds", "replica_config": embedding}, 201)
        made.replica(model_name="m", replica_config={"mock": {"tokens_per_s": 50}})
        made.replica(model_name="slow", replica_config={"mock": {"ttft_ms": 600_000}})
        wait_until(lambda: {"tiny", "embeds", "m", "slow"} <= _listed(made), 20, "all models routed")
        yield made


def _listed(up: Stack) -> set[str]:
    return {model["id"] for model in up.call("GET", "/v1/models")["data"]}


@pytest.fixture
def client(up: Stack) -> Iterator[OpenAI]:
    with connect(up) as made:
        yield made


def connect(up: Stack, key: str = "", **more: Any) -> OpenAI:
    return OpenAI(base_url=f"{up.url}/v1", api_key=key or up.key, **({"max_retries": 0, "timeout": 30} | more))


def make_key(up: Stack, name: str, **more: Any) -> str:
    key = str(up.call("POST", "/api/v1/keys", {"name": name, "role": "infer", **more}, 201)["key"])
    # the gateway hears of it some hundredths of a second later
    wait_until(lambda: _status(up, key) != 401, 5, "the new key")
    return key


def _status(up: Stack, key: str) -> int:
    url = f"{up.url}/v1/models"
    return plain_http.get(url, headers={"Authorization": f"Bearer {key}"}, trust_env=False).status_code


def engine_of(up: Stack, model: str) -> tuple[str, str]:
    """(where the model's replica listens, the key that it demands)."""
    [replica] = up.call("GET", f"/api/v1/replicas?model_name={model}&status=ready")["replicas"]
    return str(replica["base_url"]), (up.layout.secrets / "engine-key").read_text().strip()


def at_work(up: Stack, model: str) -> int:
    """Requests that the model's engine works on, by its own figures."""
    base_url, key = engine_of(up, model)
    request = urllib.request.Request(f"{base_url}/metrics", headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return int(float(next(line.split()[1] for line in lines if line.startswith("llamacpp:requests_processing "))))


def test_models(client: OpenAI) -> None:
    found = {model.id: model for model in client.models.list()}
    assert {"tiny", "embeds", "m", "slow"} <= set(found)
    assert {model.object for model in found.values()} == {"model"}


def test_a_completion(client: OpenAI) -> None:
    answer = client.completions.create(model="tiny", prompt="the engine", max_tokens=5, temperature=0)
    assert answer.usage is not None
    assert 1 <= answer.usage.completion_tokens <= 5
    assert answer.choices[0].finish_reason in ("length", "stop")
    again = client.completions.create(model="tiny", prompt="the engine", max_tokens=5, temperature=0)
    assert again.choices[0].text == answer.choices[0].text


def test_a_completion_says_who_made_it(up: Stack, client: OpenAI) -> None:
    raw = client.completions.with_raw_response.create(model="tiny", prompt="a", max_tokens=1)
    [replica] = up.call("GET", "/api/v1/replicas?model_name=tiny&status=ready")["replicas"]
    assert raw.headers["x-hostler-replica"] == replica["replica_id"]
    assert raw.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/v1/completions", "/stream/generate"])
def test_tokens_come_one_by_one(up: Stack, path: str) -> None:
    """HAProxy would hold what follows for up to 200 ms, and eleven tokens of this engine came at once."""
    asked = {"prompt": "a", "max_tokens": 20, **({"model": "m", "stream": True} if "v1" in path else {"model_id": "m"})}
    body = json.dumps(asked).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {up.key}\r\nContent-Type: application/json\r\n"
    arrivals: list[bytes] = []
    with socket.create_connection(("127.0.0.1", up.port), timeout=20) as wire:
        wire.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        while not b"".join(arrivals).endswith(b"\r\n0\r\n\r\n"):
            arrivals.append(wire.recv(65536))
    tokens = [arrival.count(b"data: ") for arrival in arrivals]
    assert sum(tokens) >= 20
    # 20 ms apart: on a busy machine some come together
    assert len([count for count in tokens if count]) > 10, tokens


def test_a_streamed_completion(client: OpenAI) -> None:
    text = ""
    with client.completions.create(model="m", prompt="a", max_tokens=20, stream=True) as stream:
        for chunk in stream:
            text += chunk.choices[0].text if chunk.choices else ""
    assert len(text.split()) == 20


def test_a_chat(client: OpenAI) -> None:
    messages: Any = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hello ü 🚂"}]
    answer = client.chat.completions.create(model="tiny", messages=messages, max_tokens=5)
    assert answer.choices[0].message.role == "assistant"
    assert answer.usage is not None
    assert answer.usage.completion_tokens >= 1


def test_a_streamed_chat_with_usage(client: OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Hello"}]
    for model in ("tiny", "m"):
        stream = client.chat.completions.create(
            model=model, messages=messages, max_tokens=8, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        assert chunks[-1].usage is not None, model
        assert 1 <= chunks[-1].usage.completion_tokens <= 8
        assert any(chunk.choices and chunk.choices[0].finish_reason for chunk in chunks)


def test_embeddings(client: OpenAI) -> None:
    answer = client.embeddings.create(model="embeds", input=["the engine", "steam"])
    assert [one.index for one in answer.data] == [0, 1]
    assert [len(one.embedding) for one in answer.data] == [64, 64]


def test_a_long_conversation_behind_which_the_model_is_named(client: OpenAI) -> None:
    """The client writes ``model`` where it likes; of a megabyte of messages the fast lane sees a part."""
    messages: Any = [
        {"role": "user", "content": f'"model": "tiny" {number} ' + "word " * 200} for number in range(1000)
    ]
    answer = client.chat.completions.create(messages=messages, model="m", max_tokens=2)
    assert answer.model == "m"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 100_000


def test_a_model_that_is_not_there(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.completions.create(model="tinny", prompt="a")
    assert "tinny" in refused.value.response.json()["error"]


def test_keys(up: Stack) -> None:
    for bad in ("wrong" * 8, "x"):
        with connect(up, bad) as client, pytest.raises(openai.AuthenticationError):
            client.completions.create(model="tiny", prompt="a")
    with connect(up, make_key(up, "only-m", models=["m"])) as client:
        assert client.completions.create(model="m", prompt="a", max_tokens=1).usage
        assert [model.id for model in client.models.list()] == ["m"]
        with pytest.raises(openai.PermissionDeniedError):
            client.completions.create(model="tiny", prompt="a")
    with connect(up, make_key(up, "reader", role="read")) as client, pytest.raises(openai.PermissionDeniedError):
        client.completions.create(model="m", prompt="a")


def test_what_an_engine_refuses_is_the_callers_400(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="context"):
        client.completions.create(model="tiny", prompt="x " * 5000)
    assert client.completions.create(model="tiny", prompt="a", max_tokens=1).usage, "and takes no replica out"


def test_a_rate_that_the_client_waits_for(up: Stack) -> None:
    key = make_key(up, "two-a-second", limits={"requests_per_second": 2})

    def ask(client: OpenAI) -> Any:
        return client.completions.create(model="m", prompt="a", max_tokens=1)

    with connect(up, key) as client:
        with pytest.raises(openai.RateLimitError) as refused:
            deque((ask(client) for _ in range(5)), maxlen=0)
        assert int(refused.value.response.headers["retry-after"]) >= 1
    with connect(up, key, max_retries=5) as client:
        # refused on the way, and asked again when the answer said so
        assert all(ask(client).usage for _ in range(5))


def test_a_client_that_waits_no_longer_frees_the_engine(up: Stack) -> None:
    with connect(up, timeout=0.5) as client, pytest.raises(openai.APITimeoutError):
        client.completions.create(model="slow", prompt="a")
    wait_until(lambda: at_work(up, "slow") == 0, SOON_S + PATIENCE_S, "a free engine")


def test_a_timeout_is_tried_again_as_often_as_asked(up: Stack) -> None:
    base_url, key = engine_of(up, "slow")

    def started() -> int:
        request = urllib.request.Request(f"{base_url}/mock/state", headers={"Authorization": f"Bearer {key}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(json.load(answer)["started"])

    before = started()
    with connect(up, timeout=0.5, max_retries=2) as client, pytest.raises(openai.APITimeoutError):
        client.completions.create(model="slow", prompt="a")
    assert started() - before == 3, "each try once: the gateway adds none of its own"


@pytest.mark.parametrize("model", ["tiny", "m"])
def test_a_reader_that_leaves_a_stream_frees_its_slot(up: Stack, client: OpenAI, model: str) -> None:
    # longer than anybody waits: llama.cpp goes on for a context of 2,048 tokens
    stream = client.completions.create(model=model, prompt="the", max_tokens=100_000, temperature=1, stream=True)
    for _, chunk in zip(range(3), stream, strict=False):
        assert chunk.choices
    stream.close()
    wait_until(lambda: at_work(up, model) == 0, SOON_S + PATIENCE_S, "a free slot")


def test_many_streams_at_once(up: Stack) -> None:
    async def read(client: AsyncOpenAI, number: int) -> int:
        stream = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": f"number {number}"}], max_tokens=10, stream=True
        )
        return sum([1 async for chunk in stream if chunk.choices and chunk.choices[0].delta.content])

    async def all_of_them() -> list[int]:
        async with AsyncOpenAI(base_url=f"{up.url}/v1", api_key=up.key, max_retries=0, timeout=60) as client:
            return await asyncio.gather(*(read(client, number) for number in range(100)))

    assert asyncio.run(all_of_them()) == [10] * 100
