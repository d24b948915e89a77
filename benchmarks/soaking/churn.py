"""Churn at a bounded rate: creates, stops, restarts, failures, reads and streams, drawn from a seed.

It is a client like any other: what it knows comes from the API. What the API should never say is counted.
"""

from __future__ import annotations

import collections
import http.client
import json
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from benchmarks.soaking.readers import Readers
from benchmarks.stack import Api, Stack

THREADS = 4
#: Living replicas that the churn keeps to, by pool; engines are real processes.
MOCKS, ENGINES = 120, 6
STREAMS = 24
#: A pause between two tries when the stack says that it is busy.
BUSY_S = 1.0

_MOCK = {"server_mode": "replica_mock", "model_name": "soak", "pool": "mock", "labels": {"soak": "yes"}}
_ENGINE = {**_MOCK, "pool": "local"}
#: How a mock replica of the churn may end by itself.
_FAULTS: tuple[dict[str, Any], ...] = (
    {"fail_launch": "always"},
    {"exit_after_s": 2, "exit_code": 3},
    {"ready_delay_s": 1, "flap_period_s": 4},
    {"fail_stop": 1},
)


class Churn:
    """Threads that act until ``stop``. ``acts`` counts what was done, ``surprises`` what should not have been."""

    def __init__(self, stack: Stack, rate_per_s: float, seed: int) -> None:
        self._stack = stack
        self._pause_s = THREADS / rate_per_s
        self._seed = seed
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.acts: collections.Counter[str] = collections.Counter()
        self.surprises: collections.Counter[str] = collections.Counter()
        self.readers = Readers(stack, STREAMS, random.Random(seed))
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(THREADS)]

    def start(self) -> None:
        self.readers.start()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)
        self.readers.stop()

    def _run(self, number: int) -> None:
        worker = _Actor(self, self._stack.api, random.Random(self._seed * THREADS + number))
        while not self._over.wait(worker.random.uniform(0.5, 1.5) * self._pause_s):
            try:
                worker.act()
            except (OSError, http.client.HTTPException) as error:
                self.note_surprise(f"connection: {type(error).__name__}")

    def note(self, what: str) -> None:
        with self._lock:
            self.acts[what] += 1

    def note_surprise(self, what: str) -> None:
        with self._lock:
            self.surprises[what] += 1


class _Actor:
    """One thread's part: it draws an act, carries it out and judges the answer."""

    def __init__(self, churn: Churn, api: Api, drawn_from: random.Random) -> None:
        self._churn = churn
        self._api = api
        self.random = drawn_from
        self._acts: tuple[tuple[int, Callable[[], None]], ...] = (
            (30, self._create_or_stop),
            (6, self._create_engine_or_stop),
            (8, self._fail),
            (6, self._restart),
            (6, self._check),
            (8, self._delete),
            (36, self._read),
        )

    def act(self) -> None:
        weights, acts = zip(*self._acts, strict=True)
        self.random.choices(acts, weights)[0]()

    def _create_or_stop(self) -> None:
        self._keep_to("mock", MOCKS, {**_MOCK, "replica_config": {}})

    def _create_engine_or_stop(self) -> None:
        self._keep_to("local", ENGINES, _ENGINE)

    def _keep_to(self, pool: str, target: int, wish: dict[str, Any]) -> None:
        living = self._total(f"pool={pool}&status=ready")
        # around the target both happen, far from it only what leads there
        if self.random.random() < max(0.0, min(1.0, 1 + (target - living) / target)) * 0.5:
            self._create(wish, f"create in {pool}")
        else:
            self._stop(self._pick(f"pool={pool}&status=ready"))

    def _fail(self) -> None:
        fault = self.random.choice(_FAULTS)
        self._create({**_MOCK, "replica_config": {"backend_options": fault}}, f"create with {next(iter(fault))}")

    def _create(self, wish: dict[str, Any], what: str) -> None:
        waits = self.random.random() < 0.3
        headers = {"Prefer": "wait=5"} if waits else {}
        body = {**wish, "wait_for_ready": waits, "run_diagnostics": self.random.random() < 0.3}
        key = f"soak-{self.random.getrandbits(64):x}"
        sent = ("POST", "/api/v1/replicas", body)
        self._ask(what, (201, 202, 502), *sent, Idempotency_Key=key, **headers)
        if self.random.random() < 0.1:
            # a client that did not hear the answer sends it again
            self._ask("the same create again", (200, 201, 202, 502), *sent, Idempotency_Key=key, **headers)

    def _stop(self, replica_id: str | None) -> None:
        if replica_id is not None:
            body = {"force": self.random.random() < 0.2, "grace_s": 2}
            self._ask("stop", (200, 202, 404), "POST", f"/api/v1/replicas/{replica_id}/stop", body)

    def _restart(self) -> None:
        replica_id = self._pick(f"status={self.random.choice(('ready', 'failed', 'stopped'))}")
        if replica_id is not None:
            self._ask("restart", (200, 202, 404, 409), "POST", f"/api/v1/replicas/{replica_id}/restart", {})

    def _check(self) -> None:
        replica_id = self._pick("status=ready")
        if replica_id is not None:
            verb = self.random.choice(("health", "diagnose"))
            self._ask(verb, (200, 202, 404, 409), "POST", f"/api/v1/replicas/{replica_id}/{verb}", {})

    def _delete(self) -> None:
        replica_id = self._pick(f"status={self.random.choice(('failed', 'stopped'))}")
        if replica_id is not None:
            self._ask("delete", (204, 404, 409), "DELETE", f"/api/v1/replicas/{replica_id}")

    def _read(self) -> None:
        replica_id = self._pick("limit=20")
        paths = [
            "/api/v1/replicas?limit=50&label=soak%3Dyes",
            "/api/v1/tasks?limit=50",
            "/api/v1/events?limit=50",
            "/api/v1/pools",
            "/api/v1/nodes",
            "/health",
            "/metrics",
        ]
        if replica_id is not None:
            one = f"/api/v1/replicas/{replica_id}"
            paths += [one, f"{one}/events", f"{one}/explain", f"{one}/logs?tail=20"]
        path = self.random.choice(paths)
        self._ask("read", (200, 404), "GET", path)

    def _pick(self, query: str) -> str | None:
        status, body = self._api.call("GET", f"/api/v1/replicas?{query}")
        found = body["replicas"] if status == 200 else []
        return str(self.random.choice(found)["replica_id"]) if found else None

    def _total(self, query: str) -> int:
        status, body = self._api.call("GET", f"/api/v1/replicas?limit=1&{query}")
        return int(body["total"]) if status == 200 else 0

    def _ask(self, what: str, expected: tuple[int, ...], method: str, path: str, body: Any = None, **more: str) -> None:
        try:
            status, answer = self._api.call(method, path, body, **more)
        except json.JSONDecodeError:
            # logs and metrics are plain text
            status, answer = 200, None
        self._churn.note(what)
        if status in (429, 503):
            self._churn.note(f"busy ({status})")
            time.sleep(BUSY_S)
        elif status not in expected:
            self._churn.note_surprise(f"{what}: {status} {json.dumps(answer)[:200]}")
