"""The one door of a whole stack: what is served goes on whatever of it dies, and its callers are told what does not."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.settings import Settings
from app.stack.processes import control_plane
from app.stack.roles import GROUP
from app.stack.supervisor import Supervisor
from tests.support import plain_http
from tests.support.embedded import wait_until
from tests.support.public_door import children_of
from tests.support.stacks import Stack, gone, stack, wait_gone

pytestmark = pytest.mark.timeout(180)
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with one mock engine that is routed."""
    with stack(tmp_path_factory.mktemp("gw") / "state") as made:
        made.up()
        made.replica()
        wait_until(lambda: chat(made).status_code == 200, 10, "the first answer")
        yield made
        made.must("down")
        assert not made.living()


def chat(up: Stack, **more: Any) -> httpx2.Response:
    return ask(up, "POST", "/v1/chat/completions", json={**CHAT, **more})


def ask(up: Stack, method: str, path: str, **more: Any) -> httpx2.Response:
    headers = {"X-API-Key": up.key, **more.pop("headers", {})}
    return plain_http.request(method, f"{up.url}{path}", headers=headers, timeout=30, trust_env=False, **more)


def answers(up: Stack) -> bool:
    try:
        return chat(up).status_code == 200
    except httpx2.TransportError:
        return False


@contextmanager
def asked_all_the_time(up: Stack) -> Iterator[list[str]]:
    """A caller that asks one request after the other; what was no answer."""
    wrong: list[str] = []
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            try:
                answer = chat(up)
                if answer.status_code != 200:
                    wrong.append(f"{answer.status_code} {answer.text}")
            except httpx2.TransportError as error:
                wrong.append(repr(error))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield wrong
    finally:
        over.set()
        thread.join(60)


def test_what_is_served_goes_on_without_the_control_api(up: Stack) -> None:
    supervisor = Supervisor(Settings.load({}, state_dir=up.state_dir))
    with asked_all_the_time(up) as wrong:
        supervisor.stop(f"{GROUP}:web")
        wait_until(lambda: ask(up, "GET", "/api/v1/pools").status_code == 503, 30, "the end of the control API")
        answer = ask(up, "GET", "/api/v1/pools")
        problem = answer.json()
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert (problem["source"], problem["code"], problem["status"]) == ("gateway", "unavailable", 503)
        assert int(answer.headers["Retry-After"]) > 0
        wait_until(lambda: _state(supervisor, "web") == "STOPPED", 30, "its very end")
        supervisor.start(f"{GROUP}:web")
        wait_until(lambda: ask(up, "GET", "/api/v1/pools").status_code == 200, 30, "the control API")
    assert wrong == []


def test_what_is_served_goes_on_without_postgres_and_agent(up: Stack) -> None:
    with asked_all_the_time(up) as wrong:
        for role in ("gateway-agent", "postgres"):
            pid = up.pid(role)
            os.kill(pid, signal.SIGKILL)
            wait_gone(pid)
            assert answers(up)
        wait_until(lambda: ask(up, "GET", "/ready").status_code == 200, 30, "a ready API")
    assert wrong == []


@pytest.mark.parametrize("victim", ["worker", "master"])
def test_a_killed_haproxy_is_back_with_its_routes(up: Stack, victim: str) -> None:
    """Without asking anybody: neither agent nor database is there to be asked."""
    supervisor = Supervisor(Settings.load({}, state_dir=up.state_dir))
    supervisor.stop(f"{GROUP}:gateway-agent")
    wait_until(lambda: _state(supervisor, "gateway-agent") == "STOPPED", 20, "the agent's end")
    before = up.pid("gateway")
    [worker] = children_of(before)
    os.kill(worker if victim == "worker" else before, signal.SIGKILL)
    wait_gone(worker)
    wait_gone(before)
    wait_until(lambda: answers(up), 10, "an answer")
    assert up.pid("gateway") != before
    assert len([one for one in control_plane(up.layout) if one.role == "gateway"]) == 2
    supervisor.start(f"{GROUP}:gateway-agent")
    wait_until(lambda: _state(supervisor, "gateway-agent") == "RUNNING", 20, "the agent")


