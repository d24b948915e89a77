"""A pool behind SSH, as a user sees it: served, unreachable and back, dead, stopped, and nothing left on any host."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.engines.tiny_model import write_tiny_gguf
from tests.support import plain_http
from tests.support.embedded import wait_until
from tests.support.sshd import Sshd, masters_in, running_sshd, short_folder
from tests.support.stacks import Stack, gone, stack

WAIT_S = 60
BODY = {"server_mode": "replica_mock", "model_name": "far-model", "pool": "far", "run_diagnostics": False}
#: Says numbers until there is a file of the given name.
COUNTS = """
import itertools, os, sys, time
for number in itertools.count():
    print(number, flush=True)
    if os.path.exists(sys.argv[1]):
        sys.exit("the end")
    time.sleep(0.005)
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with short_folder() as run_dir, running_sshd(tmp_path_factory.mktemp("far"), run_dir) as server:
        yield server


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, host: Sshd) -> Iterator[Stack]:
    with stack(tmp_path_factory.mktemp("ssh") / "state") as made:
        made.up()
        options = {"ssh": host.ssh, "folder": str(host.folder / "attempts-of-ours"), "python": sys.executable}
        made.call("POST", "/api/v1/pools", {"name": "far", "backend": "ssh", "slots": 8, "options": options}, 201)
        yield made


def test_a_model_of_another_host_is_chatted_with_through_the_gateway(up: Stack) -> None:
    write_tiny_gguf(up.state_dir / "models" / "tiny-far.gguf")
    body = {"server_mode": "replica", "model_name": "tiny-far", "pool": "far", "wait_for_ready": True}
    made = up.call("POST", "/api/v1/replicas", body, 201)
    assert made["node"] is None
    asked = {"model": "tiny-far", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
    wait_until(lambda: chat(up, asked) == 200, WAIT_S, "an answer through the gateway")
    assert "llama" in up.must("replica", "logs", made["replica_id"]).lower()
    stop(up, made["replica_id"])


def test_the_connection_is_a_process_of_the_stack(up: Stack) -> None:
    replica = up.replica(**BODY)
    assert up.processes("ssh"), "shown by status"
    stop(up, replica)


def test_a_host_that_is_away_is_unreachable_and_its_engine_goes_on(up: Stack, host: Sshd) -> None:
    replica = up.replica(**BODY)
    before = up.call("GET", f"/api/v1/replicas/{replica}")
    host.stop()
    wait_until(lambda: up.state_of(replica) == "unreachable", WAIT_S, "the replica being unreachable")
    later = up.call("POST", "/api/v1/replicas", {**BODY, "model_name": "later", "wait_for_ready": False}, 202)
    host.start()
    wait_until(lambda: up.state_of(replica) == "ready", WAIT_S, "the replica being ready again")
    after = up.call("GET", f"/api/v1/replicas/{replica}")
    assert (after["attempt"], after["backend_ref"]) == (before["attempt"], before["backend_ref"])
    wait_until(lambda: up.state_of(later["replica_id"]) == "ready", WAIT_S, "what was asked for meanwhile")
    for one in (replica, later["replica_id"]):
        stop(up, one)


def test_a_log_is_followed_over_the_time_in_which_its_host_is_away(up: Stack, host: Sshd, tmp_path: Path) -> None:
    ends = tmp_path / "ends"
    config = {"command": [sys.executable, "-c", COUNTS, str(ends)], "readiness_path": "/"}
    body = {**BODY, "server_mode": "platform_workload", "platform_config": config, "wait_for_ready": False}
    replica = up.call("POST", "/api/v1/replicas", body, 202)["replica_id"]
    wait_until(lambda: up.state_of(replica) == "waiting_for_ready", WAIT_S, "the program running")
    said = tmp_path / "said"

    def lines() -> list[str]:
        return said.read_text().splitlines()

    with said.open("w") as file:
        following = subprocess.Popen(
            up.argv("replica", "logs", replica, "-f"), env=up.environ, stdout=file, stdin=subprocess.DEVNULL
        )
    try:
        wait_until(lambda: len(lines()) > 100, WAIT_S, "its first lines")
        host.stop()
        try:
            # which lines are the last ones is known there alone
            asked = up.hostler("replica", "logs", replica, "--tail", "2")
        finally:
            host.start()
        assert asked.returncode != 0
        assert asked.stdout == ""
        assert "lies where it cannot be read now" in asked.stderr
        before = len(lines())
        wait_until(lambda: len(lines()) > before + 100, WAIT_S, "lines after it is back")
    finally:
        ends.touch()
        try:
            following.wait(WAIT_S)
        finally:
            following.kill()
            following.wait()
    assert lines() == [*map(str, range(len(lines()) - 1)), "the end"]
    assert up.must("replica", "logs", replica).splitlines() == lines()
    wait_until(lambda: up.call("GET", f"/api/v1/replicas/{replica}")["released_at"], WAIT_S, "the replica being gone")


def test_a_death_there_is_seen_with_its_reason_and_log(up: Stack) -> None:
    replica = up.replica(**BODY)
    os.kill(engine_of(up, replica), signal.SIGKILL)
    wait_until(lambda: up.state_of(replica) == "failed", WAIT_S, "the death being seen")
    seen = up.call("GET", f"/api/v1/replicas/{replica}")
    assert seen["reason"] == "process_exited"
    assert "SIGKILL" in seen["message"]
    wait_until(lambda: up.call("GET", f"/api/v1/replicas/{replica}")["released_at"], WAIT_S, "its leases being free")


def test_down_ends_what_runs_there_and_the_connection(up: Stack) -> None:
    pid = engine_of(up, up.replica(**BODY))
    up.must("down")
    assert not psutil.pid_exists(pid)
    assert masters_in(up.layout.run) == []
    assert not list(up.layout.run.glob("ssh-*"))


def test_down_says_what_may_still_run_on_a_host_that_is_away_and_the_next_up_ends_it(up: Stack, host: Sshd) -> None:
    up.up()
    replica = up.replica(**BODY)
    pid = engine_of(up, replica)
    host.stop()
    try:
        done = up.hostler("down")
        assert done.returncode != 0
        assert "could not be asked to end" in done.stderr
        assert "are not waited for" in done.stderr
        assert f"{replica} of pool far" in done.stderr
        assert psutil.pid_exists(pid)
    finally:
        host.start()
    up.up()
    wait_until(lambda: gone(pid), WAIT_S, "its end")
    up.must("down")


def chat(up: Stack, asked: dict[str, Any]) -> int:
    headers = {"Authorization": f"Bearer {up.key}"}
    return plain_http.post(
        f"{up.url}/v1/chat/completions", json=asked, headers=headers, timeout=30, trust_env=False
    ).status_code


def engine_of(up: Stack, replica: str) -> int:
    return int(up.call("GET", f"/api/v1/replicas/{replica}")["backend_ref"]["ref"]["pid"])


def stop(up: Stack, replica: str) -> None:
    pid = engine_of(up, replica)
    up.call("POST", f"/api/v1/replicas/{replica}/stop", {"grace_s": 5}, (200, 202))
    wait_until(lambda: up.call("GET", f"/api/v1/replicas/{replica}")["released_at"], WAIT_S, "the replica being gone")
    assert not psutil.pid_exists(pid)
