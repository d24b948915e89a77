"""Stopping what is routed: nothing new, time for what is in flight, and no wait where there is nothing to wait for."""

from __future__ import annotations

import os
import secrets
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx2
import pytest

from app.settings import Settings
from app.usecases import keys
from app.usecases.explain import explain
from app.usecases.restarts import request_restart
from tests.support import plain_http
from tests.support.crew import Crew, crew_settings, running_crew
from tests.support.embedded import fresh_database, wait_until
from tests.support.ports import free_port

KEY = f"admin-{secrets.token_hex(16)}"
#: Nobody waits for this: what waits for it would fail by its own limit.
LONG_S = 600.0
SLOW = {"mock": {"tokens_per_s": 20}}


@pytest.fixture(scope="module")
def crew(parts: Settings, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    folder = tmp_path_factory.mktemp("crew")
    roles = ("worker", "worker-control", "beat", "agent", "gateway", "gateway-agent")
    with fresh_database(parts, migrated) as url:
        settings = crew_settings(parts, url, folder, port=free_port(), drain_s=LONG_S)
        with running_crew(settings, folder, roles=roles) as crew:
            keys.ensure_admin_key(settings, KEY)
            yield crew


class Stream:
    """One streamed completion, read in a thread; ``ended`` says whether it came to its own end."""

    def __init__(self, crew: Crew, model: str, tokens: int, **headers: str) -> None:
        self.begun, self.done = threading.Event(), threading.Event()
        self.ended = False
        self._ask = (f"{_base(crew)}/v1/completions", {"model": model, "prompt": "x", "max_tokens": tokens})
        self._headers = _key() | headers
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        url, body = self._ask
        try:
            with (
                suppress(httpx2.HTTPError),
                plain_http.stream(
                    "POST", url, json=body | {"stream": True}, headers=self._headers, timeout=60
                ) as answer,
            ):
                for line in answer.iter_lines():
                    self.begun.set()
                    self.ended = self.ended or line == "data: [DONE]"
        finally:
            self.done.set()


@contextmanager
def streaming(crew: Crew, tokens: int = 40, **body: Any) -> Iterator[tuple[str, str, Stream]]:
    """(replica, its model, a stream of about two seconds that has begun)."""
    model = f"m-{secrets.token_hex(3)}"
    replica = crew.create(model, **SLOW, **body)
    crew.await_ready(replica)
    wait_until(lambda: ask(crew, model) == 200, 10, "it to be routed")
    stream = Stream(crew, model, tokens)
    assert stream.begun.wait(20)
    yield replica, model, stream
    crew.end(replica)


def ask(crew: Crew, model: str) -> int:
    body = {"model": model, "prompt": "x", "max_tokens": 1}
    return plain_http.post(f"{_base(crew)}/v1/completions", json=body, headers=_key(), timeout=20).status_code


def test_what_is_in_flight_comes_to_its_end_and_nothing_new_comes_in(crew: Crew) -> None:
    with streaming(crew) as (replica, model, stream):
        stop = crew.stop_replica(replica)
        wait_until(lambda: ask(crew, model) == 503, 5, "it to take nothing new")
        assert not stream.done.is_set()
        found = explain(crew.ctx, replica)
        assert found["rule"] == "draining", found
        assert found["command"] == f"hostler replica stop {replica} --force"
        assert [one["gateways"] for one in found["evidence"] if one["what"] == "drain"] != [[]]
        assert crew.task(stop.task_id).state == "queued"
        assert stream.done.wait(30)
        assert stream.ended
        assert crew.await_released(replica).state == "stopped"
        assert crew.await_task(stop.task_id).state == "succeeded"
        assert not crew.rows("SELECT 1 FROM drains WHERE replica_id = :id", id=replica)


def test_so_does_what_was_asked_of_this_very_replica(crew: Crew) -> None:
    with streaming(crew, tokens=1) as (replica, model, first):
        assert first.done.wait(20)
        stream = Stream(crew, model, 40, **{"X-Hostler-Replica": replica})
        assert stream.begun.wait(20)
        crew.stop_replica(replica)
        wait_until(lambda: ask(crew, model) == 503, 5, "it to take nothing new")
        assert stream.done.wait(30)
        assert stream.ended
        assert crew.await_released(replica).state == "stopped"


def test_the_time_for_it_is_what_the_stop_says(crew: Crew) -> None:
    with streaming(crew, tokens=2000) as (replica, _model, stream):
        crew.stop_replica(replica, drain_s=0.5)
        crew.await_released(replica)
        assert stream.done.wait(10)
        assert not stream.ended


def test_or_what_its_create_said(crew: Crew) -> None:
    with streaming(crew, tokens=2000, gateway_config={"drain_s": 0.5}) as (replica, _model, stream):
        crew.stop_replica(replica)
        crew.await_released(replica)
        assert stream.done.wait(10)
        assert not stream.ended


def test_force_gives_it_none(crew: Crew) -> None:
    with streaming(crew, tokens=2000) as (replica, _model, stream):
        crew.stop_replica(replica, force=True)
        crew.await_released(replica)
        assert stream.done.wait(10)
        assert not stream.ended


@pytest.mark.parametrize("more", [{"force": True}, {"drain_s": 0.0}, {"drain_s": 0.3}], ids=str)
def test_a_second_stop_may_cut_it_short(crew: Crew, more: dict[str, Any]) -> None:
    with streaming(crew, tokens=2000) as (replica, _model, stream):
        first = crew.stop_replica(replica)
        assert crew.stop_replica(replica, **more).task_id == first.task_id
        crew.await_released(replica)
        assert crew.await_task(first.task_id).state == "succeeded"
        assert not stream.ended


def test_a_restart_waits_too_and_a_stop_on_top_of_it_waits_no_longer(crew: Crew) -> None:
    with streaming(crew) as (replica, model, stream):
        request_restart(crew.ctx, crew.actor, replica)
        wait_until(lambda: ask(crew, model) == 503, 5, "it to take nothing new")
        assert not stream.done.is_set()
        stop = crew.stop_replica(replica)
        assert stream.done.wait(30)
        assert stream.ended
        assert crew.await_released(replica).state == "stopped"
        assert crew.await_task(stop.task_id).state == "succeeded"


def test_a_restart_brings_the_next_attempt_in(crew: Crew) -> None:
    with streaming(crew, tokens=20) as (replica, model, stream):
        request_restart(crew.ctx, crew.actor, replica)
        assert stream.done.wait(30)
        assert stream.ended
        crew.await_that(lambda: crew.replica(replica).attempt == 2, "the next attempt", 30, replica)
        crew.await_ready(replica)
        wait_until(lambda: ask(crew, model) == 200, 10, "the next attempt to be routed")


def test_a_lifetime_that_ends_drains(crew: Crew) -> None:
    with streaming(crew) as (replica, model, stream):
        crew.change("UPDATE replicas SET lifetime_ends_at = hostler_now() WHERE id = :id", id=replica)
        wait_until(lambda: ask(crew, model) == 503, 10, "it to take nothing new")
        assert stream.done.wait(30)
        assert stream.ended
        assert crew.await_released(replica).reason == "lifetime_expired"


def test_what_is_idle_or_unhealthy_is_stopped_at_once(crew: Crew) -> None:
    """With ten minutes for what is in flight, and nothing in flight."""
    idle, ill = crew.create("idle"), crew.create("ill", mock={"health_fails_after_s": 1.0})
    crew.await_ready(idle)
    crew.await_state(ill, "unhealthy")
    for replica in (idle, ill):
        crew.stop_replica(replica)
        assert crew.await_released(replica).state == "stopped"


def test_what_dies_while_it_drains_is_gone_at_once(crew: Crew) -> None:
    with streaming(crew, tokens=2000) as (replica, _model, _stream):
        crew.stop_replica(replica)
        for pid in crew.engines(replica):
            os.kill(pid, signal.SIGKILL)
        crew.await_released(replica)


def test_its_port_is_nobodys_until_haproxy_has_let_go(crew: Crew) -> None:
    replica = crew.create("holder")
    port = crew.await_ready(replica).port
    wait_until(lambda: ask(crew, "holder") == 200, 10, "it to be routed")
    crew.end(replica)
    query = "SELECT 1 FROM gateway_servers WHERE port = :port"
    wait_until(lambda: not crew.rows(query, port=port), 10, "HAProxy to let go of it")


def test_an_agent_that_dies_is_followed_by_the_one_that_waited(crew: Crew) -> None:
    crew.start("gateway-agent@2")
    with streaming(crew) as (_replica, model, stream):
        crew.kill("gateway-agent")
        assert ask(crew, model) == 200
        other = crew.create("after")
        crew.await_ready(other)
        wait_until(lambda: ask(crew, "after") == 200, 10, "the other agent")
        assert stream.done.wait(30)
        assert stream.ended
        crew.end(other)
    crew.kill("gateway-agent@2")
    crew.start("gateway-agent")


def test_nobody_waits_for_a_gateway_that_is_silent(crew: Crew) -> None:
    with streaming(crew, tokens=2000) as (replica, _model, _stream):
        crew.kill("gateway-agent")
        crew.change("UPDATE gateways SET heartbeat_at = hostler_now() - interval '1 minute'")
        crew.stop_replica(replica)
        crew.await_released(replica)
        held = crew.rows("SELECT 1 FROM gateway_servers WHERE replica_id = :id", id=replica)
        assert held, "its HAProxy may still route to that port"
        crew.start("gateway-agent")
        query = "SELECT 1 FROM gateway_servers WHERE replica_id = :id"
        wait_until(lambda: not crew.rows(query, id=replica), 20, "the next agent")


def _base(crew: Crew) -> str:
    return f"http://127.0.0.1:{crew.settings.port}"


def _key() -> dict[str, str]:
    return {"Authorization": f"Bearer {KEY}"}
