"""The worker pool's document, request by request as it is written there, on a stack that its own settings bring up."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.engines.tiny_model import write_tiny_gguf
from tests.standins import LLAMA_SERVER
from tests.support import plain_http
from tests.support.browsers import Site, browser, site
from tests.support.embedded import wait_until
from tests.support.stacks import Stack, stack

#: As long as keys must be; the document's own is shorter.
KEY = "secret123-and-fifteen-more-characters"
DISH = {"prompt": "Name a famous Peruvian dish"}
LONG = {"prompt": "Tell a story", "max_tokens": 2000}
WORKERS = 2
#: With the dash of the document.
IDLE = re.compile("ok \u2013 workers idle: ([0-9]+)")


@pytest.fixture(scope="module")
def listed() -> Iterator[Site]:
    """A page's origin that may call."""
    with site() as made:
        yield made


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, listed: Site) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("worker-pool")
    model = folder / "gemma-2b-it-q4_0.gguf"
    write_tiny_gguf(model, seed=7)
    settings = {
        "API_KEY": KEY,
        "LLM_WORKERS": str(WORKERS),
        "LLM_MODEL_PATH": str(model),
        "LOG_LEVEL": "INFO",
        "HOSTLER_CORS_ORIGINS": listed.origin,
        "HOSTLER_GATEWAY_QUEUE": "3",
        "HOSTLER_WEB_WORKERS": "2",
    }
    with stack(folder / "state", **settings) as made:
        made.up()
        wait_until(lambda: idle(made) == WORKERS, 60, "two idle workers")
        yield made


