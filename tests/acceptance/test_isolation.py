"""What nobody else may read or reach, what two stacks must not hear of each other, and as whom they run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from app.stack.runas import as_user, can
from tests.support import plain_http
from tests.support.accounts import account, open_tmp
from tests.support.embedded import wait_until
from tests.support.stacks import ROOT, Stack, stack

__all__ = ["open_tmp"]

SYSTEM_PYTHON = Path("/usr/bin/python3.11")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
pytestmark = pytest.mark.timeout(180)

#: Run as another user: tries every path, socket and port it is told, and prints what let it in.
INTRUDER = """
import json, os, socket, sys
asked = json.load(sys.stdin)
found = []
for path in asked["paths"]:
    for act in (os.listdir, lambda name: open(name, "rb").close()):
        try:
            act(path)
            found.append(path)
        except OSError:
            pass
for path in asked["sockets"]:
    try:
        socket.socket(socket.AF_UNIX).connect(path)
        found.append(path)
    except OSError:
        pass
for port, requests in asked["ports"]:
    for request in requests:
        with socket.create_connection(("127.0.0.1", port), 5) as client:
            head = ("Host: x", "Content-Length: 0", "Connection: close")
            client.sendall("\\r\\n".join((f"{request} HTTP/1.1", *head, "", "")).encode())
            status = client.recv(64).split(b" ")[1]
        if status not in (b"401", b"403"):
            found.append(f"{port} {request} {status.decode()}")
