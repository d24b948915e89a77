"""A whole stack, as users start it, whose parts die, forget, or take no more: what was accepted happens once."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest

from app.settings import Settings
from app.stack.processes import control_plane
from app.stack.urls import database_url
from tests.support.embedded import plain_url, wait_until
from tests.support.stacks import MOCK, Stack, stack, wait_gone

DISK_MB = 400
#: All works again this long after the fault.
MENDED_S = 30.0
#: Between two creates of one client: each leaves an engine running until the end of the test.
PACE_S = 0.5
pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def disk() -> Iterator[Path]:
    """A folder on a small disk of its own, where we may mount one; in reach of the user whom root gives Postgres to."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o711)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", place]
    mounted = os.geteuid() == 0 and subprocess.run(mount, check=False, capture_output=True).returncode == 0
    try:
        yield place
    finally:
        if mounted:
            subprocess.run(["umount", place], check=True)
        place.rmdir()


@pytest.fixture(scope="module")
def up(disk: Path) -> Iterator[Stack]:
    quick = {"LEASE_S": "3", "SWEEP_INTERVAL_S": "1", "PROBE_INTERVAL_S": "1", "LOG_BYTES": "65536"}
    with stack(disk / "state", **{f"HOSTLER_{name}": value for name, value in quick.items()}) as made:
        made.up()
        assert made.layout.postgres.resolve().is_relative_to(disk.resolve())
        yield made
        made.must("down")


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
    return httpx2.request(method, f"{up.url}{path}", json=body, headers=headers, timeout=30, trust_env=False)


@contextmanager
def clients(up: Stack, count: int = 2) -> Iterator[Clients]:
    """Clients at work; afterwards what they were promised has been kept, and was put away."""
    at_work = Clients(up)
    with connected(up) as connection:
        [began] = connection.execute("SELECT hostler_now()").fetchone() or [None]
    threads = [threading.Thread(target=at_work.run) for _ in range(count)]
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


BEFORE = ("pending", "scheduling", "preparing", "starting", "waiting_for_ready", "unreachable")


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
        assert httpx2.get(f"{address}/health", trust_env=False).status_code == 200, "the engine serves on"
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


def test_a_full_disk_costs_answers_and_no_engine(up: Stack, disk: Path) -> None:
    """Logs and Postgres share it: engines serve on, requests are refused or carried out, and room mends it all."""
    if not os.path.ismount(disk):
        pytest.skip("may not mount a small disk here")
    chatty = up.replica(replica_config={"mock": {"log_lines": ["x" * 1000] * 200}})
    address = up.call("GET", f"/api/v1/replicas/{chatty}")["base_url"]
    engines = [row["pid"] for row in up.processes("engine")]
    accepted, refused = [], []
    with _filled(disk / "filler"):
        deadline = time.monotonic() + MENDED_S
        while len(refused) < 3:
            assert time.monotonic() < deadline, f"{len(accepted)} accepted on a full disk"
            # nothing that compresses: the database needs a new page
            lines = [secrets.token_hex(2000) for _ in range(20)]
            body = {**MOCK, "wait_for_ready": False, "replica_config": {"mock": {"log_lines": lines}}}
            answer = send(up, "POST", "/api/v1/replicas", body)
            if answer.status_code == 202:
                accepted.append(answer.json()["replica_id"])
                continue
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable"), answer.text
            assert int(answer.headers["Retry-After"]) > 0
            refused.append(answer.json()["detail"])
        assert "disk" in refused[0], refused
        assert httpx2.get(f"{address}/health", trust_env=False).status_code == 200
        [finding] = [row for row in json.loads(up.hostler("doctor", "-o", "json").stdout) if row["check"] == "disk"]
        assert finding["result"] == "fail"
        assert str(up.state_dir) in finding["fix"]
    mended(up)
    assert [row["pid"] for row in up.processes("engine") if row["pid"] in engines] == engines
    assert (up.state_of(chatty), starts(up, chatty)) == ("ready", 1)
    for replica in accepted:
        wait_until(lambda replica=replica: up.state_of(replica) not in BEFORE, MENDED_S, f"{replica} to have an end")
        told = up.call("GET", f"/api/v1/replicas/{replica}")
        # what could not be written, by us or by the engine, could not be launched, and says so
        assert told["status"] == "ready" or told["reason"] in ("launch_failed", "backend_error", "process_exited"), told
    put_away(up, [chatty, *(replica for replica in accepted if up.state_of(replica) == "ready")])
    after = up.replica()
    put_away(up, [after])
    logs = [*up.layout.attempts.glob(f"*-{chatty}-1/log"), *up.layout.attempts.glob(f"*-{chatty}-1/log.1")]
    assert logs
    assert sum(path.stat().st_size for path in logs) <= 65536


@contextmanager
def _filled(filler: Path) -> Iterator[None]:
    """No block is left, however much others free meanwhile."""
    done = threading.Event()

    def fill() -> None:
        with open(filler, "ab", buffering=0) as file:
            while not done.is_set():
                try:
                    file.write(b"\0" * 65536)
                except OSError:
                    done.wait(0.01)

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(10)
        filler.unlink()


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