def curl(*words: str) -> tuple[int, str]:
    """What curl prints, and the status."""
    done = subprocess.run(
        ["curl", "-sS", "--max-time", "60", "-w", "\n%{http_code}", *words],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


def as_written(up: Stack, key: str = KEY, body: Any = None) -> tuple[int, str]:
    """The document's own line, host, port and key aside."""
    sent = json.dumps(body or DISH)
    return curl(
        "-N", "-H", f"X-API-Key: {key}", "-H", "Content-Type: application/json", "-d", sent, f"{up.url}/chat"
    )  # fmt: skip


def idle(up: Stack) -> int:
    """What the text of /health says; -1 before the first worker was ready."""
    status, text = curl("-H", "Accept: text/plain", f"{up.url}/health")
    found = IDLE.fullmatch(text)
    if found is None:
        assert (status, text) == (503, "Server is starting up")
        return -1
    assert status == 200
    return int(found[1])


def ask(up: Stack, body: Any = None, *, key: str = KEY) -> httpx2.Response:
    return plain_http.post(
        f"{up.url}/chat", json=body or DISH, headers={"X-API-Key": key}, timeout=60, trust_env=False
    )  # fmt: skip


def begin(up: Stack, body: Any = None) -> socket.socket:
    """A request whose first text has come."""
    sent = json.dumps(body or LONG).encode()
    head = f"POST /chat HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nContent-Type: application/json\r\n"
    client = socket.create_connection(("127.0.0.1", up.port), timeout=60)
    client.sendall(f"{head}Content-Length: {len(sent)}\r\n\r\n".encode() + sent)
    found = b""
    while b"\r\n\r\n" not in found:
        more = client.recv(65536)
        assert more, found
        found += more
    assert found.startswith(b"HTTP/1.1 200 "), found
    return client


def members(up: Stack) -> list[dict[str, Any]]:
    """The workers that live."""
    found = up.call("GET", "/api/v1/services/chat")["replicas"]
    return [one for one in found if one["status"] in ("pending", "configuring", "running")]


def engine_pid(up: Stack, replica_id: str) -> int:
    [pid] = [row["pid"] for row in up.processes("engine") if row["replica_id"] == replica_id]
    return int(pid)


def test_the_request_of_the_document(up: Stack) -> None:
    status, text = as_written(up)
    assert status == 200
    assert text


def test_its_whole_body(up: Stack) -> None:
    body = {
        "prompt": "Hello, world!",
        "system_prompt": "You are a helpful assistant.",
        "max_tokens": 256,
        "temperature": 0.8,
        "top_p": 0.9,
        "repeat_penalty": 1.1,
    }
    status, text = as_written(up, body=body)
    assert status == 200
    assert text


def test_health_and_root(up: Stack) -> None:
    wait_until(lambda: idle(up) == WORKERS, 10, "idle workers")
    status, text = curl(f"{up.url}/health")
    assert status == 200
    assert json.loads(text)["status"] in ("healthy", "degraded")
    status, text = curl(f"{up.url}/")
    assert status == 200
    assert re.match(r"Hostler [0-9.]+ is running\.", text)
    status, page = curl("-H", "Accept: text/html,application/xhtml+xml,*/*;q=0.8", f"{up.url}/")
    assert "<h1>Hostler" in page


@pytest.mark.parametrize("key", ["wrong", "secret123"])
def test_a_bad_key(up: Stack, key: str) -> None:
    status, text = as_written(up, key)
    assert status == 401
    assert json.loads(text)["detail"] == "Bad API key"


def test_the_key_is_of_role_infer(up: Stack) -> None:
    assert curl("-H", f"X-API-Key: {KEY}", f"{up.url}/api/v1/keys")[0] == 403
    assert curl("-H", f"X-API-Key: {KEY}", f"{up.url}/models")[0] == 200
    kept = [row for row in up.call("GET", "/api/v1/keys")["keys"] if row["name"] == "chat"]
    assert [row["role"] for row in kept] == ["infer"]
    found = [path for path in Path(up.state_dir).rglob("*") if path.is_file() and holds(path, KEY)]
    assert found == []


def holds(path: Path, text: str) -> bool:
    with open(path, "rb") as file:
        return text.encode() in file.read()


def test_the_workers_are_a_service_that_asks_one_thing_at_a_time(up: Stack) -> None:
    service = up.call("GET", "/api/v1/services/chat")
    assert (service["recipe_name"], service["count"], service["model_name"]) == (
        "inference/llama-cpp", WORKERS, "gemma-2b-it-q4_0",
    )  # fmt: skip
    [route] = up.call("GET", f"/api/v1/routes?kind=service&name={service['id']}")["routes"]
    assert [one["max_concurrency"] for one in route["replicas"]] == [1, 1]


def test_an_idle_worker_that_dies_is_replaced_at_once(up: Stack) -> None:
    wait_until(lambda: idle(up) == WORKERS, 60, "idle workers")
    victim = min(one["replica_id"] for one in members(up))
    kill_one(up, victim)
    # who asks meanwhile is answered by whoever is left
    assert ask(up, {**DISH, "max_tokens": 3}).status_code == 200
    wait_until(lambda: replaced(up, victim), 30, "its replacement")
    wait_until(lambda: idle(up) == WORKERS, 30, "idle workers")


def test_all_workers_die_and_who_asks_gets_an_answer(up: Stack) -> None:
    wait_until(lambda: idle(up) == WORKERS, 30, "idle workers")
    for one in members(up):
        os.kill(engine_pid(up, one["replica_id"]), signal.SIGKILL)
    answer = ask(up, {**DISH, "max_tokens": 3})
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/plain; charset=utf-8"), answer.text
    wait_until(lambda: idle(up) == WORKERS, 30, "idle workers")


def test_up_again_changes_nothing_and_other_settings_change_the_service(up: Stack, tmp_path: Path) -> None:
    before = up.call("GET", "/api/v1/services/chat")
    up.up()
    same = up.call("GET", "/api/v1/services/chat")
    assert (same["id"], same["revision"], same["count"]) == (before["id"], before["revision"], before["count"])
    other = tmp_path / "other.gguf"
    write_tiny_gguf(other, seed=9)
    with asked_all_the_time(up) as answers:
        up.up(LLM_MODEL_PATH=str(other))
        wait_until(lambda: settled(up, "other", WORKERS), 60, "the new model")
        up.up(LLM_WORKERS="1", LLM_MODEL_PATH=str(other))
        wait_until(lambda: settled(up, "other", 1), 60, "fewer workers")
        up.up()
        wait_until(lambda: settled(up, "gemma-2b-it-q4_0", WORKERS), 60, "the old model")
    assert set(answers) == {200}, "nobody noticed"
    assert len(answers) > 20
    wait_until(lambda: idle(up) == WORKERS, 30, "idle workers")


@contextmanager
def asked_all_the_time(up: Stack) -> Iterator[list[int]]:
    """Two callers, no more than the queue and the workers take at any time."""
    over, answers = threading.Event(), list[int]()

    def go_on() -> None:
        while not over.is_set():
            answers.append(ask(up, {**DISH, "max_tokens": 10}).status_code)

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(go_on) for _ in range(2)]
        try:
            yield answers
        finally:
            over.set()
            for one in asking:
                one.result()


def settled(up: Stack, model: str, count: int) -> bool:
    service = up.call("GET", "/api/v1/services/chat")
    running = [one for one in members(up) if one["status"] == "running"]
    return (service["model_name"], service["count"], len(running), len(members(up))) == (model, count, count, count)


