"""Trap 6 and 7: an engine that answers /health and does no work is unhealthy; one that is busy is not."""

from __future__ import annotations

import json
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any

from app.engines.tiny_model import write_tiny_gguf
from app.usecases.checks import request_health
from tests.support.crew import Crew


def test_an_engine_that_hangs_on_completions_is_unhealthy_and_says_what_was_seen(crew: Crew) -> None:
    replica = crew.create(mock={"hang": True}, run_diagnostics=False)
    crew.await_ready(replica)
    row = crew.await_state(replica, "unhealthy")
    assert row.reason == "health_failed"
    assert row.message.startswith("hung: one token was asked for and did not come, no answer in time (2 s)")
    assert "no request finished and no token was made in 3 looks" in row.message
    assert row.last_health["status"] == 200
    assert row.last_health["healthy"] is False
    assert row.last_health["deep"]["ok"] is False
    assert len(crew.engines(replica)) == 1, "unhealthy is not dead"
    # a health check asks no less than the watch
    task = crew.await_task(request_health(crew.ctx, crew.actor, replica, timeout_s=1).task_id)
    assert task.result["healthy"] is False
    assert "hung" in task.message
    crew.end(replica)


def test_one_that_hangs_after_its_diagnostics_is_found_too(crew: Crew) -> None:
    replica = crew.create(mock={"hang_after_n": 2})
    crew.await_ready(replica)
    assert "hung" in crew.await_state(replica, "unhealthy").message
    crew.end(replica)


def test_one_that_answers_only_errors_is_unhealthy(crew: Crew) -> None:
    replica = crew.create(mock={"error_rate": 1}, run_diagnostics=False)
    crew.await_ready(replica)
    assert "HTTP 500" in crew.await_state(replica, "unhealthy").message
    crew.end(replica)


def test_busy_with_others_is_not_hung(crew: Crew) -> None:
    """Its own deep probes never get their turn, and the token counter grows."""
    replica = crew.create(mock={"busy_tokens_per_s": 50}, run_diagnostics=False)
    crew.await_ready(replica)
    _await_deep(crew, replica, lambda deep: "busy" in deep["detail"] or deep["ok"], turns=2)
    assert crew.path(replica)[-1] == "ready"
    assert "unhealthy" not in crew.path(replica)
    crew.end(replica)


def test_a_saturated_engine_with_a_queue_is_not_hung(crew: Crew) -> None:
    """One slot, one long stream in it, others waiting: every deep probe waits in vain, tokens go on."""
    replica = crew.create(mock={"slots": 1, "tokens_per_s": 20}, run_diagnostics=False)
    url = crew.await_ready(replica).base_url
    with _callers(crew, url, 3, tokens=400):
        _await_deep(crew, replica, lambda deep: deep["ok"], turns=3)
    assert "unhealthy" not in crew.path(replica)


def test_counters_that_stand_still_are_not_enough(crew: Crew) -> None:
    replica = crew.create(mock={"counters_stuck": True}, run_diagnostics=False)
    crew.await_ready(replica)
    _await_deep(crew, replica, lambda deep: deep["ok"], turns=3)
    assert "unhealthy" not in crew.path(replica)
    crew.end(replica)


def test_traffic_spares_the_deep_probe(crew: Crew) -> None:
    replica = crew.create(run_diagnostics=False)
    url = crew.await_ready(replica).base_url
    _await_deep(crew, replica, lambda deep: deep["ok"])
    with _callers(crew, url, 1, tokens=1):
        _await_deep(crew, replica, lambda deep: deep["detail"] == "requests finished", turns=2)


def test_llama_cpp_in_the_middle_of_a_long_answer_is_busy(crew: Crew) -> None:
    """Its tokens are counted when a request ends, its decodes as they are made: a long answer is work."""
    write_tiny_gguf(crew.settings.models_dir / "long.gguf")
    config = {"n_ctx": 4096, "n_parallel": 1, "threads": 1}
    replica = crew.create("long", mode="replica", run_diagnostics=False, replica_config=config)
    url = crew.await_ready(replica).base_url
    with _callers(crew, url, 2, tokens=3000):
        _await_deep(crew, replica, lambda deep: deep["ok"], turns=3)
    assert "unhealthy" not in crew.path(replica)


