"""One port and two models: the second gets it only when HAProxy has surely let go of the first."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterator

import psutil
import pytest

from app.settings import Settings
from app.usecases import keys
from app.usecases.explain import explain
from tests.support import plain_http
from tests.support.crew import Crew, crew_settings, running_crew
from tests.support.embedded import fresh_database, wait_until
from tests.support.freezing import freeze
from tests.support.ports import free_port

KEY = f"admin-{secrets.token_hex(16)}"


@pytest.fixture
def crew(parts: Settings, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    folder = tmp_path_factory.mktemp("crew")
    roles = ("worker", "worker-control", "beat", "agent", "gateway", "gateway-agent")
    only = free_port()
    with fresh_database(parts, migrated) as url:
        settings = crew_settings(parts, url, folder, port=free_port(), ports=(only, only))
        with running_crew(settings, folder, roles=roles) as crew:
            keys.ensure_admin_key(settings, KEY)
            yield crew


def ask(crew: Crew, model: str) -> tuple[int, str]:
    """(status, the replica that answered)."""
    answer = plain_http.post(
        f"http://127.0.0.1:{crew.settings.port}/v1/completions",
        json={"model": model, "prompt": "x", "max_tokens": 1},
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=20,
    )
    return answer.status_code, answer.headers.get("X-Hostler-Replica", "")


def test_the_port_of_one_model_is_not_anothers_while_haproxy_may_lead_there(crew: Crew) -> None:
    first = crew.create("first")
    crew.await_ready(first)
    wait_until(lambda: ask(crew, "first") == (200, first), 10, "the first to be routed")
    master = psutil.Process(crew.processes["gateway"].pid)
    frozen = [master, *master.children(recursive=True)]
    freeze(*(process.pid for process in frozen))
    try:
        crew.end(first)
        second = crew.create("second")
        crew.await_that(lambda: explain(crew.ctx, second)["rule"] == "no_port", "it to wait for a port", 30, second)
        assert crew.rows("SELECT 1 FROM gateway_servers WHERE replica_id = :id", id=first)
        assert crew.replica(second).state == "pending"
    finally:
        for process in frozen:
            os.kill(process.pid, signal.SIGCONT)
    crew.await_ready(second)
    assert crew.replica(second).port == crew.settings.ports[0]
    wait_until(lambda: ask(crew, "second") == (200, second), 10, "the second to be routed")
    assert ask(crew, "first")[0] in (404, 503)
    crew.end(second)
