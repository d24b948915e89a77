"""Trap 15: a foreign server on the leased port never makes a replica ready, and its port is not given twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.faults.stepper import POOL
from tests.support.crew import Crew

#: Listens nowhere, and lives.
DEAF = {"command": ["sleep", "600"], "readiness_path": "/health"}


def test_a_taken_port_is_left_for_another_one(crew: Crew) -> None:
    port = _next_port(crew)
    with _stranger(port):
        replica = crew.create(pool=POOL)
        row = crew.await_ready(replica)
        assert row.port != port
        assert crew.leases(replica)["port"] == [row.port]
        crew.end(replica)


def test_a_stranger_that_answers_on_the_port_makes_nothing_ready(crew: Crew) -> None:
    replica = crew.create(
        pool=POOL,
        mode="platform_workload",
        platform_config=DEAF,
        run_diagnostics=False,
        timeouts={"readiness_timeout_s": 3},
    )
    port = crew.await_state(replica, "waiting_for_ready").port
    with _stranger(port) as asked:
        row = crew.await_state(replica, "failed", "ready")
        assert (row.state, row.reason) == ("failed", "readiness_timeout"), crew.story(replica)
        assert "not part of this attempt" in row.message
        assert "ready" not in crew.path(replica)
        # the worker's first look may ask whoever listens; it believes nobody before it has seen whose socket it is
        assert set(asked) <= {("/health", None)}
    crew.await_released(replica)


def test_a_stranger_that_is_faster_than_the_engine_fails_it(crew: Crew) -> None:
    """The engine is slow to listen; when it tries, the port is taken: it exits, and nobody told a stranger the key."""
    replica = crew.create(pool=POOL, mock={"startup_s": 1.5})
    port = crew.await_state(replica, "waiting_for_ready").port
    with _stranger(port) as asked:
        row = crew.await_state(replica, "failed", "ready")
        assert set(asked) <= {("/health", None)}
        assert (row.state, row.reason) == ("failed", "process_exited"), crew.story(replica)
        assert "cannot listen" in crew.attempt(replica).log_tail
        crew.await_released(replica)


def test_a_ready_replica_whose_port_a_stranger_took_is_no_longer_ready(crew: Crew) -> None:
    """The engine lives but closed its listener; what answers now is not it."""
    script = (
        "import http.server, os, sys, time\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        " def do_GET(self): self.send_response(200); self.end_headers()\n"
        "s = http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), H)\n"
        "s.timeout = 0.1\n"
        "while not os.path.exists('close'): s.handle_request()\n"
        "s.server_close(); print('closed', flush=True); time.sleep(600)"
    )
    config = {"command": ["python3", "-c", script, "{port}"], "readiness_path": "/"}
    replica = crew.create(pool=POOL, mode="platform_workload", platform_config=config, run_diagnostics=False)
    port = crew.await_ready(replica).port
    (crew.attempt_folder(replica) / "close").touch()
    crew.await_that(lambda: "closed" in (crew.attempt_folder(replica) / "log").read_text(), "the listener to be closed")
    with _stranger(port):
        assert crew.await_state(replica, "unhealthy").reason == "health_failed"
        crew.end(replica)


def test_a_port_is_leased_again_only_when_its_engine_is_gone(crew: Crew) -> None:
    replica = crew.create(pool=POOL, mock={"ignore_sigterm": True})
    port = crew.await_ready(replica).port
    crew.stop_replica(replica, grace_s=60)
    crew.await_that(lambda: crew.attempt(replica).stop_asked_at, "the engine being asked to end")
    assert crew.leases(replica)["port"] == [port]
    assert _unit(crew, port) is not None
    crew.end(replica)
    assert _unit(crew, port) is None


def _unit(crew: Crew, port: int) -> int | None:
    return crew.rows(
        "SELECT lease_id FROM units WHERE kind = 'port' AND scope = :node AND number = :port",
        node=crew.settings.node_name,
        port=port,
    )[0][0]


def _next_port(crew: Crew) -> int:
    return int(
        crew.rows(
            "SELECT number FROM units WHERE kind = 'port' AND scope = :node AND lease_id IS NULL AND NOT retired"
            " ORDER BY last_freed_at NULLS FIRST, number LIMIT 1",
            node=crew.settings.node_name,
        )[0][0]
    )


@contextmanager
def _stranger(port: int) -> Iterator[list[tuple[str, str | None]]]:
    """A server of somebody else's that answers 200 to everything; yields (path, credentials) that it was sent."""
    asked: list[tuple[str, str | None]] = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Authorization")))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", port), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield asked
        finally:
            server.shutdown()
            thread.join()