print(json.dumps(found))
"""


@pytest.fixture
def open_python(open_tmp: Path) -> str:
    """An interpreter with our libraries and code that every user can run."""
    nobody = account("nobody")
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    if not SYSTEM_PYTHON.exists() or not can(nobody, ["test", "-r", f"{packages}/celery/__init__.py"]):
        pytest.skip(f"no interpreter or libraries that {nobody.name} can reach")
    if not can(nobody, ["test", "-r", str(ROOT / "app" / "__init__.py")]):
        pytest.skip(f"{nobody.name} cannot reach {ROOT}")
    subprocess.run([SYSTEM_PYTHON, "-m", "venv", "--without-pip", open_tmp / "venv"], check=True, timeout=60)
    own = next((open_tmp / "venv" / "lib").glob("python3.*/site-packages"))
    (own / "all.pth").write_text(f"{packages}\n{ROOT}\n")
    # the lock has it for Python before 3.11.3, and this run's own interpreter may be a later one
    (own / "async_timeout.py").write_text("from asyncio import timeout\n")
    return str(open_tmp / "venv" / "bin" / "python")


@as_root
@pytest.mark.parametrize("reachable", [False, True])
def test_another_user_reads_nothing_and_reaches_nothing(tmp_path: Path, open_tmp: Path, reachable: bool) -> None:
    with stack((open_tmp if reachable else tmp_path) / "state") as ours:
        ours.up()
        _make_model(ours)
        replica_id = ours.replica(server_mode="replica", model_name="tiny")
        rows = ours.processes()
        user = next(row for row in json.loads(ours.must("doctor", "-o", "json")) if row["check"] == "user")
        names = {row["role"]: psutil.Process(row["pid"]).username() for row in rows}
        assert names["postgres"] == "hostler"
        # an interpreter or a state dir that the system user cannot reach: doctor says so
        assert (names["web"], user["result"]) in (("root", "warn"), ("hostler", "ok"))
        assert names["engine"] == names["web"]
        tops = {ours.state_dir, ours.layout.run, ours.layout.postgres}
        paths = {str(path) for top in tops for path in (top, *top.rglob("*"))}
        assert len(paths) > 500
        addresses = {address: row["role"] for row in rows for address in row["listen"]}
        sockets = [address for address in addresses if address.startswith("/")]
        assert len(sockets) >= 7
        routes = {
            "gateway": [
                "GET /api/v1/replicas",
                "GET /metrics",
                "POST /api/v1/replicas",
                f"GET /api/v1/replicas/{replica_id}",
                *(f"GET /flower/{page}" for page in ("", "workers", "metrics", "healthcheck", "api/tasks")),
            ],
            "engine": ["POST /v1/completions", "POST /v1/chat/completions", "POST /tokenize"],
        }
        ports = [
            (int(address.rpartition(":")[2]), routes[role])
            for address, role in addresses.items()
            if not address.startswith("/")
        ]
        assert len(ports) == 2
        asked = {"paths": sorted(paths), "sockets": sockets, "ports": ports}
        done = subprocess.run(
            [SYSTEM_PYTHON, "-c", INTRUDER], input=json.dumps(asked), cwd="/", env={}, capture_output=True, text=True,
            timeout=60, check=True, **as_user(account("nobody")),
        )  # fmt: skip
        assert json.loads(done.stdout) == []
        for path in paths:
            mode = os.lstat(path).st_mode
            assert not mode & 0o077 or os.path.islink(path), path
        ours.must("down")


@as_root
def test_root_gives_everything_to_the_system_user_where_it_can(open_tmp: Path, open_python: str) -> None:
    with stack(open_tmp / "state", open_python) as ours:
        ours.up()
        ours.replica()
        uid = account("hostler").uid
        assert {process.uids().real for process in ours.living()} == {uid}
        assert ours.state_dir.stat().st_uid == uid
        user = next(row for row in json.loads(ours.must("doctor", "-o", "json")) if row["check"] == "user")
        assert user["result"] == "ok"
        ours.must("down")
        assert not ours.living()


@as_root
def test_run_as_names_the_user(open_tmp: Path, open_python: str) -> None:
    with stack(open_tmp / "state", open_python) as ours:
        ours.up("--run-as", "nobody")
        assert {process.username() for process in ours.living()} == {"nobody"}
        # the data's owner is remembered
        ours.must("down")
        ours.up()
        assert {process.username() for process in ours.living()} == {"nobody"}
        ours.must("down")
    with stack(open_tmp / "other", open_python) as other:
        done = other.hostler("up", "-d", "--port", str(other.port), "--run-as", "nobody-at-all")
        assert done.returncode == 1
        assert "useradd" in done.stderr


@as_root
def test_a_plain_user_needs_no_root(open_tmp: Path, open_python: str) -> None:
    nobody = account("nobody")
    home = open_tmp / "home"
    home.mkdir(mode=0o700)
    os.chown(home, nobody.uid, nobody.gid)
    with stack(home / "state", open_python, HOME=str(home)) as ours:
        ours.run_kwargs = {**as_user(nobody), "cwd": "/"}
        ours.up()
        ours.replica()
        assert {process.uids().real for process in ours.living()} == {nobody.uid}
        assert ours.hostler("up", "-d", "--run-as", "root").returncode == 0, "it is up already"
        ours.must("doctor")
        ours.must("down")
        assert not ours.living()
        refused = ours.hostler("up", "-d", "--port", str(ours.port), "--run-as", "daemon")
        assert refused.returncode == 1
        assert "only root" in refused.stderr


def test_two_stacks_do_not_hear_each_other(tmp_path: Path) -> None:
    with stack(tmp_path / "one") as one, stack(tmp_path / "two") as two:
        one.up()
        two.up()
        here, there = one.replica(), two.replica()
        assert [row["replica_id"] for row in one.call("GET", "/api/v1/replicas")["replicas"]] == [here]
        assert [row["replica_id"] for row in two.call("GET", "/api/v1/replicas")["replicas"]] == [there]
        stranger = plain_http.get(f"{two.url}/api/v1/replicas", headers={"X-API-Key": one.key}, trust_env=False)
        assert stranger.status_code == 401
        one.must("down")
        assert not one.living()
        assert two.state_of(there) == "ready"
        wait_until(lambda: two.call("GET", "/health")["status"] == "healthy", 30, "a healthy second stack")
        two.must("down")


def test_two_stacks_share_a_broker_without_swallowing_bells(tmp_path: Path, parts) -> None:  # type: ignore[no-untyped-def]
    with stack(tmp_path / "one", HOSTLER_BROKER_URL=parts.broker_url) as one:
        with stack(tmp_path / "two", HOSTLER_BROKER_URL=parts.broker_url) as two:
            one.up()
            two.up()
            assert not [row for row in (*one.processes(), *two.processes()) if row["role"] == "redis"]
            for _ in range(3):
                one.replica()
                two.replica()
            two.must("down")
        one.must("down")


def _make_model(ours: Stack) -> None:
    ours.must("model", "make-tiny", "tiny")
    wait_until(lambda: _knows(ours, "tiny"), 15, "the model tiny")


def _knows(ours: Stack, name: str) -> bool:
    return name in [row["name"] for row in ours.call("GET", "/api/v1/models")["models"]]
