"""The model API's document, request by request as it is written there, on a whole stack with two llama.cpp models."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app.engines.registry import engine
from app.engines.tiny_model import write_tiny_gguf
from tests.support import plain_http
from tests.support.curl import curl, post
from tests.support.embedded import wait_until
from tests.support.engines import running
from tests.support.stacks import Stack, stack

MODELS = {"llama-7b": 7, "mistral-7b": 8}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("model-api")
    models = folder / "models"
    models.mkdir(0o755)
    for name, seed in MODELS.items():
        write_tiny_gguf(models / f"{name}.gguf", seed=seed)
    with stack(folder / "state", HOSTLER_MODELS_DIR=str(models), HOSTLER_WEB_WORKERS="2") as made:
        made.up()
        for name in MODELS:
            create = {"server_mode": "replica", "model_name": name, "run_diagnostics": False}
            made.call("POST", "/api/v1/replicas", create, 201)
            # ready is ready: no request may come too early
            assert made.call("POST", "/tokenize", {"text": "a", "model_id": name})["num_tokens"] > 0
        yield made


def test_health(up: Stack) -> None:
    wait_until(lambda: json.loads(curl(up, f"{up.url}/health")[1])["status"] == "healthy", 30, "health")


def test_list_models(up: Stack) -> None:
    status, text = curl(up, f"{up.url}/models")
    assert status == 200
    models = json.loads(text)["models"]
    assert [model["id"] for model in models] == ["llama-7b", "mistral-7b"]
    for model in models:
        assert {"id", "name", "description", "format", "loaded"} <= set(model)
        assert (model["format"], model["loaded"]) == ("GGUF", True)


def test_tokenize_text(up: Stack) -> None:
    answer = post(up, "/tokenize", {"text": "Hello, world!", "model_id": "llama-7b"})
    assert len(answer["token_ids"]) == answer["num_tokens"] > 0


def test_generate_text(up: Stack) -> None:
    body = {
        "prompt": "Once upon a time",
        "max_tokens": 50,
        "temperature": 0.8,
        "strategy": "top_p",
        "top_k": 50,
        "top_p": 0.9,
        "seed": 42,
        "model_id": "mistral-7b",
    }
    answer = post(up, "/generate", body)
    assert len(answer["token_ids"]) == answer["num_generated"] <= 50
    assert answer["text"]
    again = post(up, "/generate", body)
    assert (again["text"], again["token_ids"]) == (answer["text"], answer["token_ids"])


def test_stream_generation(up: Stack) -> None:
    body = {
        "prompt": "Tell me a story",
        "max_tokens": 100,
        "temperature": 0.8,
        "strategy": "greedy",
        "top_k": 50,
        "top_p": 0.9,
        "seed": 42,
        "model_id": "llama-7b",
    }
    events = post(up, "/stream/generate", body).strip().split("\n\n")
    told = [json.loads(event.removeprefix("data: ")) for event in events]
    assert len(told) > 10
    assert all(set(one) == {"token"} for one in told[:-1])
    assert told[-1] == {"done": True}
    whole = post(up, "/generate", body)["text"]
    text = "".join(one["token"] for one in told[:-1])
    # but for the sign that a whole text has for half a character at its end
    assert whole.startswith(text)
    assert set(whole.removeprefix(text)) <= {"\ufffd"}


@pytest.fixture
def one_model(up: Stack) -> Iterator[Stack]:
    """The requests that name no model need one that is meant."""
    status, text = curl(up, f"{up.url}/api/v1/replicas?model_name=mistral-7b&status=ready")
    assert status == 200
    [replica] = json.loads(text)["replicas"]
    up.call("POST", f"/api/v1/replicas/{replica['replica_id']}/stop", {"force": True}, 202)
    wait_until(lambda: up.state_of(replica["replica_id"]) == "stopped", 30, "the end of the other model")
    yield up
    create = {"server_mode": "replica", "model_name": "mistral-7b", "run_diagnostics": False}
    up.call("POST", "/api/v1/replicas", create, 201)


def test_requests_that_name_no_model(one_model: Stack) -> None:
    texts = {"texts": ["First text", "Second text", "Third text"]}
    results = post(one_model, "/batch/tokenize", texts)["results"]
    assert [one["num_tokens"] == len(one["token_ids"]) > 0 for one in results] == [True] * 3
    body = {
        "prompts": ["Hello", "Goodbye"],
        "max_tokens": 10,
        "temperature": 0.8,
        "strategy": "greedy",
        "top_k": 50,
        "top_p": 0.9,
        "seed": 42,
    }
    results = post(one_model, "/batch/generate", body)["results"]
    assert [set(one) >= {"token_ids", "text", "num_generated"} for one in results] == [True] * 2
    assert post(one_model, "/generate", {"prompt": "Hello", "max_tokens": 10})["num_generated"] <= 10
    asleep = post(one_model, "/generate", {"prompt": "Hello", "max_tokens": 10, "model_id": "mistral-7b"}, 503)
    assert asleep["code"] == "no_ready_replica"


def test_model_selection(up: Stack) -> None:
    hello = {"prompt": "Hello", "max_tokens": 10}
    assert post(up, "/generate", {**hello, "model_id": "mistral-7b"})["text"]
    unknown = post(up, "/generate", {**hello, "model_id": "does-not-exist"}, 404)
    assert unknown["error"] == "Model 'does-not-exist' not found"
    which = post(up, "/generate", hello, 400)
    assert which["models"] == ["llama-7b", "mistral-7b"]
    for path, body in (
        ("/generate", {**hello, "prompt": ""}),
        ("/generate", {**hello, "strategy": "beam"}),
        ("/batch/generate", {"prompts": []}),
        ("/batch/tokenize", {"texts": []}),
    ):
        post(up, path, {**body, "model_id": "llama-7b"}, 400)


def test_many_at_once(up: Stack) -> None:
    prompts = [f"number {number}" for number in range(60)]
    for name in MODELS:
        body = {"prompts": prompts, "max_tokens": 5, "model_id": name}
        assert len(post(up, "/batch/generate", body)["results"]) == 60


def test_metrics(up: Stack) -> None:
    status, text = curl(up, f"{up.url}/metrics")
    assert status == 200
    for name, kind in (
        ("total_requests", "counter"),
        ("successful_requests", "counter"),
        ("failed_requests", "counter"),
        ("total_tokens", "counter"),
        ("total_latency_ms", "counter"),
        ("avg_latency_ms", "gauge"),
        ("tokens_per_second", "gauge"),
    ):
        assert f"# HELP hostler_inference_{name} " in text
        assert f"# TYPE hostler_inference_{name} {kind}\n" in text
        assert f'\nhostler_inference_{name}{{model="llama-7b"}} ' in text


def test_the_command_line(up: Stack) -> None:
    made = json.loads(up.must("generate", "Once", "-m", "llama-7b", "--max-tokens", "5", "-o", "json"))
    assert made["num_generated"] <= 5
    assert up.must("generate", "Once", "-m", "llama-7b", "--max-tokens", "5").endswith("\n")
    assert [int(one) for one in up.must("tokenize", "Hello", "-m", "llama-7b").split()]


def mock_state(up: Stack, base_url: str) -> dict[str, Any]:
    key = (up.layout.secrets / "engine-key").read_text().strip()
    found: dict[str, Any] = plain_http.get(
        f"{base_url}/mock/state", headers={"Authorization": f"Bearer {key}"}, trust_env=False
    ).json()
    return found


def base_url_of(up: Stack, replica_id: str) -> str:
    return str(up.call("GET", f"/api/v1/replicas/{replica_id}")["base_url"])


@pytest.mark.parametrize("path", ["/generate", "/stream/generate"])
def test_a_caller_that_leaves_frees_the_replica(up: Stack, path: str) -> None:
    name = f"slow{path.replace('/', '-')}"
    base_url = base_url_of(up, up.replica(model_name=name, replica_config={"mock": {"ttft_ms": 600_000}}))
    body = json.dumps({"prompt": "a", "model_id": name}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {up.key}\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", up.port), timeout=20) as wire:
        wire.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        wait_until(lambda: mock_state(up, base_url)["active"] == 1, 10, "a request at the replica")
    # a second, and some for a busy machine
    wait_until(lambda: mock_state(up, base_url)["cancelled"] == 1, 6, "its end")


def test_a_replica_that_is_killed_fails_no_batch(up: Stack) -> None:
    replicas = [up.replica(model_name="pair", replica_config={"mock": {"latency_ms": 40}}) for _ in range(2)]
    urls = [base_url_of(up, replica) for replica in replicas]
    with ThreadPoolExecutor(1) as pool:
        # some are larger than HAProxy's buffer, which it cannot send again by itself
        prompts = [f"number {number} " * (4000 if number % 10 == 0 else 1) for number in range(200)]
        batch = pool.submit(
            up.call, "POST", "/batch/generate", {"prompts": prompts, "max_tokens": 2, "model_id": "pair"}
        )
        wait_until(lambda: batch.done() or all(mock_state(up, url)["finished"] > 10 for url in urls), 20, "work")
        assert not batch.done(), batch.result()
        os.kill(mock_state(up, urls[0])["pid"], signal.SIGKILL)
        assert [one["num_generated"] for one in batch.result()["results"]] == [2] * 200


def test_a_registered_server_is_a_model_too(up: Stack, tmp_path: Path) -> None:
    with running(engine("mock"), tmp_path / "elsewhere", request={"engine_key": ""}) as it:
        it.wait_ready()
        register = [*up.argv("register"), "--endpoint", f"127.0.0.1:{it.port}", "--capability", "model=elsewhere"]
        process = subprocess.Popen(register, env=up.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_until(lambda: _loaded(up).get("elsewhere"), 30, "the registered model")
            made = post(up, "/generate", {"prompt": "a", "max_tokens": 3, "model_id": "elsewhere"})
            assert (made["num_generated"], made["token_ids"]) == (3, [])
            assert post(up, "/tokenize", {"text": "a", "model_id": "elsewhere"}, 501)["code"] == "not_offered"
        finally:
            process.terminate()
            process.wait(20)
    wait_until(lambda: "elsewhere" not in _loaded(up), 30, "its end")
    # the other process of the API may still know it for a moment: none of it is ready, it says
    asked = {"prompt": "a", "model_id": "elsewhere"}
    wait_until(lambda: post(up, "/generate", asked, 404, 503)["code"] == "model_not_found", 30, "all to know its end")


def _loaded(up: Stack) -> dict[str, bool]:
    return {model["id"]: model["loaded"] for model in up.call("GET", "/models")["models"]}


def test_the_prompt_stands_in_no_log(up: Stack) -> None:
    secret = "a-prompt-that-nobody-should-read"
    post(up, "/generate", {"prompt": secret, "max_tokens": 2, "model_id": "llama-7b"})
    post(up, "/generate", {"prompt": secret, "max_tokens": 2, "model_id": "does-not-exist"}, 404)
    found = [path for path in Path(up.state_dir).rglob("*.log*") if secret.encode() in path.read_bytes()]
    assert found == []