def test_a_limited_key(up: Stack) -> None:
    def made(models: list[str]) -> str:
        body = {"name": "-".join(["limited", *models]), "role": "infer", "models": models}
        return str(up.call("POST", "/api/v1/keys", body, 201)["key"])

    assert ask(up, key=made(["gemma-2b-it-q4_0"])).status_code == 200
    assert ask(up, key=made(["another"])).status_code == 403


CALL = """
const answer = await fetch("%s/chat", {
  method: "POST",
  headers: {"X-API-Key": "%s", "Content-Type": "application/json"},
  body: JSON.stringify({prompt: "Name a famous Peruvian dish", max_tokens: 40}),
});
const pieces = [];
const decoder = new TextDecoder();
for (const reader = answer.body.getReader();;) {
  const {done, value} = await reader.read();
  if (done) break;
  pieces.push(decoder.decode(value, {stream: true}));
}
return {status: answer.status, type: answer.headers.get("Content-Type"), pieces,
        worker: answer.headers.get("X-Hostler-Replica")};
"""
needs_browser = pytest.mark.skipif(browser() is None, reason="no chromium here; .ci/run installs Debian's")


@needs_browser
def test_a_page_of_a_listed_origin_reads_tokens_in_a_browser(up: Stack, listed: Site) -> None:
    found = listed.see(CALL % (up.url, KEY))
    assert (found["status"], found["type"]) == (200, "text/plain; charset=utf-8"), found
    assert "".join(found["pieces"])
    assert found["worker"] in {one["replica_id"] for one in members(up)}
    # and why it was refused
    refused = listed.see(CALL % (up.url, "wrong"))
    assert refused["status"] == 401
    assert json.loads("".join(refused["pieces"]))["detail"] == "Bad API key"
    headers = json.dumps({"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"})
    body = json.dumps(json.dumps({"model": "gemma-2b-it-q4_0", "prompt": "a", "max_tokens": 3}))
    request = f'{{method: "POST", headers: {headers}, body: {body}}}'
    openai = f'return await (await fetch("{up.url}/v1/completions", {request})).json();'
    assert listed.see(openai)["choices"]


@needs_browser
def test_a_page_of_another_origin_cannot(up: Stack) -> None:
    with site() as other:
        assert "TypeError" in other.see(CALL % (up.url, KEY))["error"]
        # also where a browser asks nobody first
        assert "TypeError" in other.see(f'return await (await fetch("{up.url}/health")).json();')["error"]


@needs_browser
def test_a_page_without_an_origin_cannot(up: Stack, listed: Site) -> None:
    inside = f"fetch('{up.url}/health').then((r) => r.text(), String).then((t) => parent.postMessage(t, '*'))"
    found = listed.see(
        "const frame = document.createElement('iframe'); frame.sandbox = 'allow-scripts';"
        f'frame.srcdoc = "<script>{inside}<" + "/script>"; document.documentElement.append(frame);'
        "return {said: await new Promise((told) => addEventListener('message', (event) => told(event.data)))};"
    )
    assert "TypeError" in found["said"]


@needs_browser
def test_the_control_api_is_no_pages_to_call(up: Stack, listed: Site) -> None:
    script = f'return await (await fetch("{up.url}/api/v1/replicas", {{headers: {{"X-API-Key": "{up.key}"}}}})).json();'
    assert "TypeError" in listed.see(script)["error"]


@pytest.fixture(scope="module")
def slow(up: Stack) -> Stack:
    """Its workers are others for a while, which take their time: any service will do."""
    change = {
        "recipe_name": "inference/mock",
        "replace_config": True,
        "config": {"parameters": {"model": "slow", "tokens_per_s": 5}, "gateway": {"max_concurrency": 1}},
    }
    up.call("PATCH", "/api/v1/services/chat", change, 202)
    wait_until(lambda: settled(up, "slow", WORKERS), 60, "the slow workers")
    return up


def test_busy_workers_are_not_idle(slow: Stack) -> None:
    wait_until(lambda: idle(slow) == WORKERS, 10, "idle workers")
    with begin(slow):
        assert idle(slow) == WORKERS - 1
        with begin(slow):
            assert idle(slow) == 0
    wait_until(lambda: idle(slow) == WORKERS, 10, "idle workers")
    # whichever way a request came in
    [worker, *_] = sorted(one["replica_id"] for one in members(slow) if one["status"] == "running")
    body = {"model": "slow", "prompt": "a", "max_tokens": 1000, "stream": True}
    for named in ({}, {"X-Hostler-Replica": worker}):
        headers = {"X-API-Key": KEY, **named}
        url = f"{slow.url}/v1/completions"
        with plain_http.stream("POST", url, json=body, headers=headers, timeout=60, trust_env=False) as answer:
            pieces = answer.iter_raw()
            next(pieces)
            assert idle(slow) == WORKERS - 1
            pieces.close()
        wait_until(lambda: idle(slow) == WORKERS, 10, "idle workers")
    # a caller that leaves frees its worker
    wait_until(lambda: idle(slow) == WORKERS, 10, "idle workers")


