"""Users of a stack in trouble: each asks again until it is accepted, and what it was promised is checked at the end."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx2
import psycopg

from app.settings import Settings
from app.stack.urls import database_url
from tests.support import plain_http
from tests.support.embedded import plain_url, wait_until
from tests.support.stacks import MOCK, Stack

#: All works again this long after the fault.
MENDED_S = 60.0
#: Between two creates of one client: each leaves an engine running until the end of the test.
PACE_S = 1.0
#: Not served yet.
BEFORE = ("pending", "scheduling", "preparing", "starting", "waiting_for_ready", "unreachable")


@dataclass
class Clients:
    """Users who create replicas, each sending a request again until it is accepted, as they are told to."""

    up: Stack
    accepted: dict[str, str] = field(default_factory=dict)
    #: answers that were no promise kept
    wrong: list[str] = field(default_factory=list)
    refused: int = 0
    _done: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self._done.is_set():
            key = secrets.token_hex(8)
            while key not in self.accepted and not self.wrong:
                self._send(key)

    def stop(self) -> None:
        self._done.set()

    def _send(self, key: str) -> None:
        try:
            answer = send(self.up, "POST", "/api/v1/replicas", {**MOCK, "wait_for_ready": False}, key)
        except httpx2.TransportError:
            self.refused += 1
            return
        if answer.status_code == 202:
            self.accepted[key] = answer.json()["replica_id"]
            self._done.wait(PACE_S)
        elif answer.status_code == 503 and int(answer.headers.get("Retry-After", "0")) > 0:
            self.refused += 1
            # sooner than told: only a refusal that does nothing stands that
            self._done.wait(0.05)
        else:
            self.wrong.append(f"{answer.status_code} {answer.headers} {answer.text}")


def send(up: Stack, method: str, path: str, body: Any = None, key: str = "") -> httpx2.Response:
    headers = {"X-API-Key": up.key} | ({"Idempotency-Key": key} if key else {})
    return plain_http.request(method, f"{up.url}{path}", json=body, headers=headers, timeout=30, trust_env=False)


@contextmanager
def clients(up: Stack, count: int = 2) -> Iterator[Clients]:
    """Clients at work; afterwards what they were promised has been kept, and was put away."""
    at_work = Clients(up)
    with connected(up) as connection:
        [began] = connection.execute("SELECT hostler_now()").fetchone() or [None]
    threads = [threading.Thread(target=at_work.run, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield at_work
    finally:
        at_work.stop()
        for thread in threads:
            thread.join(60)
    assert at_work.wrong == []
    mended(up)
    served = list(at_work.accepted.values())
    assert len(set(served)) == len(served)
    are_served_once(up, served)
    with connected(up) as connection:
        query = "SELECT count(*) FROM idempotency WHERE key = ANY(%s)"
        assert connection.execute(query, (list(at_work.accepted),)).fetchone() == (len(served),)
        # nobody else was made for them either
        query = "SELECT id FROM replicas WHERE released_at IS NULL AND created_at > %s AND id <> ALL(%s)"
        assert connection.execute(query, (began, served)).fetchall() == []
    put_away(up, served)


def are_served_once(up: Stack, replicas: list[str]) -> None:
    for replica in replicas:
        wait_until(lambda replica=replica: up.state_of(replica) not in BEFORE, MENDED_S, f"{replica} to be served")
    engines = [row["replica_id"] for row in up.processes("engine")]
    for replica in replicas:
        told = up.call("GET", f"/api/v1/replicas/{replica}/explain")
        assert up.state_of(replica) == "ready", told
        assert starts(up, replica) == 1, told
        assert engines.count(replica) == 1, told


def put_away(up: Stack, replicas: list[str]) -> None:
    for replica in replicas:
        up.call("POST", f"/api/v1/replicas/{replica}/stop", {"force": True}, 202)
    for replica in replicas:
        wait_until(lambda replica=replica: up.state_of(replica) == "stopped", MENDED_S, f"{replica} to be stopped")
    assert not set(replicas) & {row["replica_id"] for row in up.processes("engine")}, "stopped says that it is gone"


def starts(up: Stack, replica: str, attempt: int = 1) -> int:
    [path] = up.layout.attempts.glob(f"*-{replica}-{attempt}/starts")
    return len(path.read_text().splitlines())


def mended(up: Stack) -> None:
    """Until the API is ready and /health has nothing to complain about."""

    def is_healthy() -> bool:
        with suppress(httpx2.TransportError):
            ready = send(up, "GET", "/ready").status_code == 200
            return ready and send(up, "GET", "/health").json()["status"] == "healthy"
        return False

    wait_until(is_healthy, MENDED_S, f"a healthy stack\n{up.last_words()}")


@contextmanager
def connected(up: Stack) -> Iterator[psycopg.Connection[Any]]:
    url = plain_url(database_url(Settings.load({}, state_dir=up.state_dir)))
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection
