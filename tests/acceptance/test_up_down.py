"""`hostler up`, `down`, `status`, `doctor` as a user types them, on real parts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.stack.down import GRACE_S
from app.stack.processes import control_plane
from tests.support.embedded import wait_until
from tests.support.stacks import Stack, gone, stack, wait_gone

#: Serves, and does not hear SIGTERM.
STUBBORN = [
    sys.executable,
    "-c",
    "import http.server, signal, sys; signal.signal(15, signal.SIG_IGN);"
    "http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), http.server.SimpleHTTPRequestHandler)"
    ".serve_forever()",
    "{port}",
]
ROLES = {
    "web",
    "worker",
    "worker-control",
    "beat",
    "flower",
    "agent",
    "tunnels",
    "gateway-agent",
    "slow-lane",
    "gateway",
}
pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that is up, for tests that leave it as they found it."""
    with stack(tmp_path_factory.mktemp("up") / "state") as made:
        said = made.up()
        assert made.key in said, "the admin key is shown on the first start"
        # not after a while: whoever waited for `up` may look at once
        assert made.call("GET", "/health")["problems"] == []
        yield made


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Stack]:
    """A stack of the test's own, not up yet."""
    with stack(tmp_path / "state") as made:
        yield made


def test_a_second_up_tells_the_address_and_no_key(shared: Stack) -> None:
    before = shared.pid("supervisor")
    done = shared.hostler("up", "-d", "--port", str(shared.port))
    assert done.returncode == 0
    assert done.stdout.strip() == shared.url
    assert "up already" in done.stderr
    assert shared.key not in done.stdout + done.stderr
    assert shared.pid("supervisor") == before


def test_status_shows_every_process_and_where_it_listens(shared: Stack) -> None:
    def shown() -> list[dict[str, Any]] | None:
        rows = shared.processes()
        return rows if {row["pid"] for row in rows} == {process.pid for process in shared.living()} else None

    # a stack that was just started forks a little longer: one that comes between the two looks is in the next
    rows = wait_until(shown, 30, "every living process, and no other")
    assert {row["role"] for row in rows} >= ROLES | {"supervisor", "postgres", "redis", "listener"}
    listening = {address: row["role"] for row in rows for address in row["listen"]}
    ports = {address: role for address, role in listening.items() if not address.startswith("/")}
    assert ports == {f"127.0.0.1:{shared.port}": "gateway"}, "one door, and nothing beside it"
    assert {os.path.basename(address): role for address, role in listening.items() if address not in ports} == {
        "supervisor.sock": "supervisor",
        ".s.PGSQL.5432": "postgres",
        "redis.sock": "redis",
        "web.sock": "web",
        "flower.sock": "flower",
        "haproxy.sock": "gateway",
        "haproxy-master.sock": "gateway",
        "door.sock": "gateway",
        "relay.sock": "gateway",
        "slow-lane.sock": "slow-lane",
    }
    record = json.loads(shared.layout.record.read_text())
    assert record["url"] == shared.url
    table = shared.must("status")
    assert all(role in table for role in ROLES)


def test_nothing_started_holds_terminal_or_descriptors(fresh: Stack) -> None:
    read, write = os.pipe()
    controller, terminal = os.openpty()
    argv = fresh.argv("up", "-d", "--port", str(fresh.port))
    done = subprocess.run(
        ["setsid", "--ctty", "--wait", *argv], env=fresh.environ, stdin=terminal, stdout=terminal, stderr=terminal,
        pass_fds=(write,), timeout=90, check=False,
    )  # fmt: skip
    os.close(write)
    os.close(terminal)
    said = b""
    try:
        while chunk := os.read(controller, 65536):
            said += chunk
    except OSError:
        # every end of the terminal is closed, ours was the last
        pass
    assert done.returncode == 0, said
    os.set_blocking(read, False)
    assert os.read(read, 1) == b"", "somebody holds the caller's pipe"
    os.close(read)
    os.close(controller)
    assert all(process.terminal() is None for process in fresh.living())
    assert all(os.getsid(process.pid) != os.getsid(0) for process in fresh.living())
    fresh.must("down")