def test_who_finds_no_idle_worker_waits_and_too_many_are_told(slow: Stack) -> None:
    with begin(slow), begin(slow) as second, ThreadPoolExecutor(8) as pool:
        asked: list[Future[httpx2.Response]] = [pool.submit(ask, slow, {**DISH, "max_tokens": 3}) for _ in range(8)]
        wait_until(lambda: sum(one.done() for one in asked) >= 5, 20, "those for whom there is no room")
        refused = [one.result() for one in asked if one.done()]
        assert {one.status_code for one in refused} == {429}
        assert all(int(one.headers["Retry-After"]) > 0 for one in refused)
        assert all(one.headers["Content-Type"] == "application/problem+json" for one in refused)
        second.close()
        waited = [one.result(60) for one in asked]
    assert sorted(one.status_code for one in waited) == [200] * 3 + [429] * 5


def kill_one(up: Stack, victim: str) -> None:
    os.kill(engine_pid(up, victim), signal.SIGKILL)


def replaced(up: Stack, victim: str) -> bool:
    running = {one["replica_id"] for one in members(up) if one["status"] == "running"}
    return victim not in running and len(running) == WORKERS


def test_a_busy_worker_that_dies_is_replaced_at_once(slow: Stack) -> None:
    wait_until(lambda: idle(slow) == WORKERS, 30, "idle workers")
    before = {one["replica_id"] for one in members(slow)}
    victim = min(before)
    with begin(slow) as one, begin(slow) as other:
        kill_one(slow, victim)
        wait_until(lambda: replaced(slow, victim), 30, "its replacement")
        assert sorted((ended_badly(one), ended_badly(other))) == [False, True]
    wait_until(lambda: idle(slow) == WORKERS, 30, "idle workers")
    assert len(before & {one["replica_id"] for one in members(slow)}) == WORKERS - 1


def ended_badly(client: socket.socket) -> bool:
    """Whether an answer was cut; one that goes on was not."""
    client.settimeout(1)
    found, until = b"", time.monotonic() + 2
    while time.monotonic() < until:
        try:
            more = client.recv(65536)
        except TimeoutError:
            return False
        except ConnectionError:
            return True
        if not more:
            return not found.endswith(b"0\r\n\r\n")
        found = (found + more)[-16:]
    return False


def test_who_waits_in_the_queue_is_answered_though_a_worker_dies(slow: Stack) -> None:
    wait_until(lambda: idle(slow) == WORKERS, 30, "idle workers")
    victim = min(one["replica_id"] for one in members(slow))
    with begin(slow), begin(slow), ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(ask, slow, {**DISH, "max_tokens": 3}) for _ in range(2)]
        kill_one(slow, victim)
        assert [one.result(60).status_code for one in asked] == [200, 200]


def test_up_brings_back_what_the_settings_say(slow: Stack) -> None:
    slow.up()
    wait_until(lambda: settled(slow, "gemma-2b-it-q4_0", WORKERS), 60, "the quick workers")
    assert as_written(slow)[0] == 200


def test_a_key_that_could_be_guessed_is_refused(tmp_path: Path) -> None:
    with stack(tmp_path / "state") as made:
        for key in ("changeme", "secret123"):
            done = made.hostler("up", "-d", "--port", str(made.port), API_KEY=key)
            assert done.returncode == 2
            assert "API_KEY" in done.stderr
            assert key == "changeme" or key not in done.stderr
        assert not made.state_dir.exists()


def test_a_server_of_ones_own_starts_up_and_says_so_until_it_did(tmp_path: Path) -> None:
    """LLM_BIN_PATH; and /chat before the first worker was ready."""
    model, program = tmp_path / "tiny.gguf", tmp_path / "llama-server"
    write_tiny_gguf(model)
    go = tmp_path / "go"
    program.write_text(f"#!/bin/sh\nwhile [ ! -e '{go}' ]; do sleep 0.1; done\nexec {LLAMA_SERVER} \"$@\"\n")
    program.chmod(0o755)
    settings = {"API_KEY": KEY, "LLM_MODEL_PATH": str(model), "LLM_BIN_PATH": str(program)}
    with stack(tmp_path / "state", **settings) as made:
        made.up()
        assert idle(made) == -1
        status, text = as_written(made)
        assert (status, json.loads(text)["detail"]) == (503, "Server is starting up")
        go.touch()
        wait_until(lambda: idle(made) == 1, 60, "its worker")
        status, text = as_written(made)
        assert status == 200
        assert text
