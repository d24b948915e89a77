"""The disk that logs, records of attempts and Postgres share is full: engines serve on, and room mends the rest."""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.stacked.clients import (
    BEFORE,
    MENDED_S,
    mended,
    put_away,
    send,
    starts,
)
from tests.support import plain_http
from tests.support.embedded import wait_until
from tests.support.stacks import MOCK, Stack

pytestmark = pytest.mark.timeout(180)


def test_a_full_disk_costs_answers_and_no_engine(up: Stack, disk: Path) -> None:
    """Logs and Postgres share it: engines serve on, requests are refused or carried out, and room mends it all."""
    if not os.path.ismount(disk):
        pytest.skip("may not mount a small disk here")
    chatty = up.replica(replica_config={"mock": {"log_lines": ["x" * 1000] * 200}})
    address = up.call("GET", f"/api/v1/replicas/{chatty}")["base_url"]
    engines = [row["pid"] for row in up.processes("engine")]
    supervisor = up.pid("supervisor")
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
        assert plain_http.get(f"{address}/health", trust_env=False).status_code == 200
        [finding] = [row for row in json.loads(up.hostler("doctor", "-o", "json").stdout) if row["check"] == "disk"]
        assert finding["result"] == "fail"
        assert str(up.state_dir) in finding["fix"]
    mended(up)
    assert [row["pid"] for row in up.processes("engine") if row["pid"] in engines] == engines
    assert up.pid("supervisor") == supervisor, "whoever starts the others again must not die of its logs"
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
