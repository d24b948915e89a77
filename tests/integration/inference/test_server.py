"""The model API as it is served: gunicorn with gevent in two processes, behind HAProxy, callers that stay or leave."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.stack.layout import Layout
from tests.integration.inference.conftest import Served
from tests.support import plain_http
from tests.support.embedded import wait_until
from tests.support.engines import KEY, Running
from tests.support.ports import free_port

ROOT = Path(__file__).parents[3]
#: How soon a replica is freed when nobody waits for it any more.
SOON_S = 1.0


@dataclass
class Server:
    """The model API behind HAProxy, and the way to its replicas."""

    served: Served
    port: int
    log: Path

    def ask(self, path: str, body: Any = None, **more: Any) -> httpx2.Response:
        headers = {"X-API-Key": self.served.key}
        method = "GET" if body is None else "POST"
        return plain_http.request(
            method,
            f"http://127.0.0.1:{self.port}{path}",
            json=body,
            headers=headers,
            timeout=60,
            trust_env=False,
            **more,
        )

    def begin(self, path: str, body: Any) -> socket.socket:
        """A request that is sent, and whose answer is not read yet."""
        sent = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {self.served.key}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(sent)}\r\n\r\n"
        )
        client = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        client.sendall(head.encode() + sent)
        return client


@pytest.fixture
def serve(served: Served, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    with ExitStack() as exits:

        def start(**door: Any) -> Server:
            settings = served.ctx.settings
            layout, port = Layout(settings.state_dir), free_port()
            environment = os.environ | {
                "HOSTLER_STATE_DIR": str(settings.state_dir),
                "HOSTLER_MODELS_DIR": str(settings.models_dir),
                "HOSTLER_DATABASE_URL": settings.database_url,
                "HOSTLER_BROKER_URL": settings.broker_url,
                "HOSTLER_NAMESPACE": settings.namespace,
                "HOSTLER_WEB_WORKERS": "2",
                "PYTHONPATH": str(ROOT),
                "PYTHONSAFEPATH": "1",
            }
            command = [sys.executable, "-m", "gunicorn", "-c", "python:app.stack.gunicorn_conf"]
            with open(tmp_path / "web.log", "wb") as log:
                web = subprocess.Popen(
                    [*command, "--graceful-timeout", "1"], env=environment, cwd=tmp_path, stdout=log, stderr=log
                )
            exits.callback(web.wait, 20)
            exits.callback(web.terminate)
            served.open(web=(port, layout.web_socket), **door)
            server = Server(served, port, tmp_path / "web.log")
            wait_until(lambda: _answers(server), 30, f"the API; see {tmp_path}/web.log")
            return server

        yield start


def _answers(server: Server) -> bool:
    try:
        return server.ask("/ready").status_code == 200
    except httpx2.TransportError:
        return False


def state(it: Running) -> dict[str, Any]:
    """What a mock engine counts."""
    request = urllib.request.Request(f"{it.base_url}/mock/state", headers={"Authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(request, timeout=5) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def read_until(client: socket.socket, wanted: bytes) -> bytes:
    found = b""
    while wanted not in found:
        more = client.recv(65536)
        assert more, found
        found += more
    return found


def test_tokens_come_as_they_are_made(serve: Callable[..., Server], served: Served) -> None:
    it = served.run("m", "mock", mock={"tokens_per_s": 5})
    server = serve()
    with server.begin("/stream/generate", {"prompt": "a", "max_tokens": 1000}) as client:
        read_until(client, b'data: {"token":')
        # the first is here while the engine still makes the others
        assert state(it)["active"] == 1
        assert state(it)["tokens"] < 20


@pytest.mark.parametrize("path", ["/generate", "/stream/generate"])
def test_a_caller_that_leaves_frees_the_replica(serve: Callable[..., Server], served: Served, path: str) -> None:
    """Before the first token: nothing is written to the caller then that could fail."""
    it = served.run("m", "mock", mock={"ttft_ms": 600_000})
    server = serve()
    client = server.begin(path, {"prompt": "a"})
    wait_until(lambda: state(it)["active"] == 1, 10, "a request at the replica")
    client.close()
    wait_until(lambda: state(it)["cancelled"] == 1, SOON_S + 4, "its end")
    assert state(it)["active"] == 0


def test_a_caller_that_leaves_in_the_middle_of_a_stream_frees_the_replica(
    serve: Callable[..., Server], served: Served
) -> None:
    it = served.run("m", "mock", mock={"tokens_per_s": 0.1})
    server = serve()
    client = server.begin("/stream/generate", {"prompt": "a", "max_tokens": 1000})
    read_until(client, b'data: {"token":')
    client.close()
    # ten seconds before the next token
    wait_until(lambda: state(it)["cancelled"] == 1, SOON_S + 4, "its end")
    assert "Traceback" not in server.log.read_text(), "somebody left, nothing failed"


def test_a_caller_that_leaves_a_batch_ends_the_rest_of_it(serve: Callable[..., Server], served: Served) -> None:
    it = served.run("m", "mock", mock={"latency_ms": 300})
    server = serve()
    client = server.begin("/batch/generate", {"prompts": ["a"] * 1000, "max_tokens": 1})
    wait_until(lambda: state(it)["finished"] > 0, 10, "the first items")
    client.close()

    def quiet() -> bool:
        before = state(it)
        # two items' time: a batch that goes on has begun others by then
        time.sleep(0.6)
        after = state(it)
        return bool(after["active"] == 0 and after["started"] == before["started"])

    wait_until(quiet, SOON_S + 10, "the end of the batch")
    assert state(it)["started"] < 200


def test_a_batch_runs_several_at_once_and_not_all(serve: Callable[..., Server], served: Served) -> None:
    it = served.run("m", "mock", mock={"latency_ms": 200})
    server = serve()
    with ThreadPoolExecutor(1) as pool:
        batch = pool.submit(server.ask, "/batch/generate", {"prompts": ["a"] * 100, "max_tokens": 1, "seed": 1})
        most = 0
        while not batch.done():
            most = max(most, state(it)["active"])
        assert batch.result().status_code == 200
    assert 2 <= most <= 8


def test_a_failure_in_a_batch_ends_the_rest_of_it(serve: Callable[..., Server], served: Served) -> None:
    it = served.run("m", "mock", mock={"latency_ms": 100, "error_rate": 0.2, "seed": 3})
    server = serve()
    answer = server.ask("/batch/generate", {"prompts": ["a"] * 1000, "max_tokens": 1})
    assert answer.status_code == 502
    assert 0 <= answer.json()["index"] < 100
    wait_until(lambda: state(it)["active"] == 0, 5, "the end of the batch")
    assert state(it)["started"] < 200


def test_hundreds_that_wait_hold_up_nobody(serve: Callable[..., Server], served: Served) -> None:
    it = served.run("m", "mock", mock={"ttft_ms": 600_000})
    server = serve()
    waiting = [server.begin("/generate", {"prompt": "a"}) for _ in range(150)]
    wait_until(lambda: state(it)["active"] == 150, 20, "150 at once")
    assert server.ask("/models").status_code == 200
    assert server.ask("/tokenize", {"text": "a b c"}).json()["num_tokens"] == 3
    for client in waiting:
        client.close()
    wait_until(lambda: state(it)["active"] == 0, SOON_S + 10, "the end of all of them")


def figures(server: Server) -> dict[str, dict[str, float]]:
    """The inference families of `/metrics` by name and model."""
    answer = plain_http.get(
        f"http://127.0.0.1:{server.port}/metrics",
        headers={"X-API-Key": server.served.make_key("read")},
        trust_env=False,
    )
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            if sample.name.startswith("hostler_inference_") and "le" not in sample.labels:
                # the parser gives every counter the ending that newer formats demand
                found.setdefault(sample.name.removesuffix("_total"), {})[sample.labels["model"]] = sample.value
    return found


def test_figures_of_all_processes(serve: Callable[..., Server], served: Served) -> None:
    served.run("m", "mock", mock={"latency_ms": 20})
    server = serve()
    # a connection each, so that both processes get some
    for _ in range(20):
        assert server.ask("/generate", {"prompt": "a", "max_tokens": 5}).status_code == 200
    for _ in range(5):
        assert server.ask("/stream/generate", {"prompt": "a", "max_tokens": 4}).status_code == 200
    assert server.ask("/batch/generate", {"prompts": ["a", "b"], "max_tokens": 10}).status_code == 200
    for number in range(3):
        assert server.ask("/generate", {"prompt": "a", "model_id": f"unknown-{number}"}).status_code == 404
    found = figures(server)
    prefix = "hostler_inference_"
    assert found[f"{prefix}successful_requests"] == {"": 0, "m": 26}
    assert found[f"{prefix}failed_requests"] == {"": 3, "m": 0}, "a name that is no model is no label"
    assert found[f"{prefix}total_requests"] == {"": 3, "m": 26}
    assert found[f"{prefix}total_tokens"]["m"] == 20 * 5 + 5 * 4 + 2 * 10
    total_ms = found[f"{prefix}total_latency_ms"]["m"]
    assert total_ms >= 26 * 20
    assert found[f"{prefix}avg_latency_ms"]["m"] == pytest.approx(total_ms / 26)
    assert found[f"{prefix}tokens_per_second"]["m"] == pytest.approx(140 / total_ms * 1000)
    assert found[f"{prefix}latency_seconds_count"]["m"] == 26
    # whichever process is asked
    assert all(figures(server) == found for _ in range(8))


def test_figures_have_the_names_and_types_that_are_promised(serve: Callable[..., Server], served: Served) -> None:
    served.run('say "m"\\', "mock")
    server = serve()
    assert server.ask("/generate", {"prompt": "a"}).status_code == 200
    with_key = {"X-API-Key": served.make_key("read")}
    text = plain_http.get(f"http://127.0.0.1:{server.port}/metrics", headers=with_key, trust_env=False).text
    for name in ("total_requests", "successful_requests", "failed_requests", "total_tokens", "total_latency_ms"):
        assert f"# TYPE hostler_inference_{name} counter" in text
        assert f'\nhostler_inference_{name}{{model="say \\"m\\"\\\\"}} ' in text
    for name in ("avg_latency_ms", "tokens_per_second"):
        assert f"# TYPE hostler_inference_{name} gauge" in text
    assert "# TYPE hostler_inference_latency_seconds histogram" in text
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names))


def test_kept_alive_streams(serve: Callable[..., Server], served: Served) -> None:
    """A second request on the connection of a stream that ended."""
    served.run("m", "mock")
    server = serve()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    for _ in range(3):
        connection.request(
            "POST",
            "/stream/generate",
            json.dumps({"prompt": "a", "max_tokens": 3}),
            {"X-API-Key": served.key, "Content-Type": "application/json"},
        )
        lines = connection.getresponse().read().decode().split("\n\n")
        assert lines[-2] == 'data: {"done":true}'
        assert len(lines) == 5
    connection.close()
