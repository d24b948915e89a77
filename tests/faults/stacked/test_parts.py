"""Redis forgets, Postgres restarts or takes nobody more, everything is killed: what was accepted happens once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import psycopg
import pytest

from app.settings import Settings
from app.stack.processes import control_plane
from app.stack.urls import database_url
from tests.faults.stacked.clients import (
    MENDED_S,
    are_served_once,
    clients,
    connected,
    put_away,
    send,
)
from tests.support import plain_http
from tests.support.embedded import plain_url, wait_until
from tests.support.stacks import MOCK, Stack, wait_gone

pytestmark = pytest.mark.timeout(180)


def test_redis_loses_everything(up: Stack) -> None:
    """It is killed and keeps nothing: bells, bindings and subscriptions are gone, the replicas come all the same."""
    with clients(up) as at_work:
        for _ in range(2):
            redis = up.pid("redis")
            asked = len(at_work.accepted)
            os.kill(redis, signal.SIGKILL)
            wait_gone(redis)
            wait_until(lambda asked=asked: len(at_work.accepted) >= asked + 2, MENDED_S, "creates without a broker")
            wait_until(lambda redis=redis: _runs(up, "redis", redis), MENDED_S, "another Redis")
    assert at_work.refused == 0, "nobody was refused: the broker is only a bell"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["fast", "immediate"])
def test_postgres_restarts_in_mid_transaction(up: Stack, how: signal.Signals) -> None:
    """With changes half made: those who wait behind a lock, those who hold one, and those who are about to commit."""
    held = up.replica()
    with clients(up) as at_work, ExitStack() as open_ones:
        wait_until(lambda: len(at_work.accepted) >= 2, MENDED_S, "work under way")
        holder = open_ones.enter_context(_open_transaction(up, held))
        stop = threading.Thread(target=send, args=(up, "POST", f"/api/v1/replicas/{held}/stop", {}))
        stop.start()
        with connected(up) as looker:
            query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            wait_until(lambda: looker.execute(query).fetchone() != (0,), 10, "the stop to wait in its transaction")
        postgres = up.pid("postgres")
        os.kill(postgres, how)
        wait_gone(postgres)
        with pytest.raises(psycopg.OperationalError):
            holder.execute("COMMIT")
        stop.join(60)
        accepted = len(at_work.accepted)
        wait_until(lambda: len(at_work.accepted) > accepted, MENDED_S, "accepted creates after it")
        # an answer from before may have come late: this is the word of now
        again = f"/api/v1/replicas/{held}/stop"
        wait_until(lambda: send(up, "POST", again, {}).status_code < 500, MENDED_S, "the stop being taken")
        # not committed, not done: the same request now does it
        put_away(up, [held])


def test_no_connection_to_postgres_is_left(up: Stack) -> None:
    """Others took them all: 503 with Retry-After, workers wait, engines serve; then everything goes on."""
    serving = up.replica()
    address = up.call("GET", f"/api/v1/replicas/{serving}")["base_url"]
    roles = {row["role"]: row["pid"] for row in up.processes() if row["role"] in ("agent", "web")}
    with clients(up, 1) as at_work, ExitStack() as taken, connected(up) as first:
        wait_until(lambda: at_work.accepted, MENDED_S, "work under way")
        url = plain_url(database_url(Settings.load({}, state_dir=up.state_dir)))
        deadline = time.monotonic() + 20
        while at_work.refused < 3:
            assert time.monotonic() < deadline, "the API was never refused"
            with suppress(psycopg.OperationalError):
                while True:
                    taken.enter_context(psycopg.connect(url, application_name="stranger"))
            first.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'hostler%'"
            )
        said = send(up, "GET", "/health").json()
        assert said["status"] == "degraded"
        assert "connections" in " ".join(said["problems"]), said
        assert plain_http.get(f"{address}/health", trust_env=False).status_code == 200, "the engine serves on"
        accepted = len(at_work.accepted)
        taken.close()
        wait_until(lambda: len(at_work.accepted) > accepted, MENDED_S, "accepted creates after it")
    assert {row["role"]: row["pid"] for row in up.processes() if row["role"] in roles} == roles, "nobody died of it"
    put_away(up, [serving])


def test_everything_is_killed_in_the_middle_and_up_again(up: Stack) -> None:
    """Launches, ends and requests under way: each comes to the end it would have come to."""
    serving = up.replica()
    engine = next(row["pid"] for row in up.processes("engine") if row["replica_id"] == serving)
    stopping = up.replica(replica_config={"mock": {"ignore_sigterm": True}})
    with clients(up, 2) as at_work:
        wait_until(lambda: len(at_work.accepted) >= 2, MENDED_S, "work under way")
        slow = {**MOCK, "wait_for_ready": False, "replica_config": {"mock": {"startup_s": 2}}}
        starting = [send(up, "POST", "/api/v1/replicas", slow).json()["replica_id"] for _ in range(2)]
        up.call("POST", f"/api/v1/replicas/{stopping}/stop", {"grace_s": 2}, 202)
        while left := control_plane(up.layout):
            for one in left:
                with suppress(ProcessLookupError):
                    os.kill(one.process.pid, signal.SIGKILL)
        assert at_work.wrong == []
        up.up()
        are_served_once(up, starting)
        put_away(up, starting)
        wait_until(lambda: up.state_of(stopping) == "stopped", MENDED_S, "the stop to be carried out")
        assert up.state_of(serving) == "ready"
        assert engine in [row["pid"] for row in up.processes("engine")]
        put_away(up, [serving])


@contextmanager
def _open_transaction(up: Stack, replica: str) -> Iterator[psycopg.Connection[Any]]:
    """One that holds the replica's row."""
    url = plain_url(database_url(Settings.load({}, state_dir=up.state_dir)))
    connection = psycopg.connect(url)
    try:
        connection.execute("SELECT 1 FROM replicas WHERE id = %s FOR UPDATE", (replica,))
        connection.execute("UPDATE replicas SET message = 'half made' WHERE id = %s", (replica,))
        yield connection
    finally:
        connection.close()


def _runs(up: Stack, role: str, other_than: int) -> bool:
    found = [one.process.pid for one in control_plane(up.layout) if one.role == role]
    return bool(found) and other_than not in found
