"""The command line as a person uses it, each command a process, on a whole real stack with a real llama.cpp."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from app.stack.layout import Layout
from app.stack.places import remove_place
from tests.support.ports import free_port

pytestmark = pytest.mark.timeout(300)

Done = subprocess.CompletedProcess[str]


@dataclass
class Cli:
    """Runs ``hostler`` against one state dir and nothing else."""

    state_dir: Path

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-P", "-m", "hostler", *words]

    @property
    def env(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HOSTLER_")}
        return {**kept, "HOSTLER_STATE_DIR": str(self.state_dir), "HOSTLER_PROBE_INTERVAL_S": "1"}

    def __call__(self, *words: str, expect: int = 0, timeout: float = 90, **env: str) -> Done:
        done = subprocess.run(
            self.argv(*words), capture_output=True, text=True, env={**self.env, **env}, timeout=timeout, check=False
        )
        assert done.returncode == expect, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *words: str, **more: Any) -> Any:
        return json.loads(self(*words, "-o", "json", **more).stdout)

    def create(self, *words: str, **more: Any) -> str:
        """A replica of the mock engine; its id."""
        mode = ("--server-mode", "replica_mock", "--model-name", "any")
        return self("replica", "create", *mode, *words, "-o", "name", **more).stdout.strip()


@pytest.fixture(scope="module")
def hostler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    cli = Cli(tmp_path_factory.mktemp("cli") / "state")
    try:
        # the port is asked of the kernel; nobody else binds it between the two
        cli("up", "-d", "--port", str(free_port()), timeout=120)
        cli("model", "make-tiny", "tiny")
        yield cli
    finally:
        cli("down", timeout=120)
        # as root, what Postgres keeps may lie where its user can reach it
        remove_place(Layout(cli.state_dir))


@pytest.fixture
def label(hostler: Cli) -> Iterator[str]:
    """A label of the test's own; what has it is stopped afterwards."""
    mine = f"test={uuid4().hex[:8]}"
    yield mine
    hostler("replica", "stop", "-l", mine, "--force", "--wait", "--timeout", "30s")


@pytest.fixture(scope="module")
def ready(hostler: Cli) -> str:
    """A replica of the mock engine that is ready, for tests that only look."""
    return hostler.create("--wait", "--timeout", "60s")


def test_a_model_is_served_and_put_away(hostler: Cli) -> None:
    made = hostler("replica", "create", "--model-name", "tiny", "--label", "a=b", "--wait", "-o", "json")
    replica = json.loads(made.stdout)
    replica_id = replica["replica_id"]
    assert replica["status"] == "ready"
    assert f"replica {replica_id}: starting" in made.stderr
    assert f"replica {replica_id}: ready" in made.stderr

    assert hostler.json("replica", "get", replica_id)["status"] == "ready"
    assert hostler("replica", "list", "-l", "a=b", "-o", "name").stdout.split() == [replica_id]
    assert hostler.json("replica", "health", replica_id)["healthy"] is True
    assert hostler("replica", "logs", replica_id).stdout
    assert len(hostler("replica", "logs", replica_id, "--tail", "1").stdout.splitlines()) == 1
    assert "ready" in hostler("replica", "explain", replica_id).stdout
    hostler("replica", "diagnose", replica_id)

    states = [event["to_state"] for event in hostler.json("replica", "events", replica_id)["events"]]
    assert states[0] == "pending"
    assert "ready" in states

    again = hostler.json("replica", "restart", replica_id, "--wait")
    assert (again["status"], again["attempt"]) == ("ready", replica["attempt"] + 1)

    hostler("replica", "delete", replica_id, expect=5)
    stopped = hostler.json("replica", "stop", replica_id, "--wait", "--timeout", "60s")
    assert stopped["status"] == "stopped"
    assert stopped["released_at"]
    # the first attempt's words are still there
    assert hostler("replica", "logs", replica_id, "--attempt", "1").stdout
    hostler("replica", "delete", replica_id)
    hostler("replica", "wait", replica_id, "--for", "deleted", "--timeout", "10s")
    assert "hostler replica list" in hostler("replica", "get", replica_id, expect=3).stderr


def test_a_failed_launch_is_told_at_once_with_reason_and_log(hostler: Cli, label: str) -> None:
    knobs = '{"mock": {"startup_s": 60, "exit_after_s": 0.2, "exit_code": 7, "log_lines": ["no such tensor"]}}'
    mode = ("--server-mode", "replica_mock", "--model-name", "any", "--label", label)
    began = time.monotonic()
    failed = hostler("replica", "create", *mode, "--config", knobs, "--wait", expect=6)
    assert time.monotonic() - began < 20
    assert "process_exited" in failed.stderr
    assert "  | " in failed.stderr
    assert "no such tensor" in failed.stderr
    assert failed.stdout == ""
    replica_id = hostler("replica", "list", "-l", label, "-o", "name").stdout.strip()
    assert "process_exited" in hostler("replica", "wait", replica_id, expect=6).stderr
    hostler("replica", "wait", replica_id, "--for", "released", "--timeout", "30s")


