"""vLLM services by the requests of their document, on a whole stack: stand-ins for vLLM, GPUs that are declared."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.engines.tiny_model import write_tiny_gguf
from tests.acceptance.test_model_api import mock_state
from tests.standins import VLLM
from tests.standins.hub import TOKEN, Hub, hub
from tests.support import plain_http
from tests.support.curl import curl, post
from tests.support.embedded import wait_until
from tests.support.stacks import Stack, stack

JOKE = {"prompt": "Tell me a joke about programming", "max_tokens": 100}
DEFAULT_MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
READY_S = 60


@pytest.fixture(scope="module")
def there() -> Iterator[Hub]:
    with hub() as it:
        yield it


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, there: Hub) -> Iterator[Stack]:
    environ = {
        "HOSTLER_VLLM_COMMAND": VLLM,
        "HOSTLER_NODE_GPUS": "24",
        "HOSTLER_WEB_WORKERS": "2",
        "HOSTLER_WORKER_CONCURRENCY": "4",
        "HF_ENDPOINT": there.endpoint,
        "HF_TOKEN": TOKEN,
    }
    folder = tmp_path_factory.mktemp("vllm")
    models = folder / "models"
    models.mkdir()
    write_tiny_gguf(models / "tiny.gguf")
    with stack(folder / "state", HOSTLER_MODELS_DIR=str(models), **environ) as made:
        made.up()
        yield made


def get(up: Stack, path: str, expect: int = 200) -> Any:
    status, text = curl(up, f"{up.url}{path}")
    assert status == expect, text
    return json.loads(text) if text.startswith(("{", "[")) else text


def service(up: Stack, recipe: str, config: dict[str, Any] | None = None) -> dict[str, Any]:
    """A service whose replicas are all ready."""
    body = {"recipe_name": recipe, **({"config": config} if config is not None else {})}
    made = post(up, "/api/v1/services", body, 201, 202)

    def ready() -> bool:
        found = get(up, f"/api/v1/services/{made['id']}/status")
        assert found["status"] != "failed", found
        return bool(found["healthy_replicas"] == found["total_replicas"])

    wait_until(ready, READY_S, "all its replicas")
    return {**made, **get(up, f"/api/v1/services/{made['id']}")}


@pytest.fixture(scope="module")
def group(up: Stack) -> dict[str, Any]:
    return service(up, "inference/vllm-replicas")


@pytest.fixture(scope="module")
def gpt2(up: Stack) -> dict[str, Any]:
    return service(up, "inference/vllm-single-node", {"environment": {"VLLM_MODEL": "gpt2"}})


def gpus_of(found: dict[str, Any]) -> list[list[int]]:
    return [one["gpus"] for one in found["replicas"]]


def test_the_default_model(up: Stack) -> None:
    found = service(up, "inference/vllm-single-node")
    assert (found["model_name"], found["group_id"], len(gpus_of(found)[0])) == (DEFAULT_MODEL, None, 4)
    told = post(up, f"/api/v1/vllm/{found['id']}/prompt", JOKE)
    assert (told["success"], told["group_id"], told["total_replicas"]) == (True, None, 1)
    assert len(told["text"].split()) == 100
    post(up, f"/api/v1/services/{found['id']}/status", {"status": "cancelled"}, 200, 202)
    assert post(up, f"/api/v1/vllm/{found['id']}/prompt", JOKE, 409)["code"] == "conflict"


def test_a_group_has_its_own_gpus_and_ports(up: Stack, group: dict[str, Any]) -> None:
    assert [len(one) for one in gpus_of(group)] == [1, 1, 1, 1]
    assert len({one for gpus in gpus_of(group) for one in gpus}) == 4
    assert len({one["port"] for one in group["replicas"]}) == 4


def test_4_gpus_at_2_are_2_replicas(up: Stack) -> None:
    found = service(up, "inference/vllm-replicas", {"resources": {"gpu": "4"}, "gpu_per_replica": 2})
    assert [len(one) for one in gpus_of(found)] == [2, 2]
    post(up, f"/api/v1/services/{found['id']}/status", {"status": "cancelled"}, 200, 202)


def test_every_replica_of_a_group_answers(up: Stack, group: dict[str, Any]) -> None:
    path = f"/api/v1/vllm/{group['id']}/prompt"
    told = [post(up, path, JOKE) for _ in range(12)]
    assert {one["routed_to"] for one in told} == {f"{one['replica_id']}:{one['port']}" for one in group["replicas"]}
    for one in told:
        assert (one["success"], one["group_id"], one["total_replicas"]) == (True, group["id"], 4)
        assert one["endpoint_used"] == "/v1/chat/completions"
        assert one["usage"]["completion_tokens"] == 100


def test_all_options(up: Stack) -> None:
    config = {
        "environment": {
            "VLLM_MODEL": "gpt2",
            "VLLM_HOST": "0.0.0.0",
            "VLLM_PORT": "8001",
            "VLLM_MAX_MODEL_LEN": "2048",
            "VLLM_TENSOR_PARALLEL_SIZE": "4",
            "VLLM_GPU_MEMORY_UTILIZATION": "0.9",
            "CUDA_VISIBLE_DEVICES": "0",
        },
        "resources": {"cpu": "2", "memory": "32G", "time_limit": 15, "gpu": "4"},
    }
    found = service(up, "inference/vllm-single-node", config)
    told = " ".join(found["warnings"])
    assert all(name in told for name in ("VLLM_HOST", "VLLM_PORT", "CUDA_VISIBLE_DEVICES")), told
    assert post(up, f"/api/v1/vllm/{found['id']}/prompt", JOKE)["model"] == "gpt2"
    post(up, f"/api/v1/services/{found['id']}/status", {"status": "cancelled"}, 200, 202)


def test_cpu_only(up: Stack) -> None:
    resources = {"nodes": 1, "cpu": "4", "memory": "16G", "gpu": None}
    config = {"environment": {"VLLM_MODEL": "gpt2"}, "resources": resources}
    found = service(up, "inference/vllm-single-node", config)
    assert gpus_of(found) == [[]]
    assert post(up, f"/api/v1/vllm/{found['id']}/prompt", JOKE)["success"] is True
    post(up, f"/api/v1/services/{found['id']}/status", {"status": "cancelled"}, 200, 202)


def test_a_model_without_chats(up: Stack, gpt2: dict[str, Any]) -> None:
    body = {"prompt": "Write a short haiku about AI", "model": "gpt2", "max_tokens": 64, "temperature": 0.7}
    told = post(up, f"/api/v1/vllm/{gpt2['id']}/prompt", body)
    assert (told["endpoint_used"], told["model"], len(told["text"].split())) == ("/v1/completions", "gpt2", 64)
    unknown = post(up, f"/api/v1/vllm/{gpt2['id']}/prompt", {**body, "model": "gpt3"}, 404)
    assert unknown["models"] == ["gpt2"]


def test_lists(up: Stack, group: dict[str, Any], gpt2: dict[str, Any]) -> None:
    listed = {one["id"]: one for one in get(up, "/api/v1/vllm/services")["services"]}
    assert {group["id"], gpt2["id"]} <= set(listed)
    assert len(listed[group["id"]]["endpoints"]) == 4
    assert get(up, f"/api/v1/vllm/{gpt2['id']}/models")["models"] == ["gpt2"]
    routes = {one["name"]: one for one in get(up, "/api/v1/routes?kind=service")["routes"]}
    assert (routes[group["id"]]["state"], routes[group["id"]]["replicas_up"]) == ("ready", 4)
    assert routes[group["id"]]["model"] == DEFAULT_MODEL
    assert {DEFAULT_MODEL, "gpt2"} <= {one["id"] for one in get(up, "/v1/models")["data"]}


@pytest.mark.parametrize("by", ["id", "name"])
def test_openai_clients_reach_a_service_by_a_header(up: Stack, gpt2: dict[str, Any], by: str) -> None:
    address = {"X-API-Key": up.key, "X-Hostler-Service": gpt2[by]}
    wanted = gpt2["replicas"][0]["replica_id"]
    with plain_http.Client(base_url=up.url, trust_env=False, headers=address, timeout=30) as client:
        # large ones take the slow lane
        for prompt in ("Hello", "Hello" * 10_000):
            body = {"model": "gpt2", "prompt": prompt, "max_tokens": 3}
            answer = client.post("/v1/completions", json=body)
            assert (answer.status_code, answer.headers.get("X-Hostler-Replica")) == (200, wanted), answer.text
        answer = client.post("/generate", json={"prompt": "Hello", "max_tokens": 3})
        assert (answer.status_code, answer.headers.get("X-Hostler-Replica")) == (200, wanted), answer.text


def test_metrics(up: Stack, group: dict[str, Any]) -> None:
    text = get(up, f"/api/v1/vllm/{group['id']}/metrics")
    for one in group["replicas"]:
        wanted = f'service="{group["id"]}",replica="{one["replica_id"]}"'
        assert any(line.startswith("vllm:") and wanted in line for line in text.split("\n")), text


def test_a_stream(up: Stack, group: dict[str, Any]) -> None:
    text = post(up, f"/api/v1/vllm/{group['id']}/prompt", {**JOKE, "stream": True})
    first, *texts, last = [json.loads(one.removeprefix("data: ")) for one in text.strip().split("\n\n")]
    assert first["routed_to"].split(":")[0] == first["replica_id"]
    assert len("".join(one["text"] for one in texts).split()) == 100
    assert (last["done"], last["usage"]["completion_tokens"]) == (True, 100)


def test_llama_cpp_answers_prompts_too(up: Stack) -> None:
    found = service(up, "inference/llama-cpp", {"parameters": {"model": "tiny"}})
    path = f"/api/v1/vllm/{found['id']}/prompt"
    told = post(up, path, {**JOKE, "max_tokens": 8, "seed": 1, "temperature": 0.5})
    assert (told["endpoint_used"], told["model"], told["usage"]["completion_tokens"]) == (
        "/v1/chat/completions",
        "tiny",
        8,
    )
    text = post(up, path, {**JOKE, "max_tokens": 8, "seed": 1, "temperature": 0.5, "stream": True})
    assert json.loads(text.strip().split("\n\n")[-1].removeprefix("data: "))["usage"]["completion_tokens"] == 8
    assert get(up, f"/api/v1/vllm/{found['id']}/models")["models"] == ["tiny"]
    # it is no vLLM all the same
    assert found["id"] not in {one["id"] for one in get(up, "/api/v1/vllm/services")["services"]}
    post(up, f"/api/v1/services/{found['id']}/status", {"status": "cancelled"}, 200, 202)


def test_a_service_that_starts_says_when_to_come_back(up: Stack) -> None:
    made = post(
        up,
        "/api/v1/services",
        {"recipe_name": "inference/mock", "config": {"parameters": {"startup_s": 600}}},
        201,
        202,
    )
    with plain_http.Client(base_url=up.url, trust_env=False, headers={"X-API-Key": up.key}, timeout=30) as client:
        answer = client.post(f"/api/v1/vllm/{made['id']}/prompt", json=JOKE)
    assert (answer.status_code, answer.json()["code"]) == (503, "no_ready_replica")
    assert int(answer.headers["Retry-After"]) > 0
    post(up, f"/api/v1/services/{made['id']}/status", {"status": "cancelled"}, 200, 202)


@pytest.mark.parametrize("stream", [False, True])
def test_a_caller_that_leaves_frees_the_replica(up: Stack, stream: bool) -> None:
    found = service(up, "inference/mock", {"parameters": {"latency_ms": 600_000}, "probes": {"run_diagnostics": False}})
    url = found["endpoint"]
    body = json.dumps({**JOKE, "stream": stream}).encode()
    path = f"/api/v1/vllm/{found['id']}/prompt"
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {up.key}\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", up.port), timeout=20) as wire:
        wire.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        wait_until(lambda: mock_state(up, url)["active"] == 1, 10, "a request at the replica")
    wait_until(lambda: mock_state(up, url)["cancelled"] == 1, 6, "its end")
    post(up, f"/api/v1/services/{found['id']}/status", {"status": "cancelled"}, 200, 202)


def test_the_hub(up: Stack, there: Hub) -> None:
    assert "gpt2" in get(up, "/api/v1/vllm/available-models")["examples"].values()
    found = get(up, "/api/v1/vllm/search-models?query=qwen&limit=10")
    assert {one["id"] for one in found["models"]} >= {DEFAULT_MODEL, "secret/qwen"}
    assert get(up, "/api/v1/vllm/model-info/Qwen/Qwen2.5-7B-Instruct")["vllm_compatible"] is True
    there.fault = "hang"
    try:
        # the wait of the document, not a moment more
        with plain_http.Client(timeout=10, trust_env=False) as client:
            answer = client.get(f"{up.url}/api/v1/vllm/model-info/a/b", headers={"X-API-Key": up.key})
    finally:
        there.fault = ""
    assert (answer.status_code, answer.json()["code"]) == (503, "hub_unavailable")
    token = TOKEN.encode()
    told = [path for path in Path(up.state_dir).rglob("*.log*") if token in path.read_bytes()]
    assert told == []


class Asking:
    """Callers who send prompts to a service, one after the other, until the end of the context."""

    def __init__(self, up: Stack, service_id: str, callers: int = 4) -> None:
        self.answers: list[httpx2.Response] = []
        self._up, self._path = up, f"{up.url}/api/v1/vllm/{service_id}/prompt"
        self._stop, self._pool = threading.Event(), ThreadPoolExecutor(callers)
        self._callers = callers

    def __enter__(self) -> Asking:
        self._asking = [self._pool.submit(self._ask) for _ in range(self._callers)]
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown()

    def more(self, count: int) -> None:
        """Wait for as many further answers."""
        seen = len(self.answers)
        wait_until(lambda: len(self.answers) >= seen + count or any(one.done() for one in self._asking), 60, "prompts")

    def failed(self) -> list[tuple[int, str]]:
        for one in self._asking:
            one.result()
        return [(one.status_code, one.text) for one in self.answers if one.status_code != 200]

    def _ask(self) -> None:
        with plain_http.Client(timeout=60, trust_env=False, headers={"X-API-Key": self._up.key}) as client:
            for number in count():
                if self._stop.is_set():
                    return
                # some are larger than HAProxy's buffer, which it cannot send again by itself
                prompt = JOKE["prompt"] * (2000 if number % 10 == 0 else 1)
                self.answers.append(client.post(self._path, json={**JOKE, "prompt": prompt}))


def test_a_killed_replica_fails_no_prompt(up: Stack, group: dict[str, Any]) -> None:
    killed = group["replicas"][0]
    with Asking(up, group["id"]) as asking:
        asking.more(20)
        os.kill(engine_pid(up, killed), signal.SIGKILL)
        asking.more(200)
    assert asking.failed() == []

    def whole() -> bool:
        now = get(up, f"/api/v1/services/{group['id']}")
        return now["ready"] == 4 and killed["replica_id"] not in {one["replica_id"] for one in now["replicas"]}

    wait_until(whole, READY_S, "another in its place")
    told = {post(up, f"/api/v1/vllm/{group['id']}/prompt", JOKE)["replica_id"] for _ in range(16)}
    assert len(told) == 4
    assert killed["replica_id"] not in told


def test_an_update_to_another_model_fails_no_prompt(up: Stack) -> None:
    found = service(up, "inference/vllm-replicas", {"resources": {"gpu": "2"}})
    with Asking(up, found["id"], 3) as asking:
        asking.more(20)
        change = {"config": {"environment": {"VLLM_MODEL": "gpt2"}}}
        up.call("PATCH", f"/api/v1/services/{found['id']}", change, (200, 202))

        def done() -> bool:
            now = get(up, f"/api/v1/services/{found['id']}")
            return now["good_revision"] == 2 and {one["revision"] for one in now["replicas"]} == {2}

        wait_until(done, READY_S, "the other model")
        asking.more(20)
    assert asking.failed() == []
    told = [(one.json()["model"], one.json()["endpoint_used"]) for one in asking.answers]
    # the one chats, the other does not; while both are there the first may be asked as the other
    assert {told[0], told[-1]} == {(DEFAULT_MODEL, "/v1/chat/completions"), ("gpt2", "/v1/completions")}
    assert ("gpt2", "/v1/chat/completions") not in told
    assert {model for model, _ in told[-10:]} == {"gpt2"}
    post(up, f"/api/v1/services/{found['id']}/status", {"status": "cancelled"}, 200, 202)


def engine_pid(up: Stack, replica: dict[str, Any]) -> int:
    return int(mock_state(up, f"http://127.0.0.1:{replica['port']}")["pid"])