def test_a_stream_outlives_the_agent(up: Stack) -> None:
    body = {**CHAT, "stream": True, "max_tokens": 60}
    mock = {"mock": {"tokens_per_s": 20}}
    replica_id = up.replica(model_name="slow", replica_config=mock)
    wait_until(lambda: chat(up, model="slow", max_tokens=1).status_code == 200, 10, "the slow model")
    url, headers = f"{up.url}/v1/chat/completions", {"X-API-Key": up.key}
    with plain_http.stream("POST", url, json={**body, "model": "slow"}, headers=headers, timeout=60) as answer:
        assert answer.status_code == 200
        lines = answer.iter_lines()
        assert next(lines)
        agent = up.pid("gateway-agent")
        os.kill(agent, signal.SIGKILL)
        wait_gone(agent)
        rest = "\n".join(lines)
    assert "[DONE]" in rest
    up.call("POST", f"/api/v1/replicas/{replica_id}/stop", {}, 202)


def test_flower_is_there_for_who_may_read(up: Stack) -> None:
    reader = up.call("POST", "/api/v1/keys", {"name": "reader", "role": "read"}, 201)["key"]
    url = f"{up.url}/flower/"
    wait_until(lambda: plain_http.get(url, auth=("x", reader), trust_env=False).status_code == 200, 10, "the new key")
    page = plain_http.get(url, auth=("x", reader), trust_env=False).text
    found = set(re.findall(r'(?:href|src)="(/[^"]*)"', page))
    assert {path for path in found if not path.startswith("/flower/")} == set()
    for path in [path for path in found if "/static/" in path]:
        assert plain_http.get(f"{up.url}{path}", auth=("x", reader), trust_env=False).status_code == 200, path
    assert plain_http.get(url, trust_env=False).status_code == 401


def test_the_log_tells_who_was_asked(up: Stack) -> None:
    from app.gateway.places import Places

    log = Places(up.layout).access_log
    answer = chat(up)
    name = answer.headers["X-Request-Id"]
    wait_until(lambda: name in log.read_text(), 5, "the line")
    [line] = [line for line in log.read_text().splitlines() if name in line]
    assert answer.headers["X-Hostler-Replica"] in line
    assert up.key not in log.read_text()
    assert "hello" not in log.read_text()


def test_the_processes_hold_no_secrets(up: Stack) -> None:
    for pid in (up.pid("gateway"), *children_of(up.pid("gateway"))):
        environ = Path(f"/proc/{pid}/environ").read_bytes()
        for path in up.layout.secrets.iterdir():
            assert path.read_bytes().strip() not in environ, path.name


def test_what_is_in_flight_at_the_end_gets_its_answer(tmp_path: Path) -> None:
    """`down --keep-replicas`: nobody new gets in, who was inside is answered, and the door does not outlive it."""
    with stack(tmp_path / "state") as made:
        made.up()
        made.replica(replica_config={"mock": {"latency_ms": 1500}})
        wait_until(lambda: chat(made).status_code == 200, 15, "the first answer")
        found: list[httpx2.Response] = []
        caller = threading.Thread(target=lambda: found.append(chat(made)))
        caller.start()
        time.sleep(0.3)
        made.must("down", "--keep-replicas")
        caller.join(30)
        assert [one.status_code for one in found] == [200]
        assert {row["role"] for row in made.processes()} <= {"engine", "shim"}
        engine = made.pid("engine")
        made.up()
        wait_until(lambda: chat(made).status_code == 200, 15, "the adopted engine's answer")
        assert made.pid("engine") == engine
        made.must("down")
        assert gone(engine)


def _state(supervisor: Supervisor, name: str) -> str:
    return next(one.state for one in supervisor.programs() if one.name == name)