def test_a_wait_that_runs_out_leaves_the_launch(hostler: Cli, label: str) -> None:
    slow = ("--label", label, "--config", "mock.startup_s=15")  # longer than a busy machine takes to come to the wait
    late = hostler("replica", "create", "--server-mode", "replica_mock", "--model-name", "any", *slow, expect=0)
    replica_id = late.stdout.split()[0]
    assert "explain" in hostler("replica", "wait", replica_id, "--timeout", "0.5s", expect=7).stderr
    assert hostler("replica", "wait", replica_id, "--timeout", "60s").stdout.startswith(f"{replica_id} ready http")


def test_ctrl_c_leaves_the_launch(hostler: Cli, label: str) -> None:
    words = ("replica", "create", "--server-mode", "replica_mock", "--model-name", "any", "--label", label, "--wait")
    argv = hostler.argv(*words, "--config", "mock.startup_s=3")
    process = subprocess.Popen(
        argv,
        env=hostler.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # what a shell starts with & ignores Ctrl-C, and hands that on: these tests may run so
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    assert "pending" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "hostler replica stop" in said
    replica_id = hostler("replica", "list", "-l", label, "-o", "name").stdout.strip()
    hostler("replica", "wait", replica_id, "--timeout", "60s")


def test_stop_by_label(hostler: Cli, label: str) -> None:
    ids = {hostler.create("--label", label) for _ in range(3)}
    stopped = hostler("replica", "stop", "-l", label, "--wait", "--timeout", "60s")
    assert set(stopped.stdout.split()) == ids
    rows = hostler.json("replica", "list", "-l", label, "--all")["replicas"]
    assert {row["status"] for row in rows} == {"stopped"}


def test_followed_logs_and_events_end_with_the_attempt(hostler: Cli, label: str) -> None:
    replica_id = hostler.create("--label", label, "--config", 'mock.log_lines=["one","two"]', "--wait")
    argv = hostler.argv("replica", "logs", replica_id, "-f")
    following = subprocess.Popen(argv, env=hostler.env, stdout=subprocess.PIPE, text=True)
    story = subprocess.Popen(
        hostler.argv("replica", "events", replica_id, "-f"), env=hostler.env, stdout=subprocess.PIPE, text=True
    )
    assert story.stdout is not None
    assert "pending" in story.stdout.readline()
    hostler("replica", "stop", replica_id, "--force", "--wait", "--timeout", "60s")
    try:
        said, _ = following.communicate(timeout=30)
        assert {"one", "two"} <= set(said.splitlines())
        assert following.returncode == 0
        seen = ""
        while "stopped" not in seen:
            seen = story.stdout.readline()
            assert seen, "the stream of events ended before the replica was stopped"
    finally:
        following.kill()
        story.kill()
        following.wait()
        story.communicate()


def test_tasks(hostler: Cli, ready: str) -> None:
    task = hostler.json("task", "list", "--replica", ready, "--kind", "create")["tasks"][0]
    assert hostler.json("task", "wait", task["id"])["state"] == "succeeded"
    assert hostler.json("task", "get", task["id"])["replica_id"] == ready
    assert "ready" in hostler("task", "events", task["id"]).stdout
    hostler("task", "get", "nothing", expect=3)


def test_cancelling_a_create_is_a_task_that_ends_cancelled(hostler: Cli, label: str) -> None:
    replica_id = hostler.create("--label", label, "--config", "mock.startup_s=600")
    task_id = hostler.json("task", "list", "--replica", replica_id)["tasks"][0]["id"]
    hostler("task", "cancel", task_id)
    assert hostler.json("task", "wait", task_id, "--timeout", "30s", expect=1)["state"] == "cancelled"
    hostler("replica", "wait", replica_id, "--for", "released", "--timeout", "60s")


def test_a_pool_from_its_making_to_its_end(hostler: Cli, label: str) -> None:
    hostler("pool", "create", "side", "--backend", "mock", "--slots", "1", "--label", "kind=side")
    assert hostler.json("pool", "update", "side", "--slots", "2")["slots"] == 2
    changed = hostler.json("pool", "update", "side", "--option", "ready_delay_s=0.1", "--label", "site=a")
    assert (changed["options"], changed["labels"]) == ({"ready_delay_s": 0.1}, {"kind": "side", "site": "a"})
    changed = hostler.json("pool", "update", "side", "--option", "ready_delay_s-", "--label", "site-")
    assert (changed["options"], changed["labels"]) == ({}, {"kind": "side"})
    assert hostler.json("pool", "drain", "side")["state"] == "draining"
    replica_id = hostler.create("--pool", "side", "--label", label)
    explained = hostler.json("replica", "explain", replica_id)
    assert explained["status"] == "pending"
    assert explained["command"] == "hostler pool resume side"
    hostler("pool", "resume", "side")
    hostler("replica", "wait", replica_id, "--timeout", "60s")
    assert "side" in hostler("pool", "list", "-o", "name").stdout.split()
    hostler("pool", "delete", "side", expect=5)
    hostler("replica", "stop", replica_id, "--wait", "--timeout", "60s")
    hostler("replica", "delete", replica_id)
    hostler("pool", "delete", "side")
    hostler("pool", "get", "side", expect=3)


def test_models_and_nodes(hostler: Cli) -> None:
    assert "tiny" in hostler("model", "list", "-o", "name").stdout.split()
    hostler("model", "create", "alias-of-tiny", "--engine", "llama-cpp", "--source", "tiny.gguf", "--alias", "t2")
    assert hostler.json("model", "get", "alias-of-tiny")["aliases"] == ["t2"]
    hostler("model", "delete", "alias-of-tiny")
    node = hostler("node", "list", "-o", "name").stdout.strip()
    assert hostler.json("node", "get", node)["cpus"] >= 1


def test_a_key_of_a_low_role(hostler: Cli, ready: str) -> None:
    made = hostler.json("key", "create", "reader", "--role", "read")
    assert "reader" in hostler("key", "list").stdout
    hostler("replica", "list", HOSTLER_API_KEY=made["key"])
    hostler("replica", "stop", ready, expect=4, HOSTLER_API_KEY=made["key"])
    hostler("key", "delete", made["id"])
    deadline = time.monotonic() + 10
    while _code(hostler, "replica", "list", HOSTLER_API_KEY=made["key"]) != 4:
        assert time.monotonic() < deadline, "a revoked key still works"


def test_what_goes_wrong_has_its_exit_code(hostler: Cli, ready: str) -> None:
    hostler("replica", "get", "000000000000", expect=3)
    hostler("replica", "delete", ready, expect=5)
    assert "hostler model list" in hostler("replica", "create", "--model-name", "tinny", expect=3).stderr
    hostler("replica", "create", "--model-name", "tiny", "--server-mode", "nope", expect=2)
    hostler("replica", "list", "--status", "nope", expect=2)
    hostler("replica", "get", "no-id", expect=3)
    hostler("replica", "list", expect=4, HOSTLER_API_KEY="wrong" * 8)
    gone = hostler("--url", "http://127.0.0.1:1", "replica", "list", expect=8)
    assert "hostler up -d" in gone.stderr


def test_forms_of_output(hostler: Cli, ready: str) -> None:
    assert hostler("replica", "get", ready, "-o", "name").stdout == f"{ready}\n"
    assert hostler("health", "-o", "yaml").stdout.startswith("status: healthy\n")
    assert ready in hostler("replica", "list").stdout
    assert hostler.json("events", "--replica", ready, "--limit", "1")["events"][0]["replica_id"] == ready


def test_dry_run_changes_nothing(hostler: Cli) -> None:
    before = hostler.json("replica", "list")["total"]
    plan = hostler.json("replica", "create", "--model-name", "tiny", "--dry-run")
    assert plan["argv"]
    assert hostler.json("replica", "list")["total"] == before


def test_completion_of_ids(hostler: Cli, ready: str) -> None:
    done = hostler(
        *(), _HOSTLER_COMPLETE="bash_complete", COMP_WORDS=f"hostler replica get {ready[:3]}", COMP_CWORD="3"
    )
    assert f"plain,{ready}" in done.stdout


def test_the_demo_works_twice_the_second_time_in_seconds(hostler: Cli) -> None:
    first = hostler("demo", timeout=120)
    assert "hostler replica get" in first.stdout
    assert "weights are random" in first.stdout
    assert "waiting_for_ready" in first.stdout
    began = time.monotonic()
    hostler("demo", timeout=60)
    assert time.monotonic() - began < 15
    hostler("replica", "stop", "-l", "demo=yes", "--wait", "--timeout", "60s")


def _code(cli: Cli, *words: str, **env: str) -> int:
    return subprocess.run(cli.argv(*words), capture_output=True, env={**cli.env, **env}, check=False).returncode
