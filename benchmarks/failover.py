"""``failover``: one of three replicas is killed (SIGKILL) under load, beside the same load with nobody killed.

Every request is for a whole answer, none is streamed: the door takes each to another replica as long as nothing of an
answer has come, so not one may fail.
"""

from __future__ import annotations

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2

from benchmarks.engines import forget, mock_wish
from benchmarks.peers.base import PATH
from benchmarks.result import Result, alternate, result
from benchmarks.stack import Api, Stack, stack, wait_until
from benchmarks.wrk import Seen, wrk

CONNECTIONS = 32
SECONDS, WARM_S = 4, 1
KILL_AFTER_S = 1.5
REPLICAS = 3
#: Between one answer and the next of a small model; three serve the load with ease, and so do two.
LATENCY_MS = 20
ROUTED_S = 30
BODY = json.dumps({"model": "bench", "messages": [{"role": "user", "content": "are you ready?"}], "max_tokens": 4})


def run(rounds: int) -> Result:
    with stack(HOSTLER_WEB_WORKERS="1") as ours:
        crew = _Crew(ours)
        _load(ours, WARM_S)
        seen: dict[str, list[Seen]] = {"ours": [], "floor": []}

        def measure(kill: bool) -> float:
            crew.fill_up()
            with ThreadPoolExecutor(1) as beside:
                killed = beside.submit(crew.kill_one, KILL_AFTER_S) if kill else None
                one = _load(ours, SECONDS)
                if killed is not None:
                    killed.result()
            seen["ours" if kill else "floor"].append(one)
            return one.p99_ms

        pair = alternate(lambda: measure(True), lambda: measure(False), rounds)
        failed = sum(one.failed + one.refused for one in seen["ours"])
    return result(
        "failover",
        pair,
        unit="ms p99",
        goal="0 failed, p99 <= 2x",
        ok=failed == 0 and pair.ratio <= 2,
        failed_requests=failed,
        failed_without_a_kill=sum(one.failed + one.refused for one in seen["floor"]),
        requests=[one.requests for one in seen["ours"]],
        slowest_ms={side: [round(one.max_ms, 1) for one in rows] for side, rows in seen.items()},
        p50_ms={side: [one.p50_ms for one in rows] for side, rows in seen.items()},
        load=f"wrk, {CONNECTIONS} connections, {SECONDS} s a round, one of {REPLICAS} mock engines ({LATENCY_MS} ms an "
        f"answer) killed after {KILL_AFTER_S:g} s",
        load_not_the_limit="the load's core was busy "
        f"{max(one.cpu_share for rows in seen.values() for one in rows):.0%}; engines wait {LATENCY_MS} ms",
        pinned=f"the load to core {_core()}",
        warmed=f"{WARM_S} s of the same load",
    )


def _load(ours: Stack, seconds: float) -> Seen:
    headers = {"Content-Type": "application/json", "X-API-Key": ours.key}
    return wrk(ours.port, PATH, BODY, headers, connections=CONNECTIONS, seconds=seconds, core=_core())


def _core() -> int:
    return max(os.sched_getaffinity(0))


class _Crew:
    """Three replicas of one model; who was killed is put away, and another takes the place before the next round."""

    def __init__(self, ours: Stack) -> None:
        self._ours = ours
        self._api: Api = ours.api
        self._serving: list[str] = []

    def fill_up(self) -> None:
        while len(self._serving) < REPLICAS:
            self._serving.append(self._api.create(mock_wish(latency_ms=LATENCY_MS), prefer="wait=30"))
        wait_until(lambda: self._routed() == set(self._serving), ROUTED_S, "each of them answers requests", every_s=0.1)

    def kill_one(self, after_s: float) -> None:
        time.sleep(after_s)
        killed = self._serving.pop(0)
        engines = [row for row in self._ours.processes() if row["role"] == "engine"]
        [pid] = [int(row["pid"]) for row in engines if row["replica_id"] == killed]
        os.kill(pid, signal.SIGKILL)
        forget(self._ours.api, [killed])

    def _routed(self) -> set[str]:
        """Who answers of some requests in a row; empty when one does not."""
        headers = {"Content-Type": "application/json", "X-API-Key": self._ours.key}
        with httpx2.Client(base_url=f"http://127.0.0.1:{self._ours.port}", headers=headers, trust_env=False) as client:
            answers = [client.post(PATH, content=BODY, timeout=10) for _ in range(4 * REPLICAS)]
        if any(answer.status_code != 200 for answer in answers):
            return set()
        return {answer.headers["X-Hostler-Replica"] for answer in answers}