def test_secrets_are_in_no_command_line(shared: Stack) -> None:
    secrets = [path.read_text().strip() for path in shared.layout.secrets.iterdir()]
    lines = [" ".join(process.cmdline()) for process in shared.living()]
    assert len(secrets) >= 5
    assert not [line for line in lines if any(secret in line for secret in secrets)]
    config = shared.layout.supervisor_config.read_text()
    assert not [secret for secret in secrets if secret in config]


def test_doctor_is_content_and_names_what_is_not(shared: Stack) -> None:
    found = json.loads(shared.must("doctor", "-o", "json"))
    assert {row["check"] for row in found} >= {
        "database", "broker", "gateway", "migrations", "queues", "clock", "permissions", "user", "processes",
    }  # fmt: skip
    assert not [row for row in found if row["result"] == "fail"]
    leak = shared.layout.logs / "web.log"
    leak.chmod(0o644)
    done = shared.hostler("doctor", "-o", "json")
    leak.chmod(0o600)
    assert done.returncode == 1
    failing = [row for row in json.loads(done.stdout) if row["result"] == "fail"]
    assert [row["check"] for row in failing] == ["permissions"]
    assert str(leak) in failing[0]["detail"]
    assert failing[0]["fix"].startswith("chmod")


def test_doctor_without_a_stack_says_what_to_type(fresh: Stack) -> None:
    done = fresh.hostler("doctor")
    assert done.returncode == 1
    assert "hostler up -d" in done.stdout


def test_a_child_that_dies_is_started_again_and_that_is_an_event(shared: Stack) -> None:
    for role in ("beat", "redis", "postgres"):
        before = shared.pid(role)
        os.kill(before, signal.SIGKILL)
        wait_gone(before)

        def told(role: str = role, before: int = before) -> bool:
            page = shared.call("GET", "/api/v1/events?limit=50", expect=(200, 503))
            found = [(row["kind"], row["data"].get("role"), row["data"].get("pid")) for row in page.get("events", [])]
            return ("child_exited", role, before) in found and any(
                kind == "child_restarted" and name == role for kind, name, _ in found
            )

        wait_until(told, 40, f"the event of {role}'s death")
        assert shared.pid(role) != before
    wait_until(lambda: shared.call("GET", "/ready", expect=(200, 503))["status"] == "ready", 20, "a ready API")
    # and the work goes on
    replica_id = shared.replica()
    shared.call("POST", f"/api/v1/replicas/{replica_id}/stop", {}, 202)


def test_down_lists_and_stops_replicas_and_leaves_nothing(fresh: Stack) -> None:
    fresh.up()
    replica_id = fresh.replica()
    engine, everything = fresh.pid("engine"), fresh.living()
    done = fresh.hostler("down")
    assert done.returncode == 0, done.stderr
    assert replica_id in done.stderr
    assert gone(engine)
    assert not [process for process in everything if not gone(process.pid)]
    assert not fresh.living()
    assert not [path for path in fresh.layout.run.glob("*") if path.is_socket()]
    again = fresh.hostler("down")
    assert again.returncode == 0
    assert "nothing runs" in again.stderr
    # the same key, no longer shown, and the history is kept
    assert "admin key" not in fresh.up()
    assert fresh.state_of(replica_id) == "stopped"
    fresh.must("down")


def test_kept_engines_serve_on_and_are_adopted(fresh: Stack) -> None:
    fresh.up()
    replica_id = fresh.replica()
    engine = fresh.pid("engine")
    fresh.must("down", "--keep-replicas")
    assert {row["role"] for row in fresh.processes()} == {"engine", "shim"}
    fresh.up()
    wait_until(lambda: fresh.state_of(replica_id) == "ready", 20, "the adopted replica")
    assert fresh.pid("engine") == engine
    fresh.must("down")
    assert gone(engine)