#: Answers its health probe for ever and its first completion only.
_LISTENS = """
import sys, http.server as h, time
class One(h.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
    def do_POST(self):
        time.sleep(3600)
h.ThreadingHTTPServer((sys.argv[2], int(sys.argv[1])), One).serve_forever()
"""


def test_without_counters_three_deep_probes_in_a_row_must_fail(crew: Crew) -> None:
    config = {"command": [sys.executable, "-I", "-c", _LISTENS, "{port}", "{host}"], "diagnostics": "openai"}
    replica = crew.create(mode="platform_workload", run_diagnostics=False, platform_config=config)
    crew.await_ready(replica)
    row = crew.await_state(replica, "unhealthy")
    assert "3 deep probes in a row failed" in row.message
    crew.end(replica)


def test_what_is_hung_and_works_again_is_ready_again_also_after_the_agent_died(crew: Crew) -> None:
    replica = crew.create(mock={"slots": 1, "tokens_per_s": 0.01}, run_diagnostics=False)
    url = crew.await_ready(replica).base_url
    # a stream that makes one token in 100 s holds the only slot: nothing moves, whoever asks
    holder = _open_stream(crew, url)
    crew.await_state(replica, "unhealthy")
    crew.kill("agent")
    crew.start("agent")
    crew.await_heartbeat("agent")
    seen = crew.replica(replica).last_health["at"]
    crew.await_that(lambda: crew.replica(replica).last_health["at"] != seen, "the new agent to look")
    assert crew.replica(replica).state == "unhealthy", crew.story(replica)
    holder.close()
    crew.await_ready(replica)
    crew.end(replica)


def test_a_pool_that_hangs_at_once_is_suspect_first(crew: Crew) -> None:
    replicas = [crew.create(pool="hung", mock={"hang": True}, run_diagnostics=False) for _ in range(4)]
    for replica in replicas:
        crew.await_ready(replica)
    for replica in replicas:
        crew.await_state(replica, "unhealthy")
    told = crew.rows("SELECT 1 FROM events WHERE kind = 'pool_suspect' AND pool = 'hung'")
    assert told
    crew.end(*replicas)


def _await_deep(crew: Crew, replica: str, good: Callable[[dict[str, Any]], bool], turns: int = 1) -> None:
    """Until ``turns`` deep probes, one after the other, came to what ``good`` says."""
    seen: set[str] = set()

    def looked() -> bool:
        deep = (crew.replica(replica).last_health or {}).get("deep")
        if deep and good(deep):
            seen.add(deep["at"])
        return len(seen) >= turns

    crew.await_that(looked, f"{turns} deep probes, not {crew.replica(replica).last_health}", replica_id=replica)


def _request(crew: Crew, url: str, **more: object) -> urllib.request.Request:
    body = json.dumps({"model": "m", "prompt": "x", **more}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {crew.ctx.engine_key}"}
    return urllib.request.Request(f"{url}/v1/completions", data=body, headers=headers)


@contextmanager
def _callers(crew: Crew, url: str, count: int, *, tokens: int) -> Iterator[None]:
    """So many callers, one request after the other, until the block ends; then the pool's replicas end with them."""
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            try:
                with urllib.request.urlopen(_request(crew, url, max_tokens=tokens), timeout=60) as answer:
                    answer.read()
            except (OSError, HTTPException):
                # the engine was stopped in the middle of the answer
                stop.wait(0.2)

    callers = [threading.Thread(target=call) for _ in range(count)]
    for caller in callers:
        caller.start()
    try:
        yield
    finally:
        stop.set()
        crew.end(*(row.id for row in crew.rows("SELECT id FROM replicas WHERE base_url = :url", url=url)))
        for caller in callers:
            caller.join()


def _open_stream(crew: Crew, url: str) -> Any:
    answer = urllib.request.urlopen(_request(crew, url, max_tokens=10, stream=True), timeout=60)
    answer.readline()
    return answer