def test_killing_everything_keeps_engines_and_the_next_up_adopts(fresh: Stack) -> None:
    fresh.up()
    kept, lost = fresh.replica(), fresh.replica()
    victim = next(row["pid"] for row in fresh.processes("engine") if row["replica_id"] == lost)
    survivor = next(row["pid"] for row in fresh.processes("engine") if row["replica_id"] == kept)
    for row in fresh.processes():
        if row["role"] not in ("engine", "shim"):
            _kill(row["pid"])
    os.kill(victim, signal.SIGKILL)
    wait_gone(victim)
    fresh.up()
    wait_until(lambda: fresh.state_of(kept) == "ready", 20, "the adopted replica")
    wait_until(lambda: fresh.state_of(lost) == "failed", 20, "the report of the dead one")
    assert survivor in [row["pid"] for row in fresh.processes("engine")]
    fresh.must("down")


def test_a_killed_supervisor_is_noticed_and_replaced(fresh: Stack) -> None:
    fresh.up()
    replica_id, engine = fresh.replica(), fresh.pid("engine")
    orphans = [one.process.pid for one in control_plane(fresh.layout)]
    os.kill(fresh.pid("supervisor"), signal.SIGKILL)
    wait_until(lambda: "supervisor" not in {row["role"] for row in fresh.processes()}, 10, "its end")
    assert "supervisor is gone" in fresh.hostler("doctor").stdout
    fresh.up()
    assert not set(orphans) & {row["pid"] for row in fresh.processes()}
    assert fresh.pid("engine") == engine
    assert fresh.state_of(replica_id) == "ready"
    os.kill(fresh.pid("supervisor"), signal.SIGKILL)
    fresh.must("down")
    assert not fresh.living()
    assert gone(engine)


def test_down_ends_engines_by_signal_when_the_api_is_dead(fresh: Stack) -> None:
    fresh.up()
    fresh.replica()
    engine = fresh.pid("engine")
    os.kill(fresh.pid("supervisor"), signal.SIGKILL)
    for row in fresh.processes("web"):
        _kill(row["pid"])
    done = fresh.hostler("down")
    assert done.returncode == 0, done.stderr
    assert gone(engine)
    assert not fresh.living()


@contextmanager
def foreground(fresh: Stack) -> Iterator[subprocess.Popen[str]]:
    """`hostler up` without -d, once it has told its address."""
    argv = fresh.argv("up", "--port", str(fresh.port))
    pipe = subprocess.PIPE
    process = subprocess.Popen(argv, env=fresh.environ, stdout=pipe, stderr=pipe, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == fresh.url
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_foreground_stops_everything_on_a_signal(fresh: Stack, number: int) -> None:
    with foreground(fresh) as process:
        fresh.replica()
        engine = fresh.pid("engine")
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert all(role in said for role in ROLES)
    assert "everything is stopped" in said
    assert gone(engine)
    assert not fresh.living()


def test_a_second_signal_ends_the_patience_with_stubborn_engines(fresh: Stack) -> None:
    with foreground(fresh) as process:
        command = {"command": STUBBORN, "readiness_path": "/"}
        replica_id = fresh.replica(server_mode="platform_workload", platform_config=command)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        wait_until(lambda: f"  {replica_id}" in process.stderr.readline(), 30, "the list of replicas")
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert time.monotonic() - began < GRACE_S
    assert process.returncode == 0
    assert not fresh.living()


def test_down_names_what_it_could_not_reach_and_says_what_to_type(fresh: Stack) -> None:
    with foreground(fresh) as process:
        here = fresh.replica()
        away = {"unreachable_after_s": 0.5, "unreachable_for_s": 600}
        far = fresh.replica(pool="mock", replica_config={"backend_options": away})
        wait_until(lambda: fresh.state_of(far) == "unreachable", 30, "its place being away")
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        wait_until(lambda: "stopping 2 replicas" in process.stderr.readline(), 30, "the list of replicas")
        wait_until(lambda: fresh.state_of(here) == "stopped", 30, "the end of what can be reached")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1, said
    assert "everything is stopped" not in said
    assert f"{far} of pool mock" in said
    assert "`hostler up -d`" in said
    assert here not in said.splitlines()[-1]
    assert not fresh.living()


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        # it ended with its parent
        return
