"""What a job does on its node, run by run, without a cluster: a process of ours for each run that Slurm would make."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.embedded import wait_until
from tests.support.stacks import gone
from workers.backends import slurm_job

WAIT_S = 20
KEY = b"k"
#: Ends by itself with the code that a file says, and with 0 by SIGTERM; says what it was started with.
_ENGINE = """\
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
print("began with", os.environ["SECRET"], flush=True)
while not os.path.exists("end"): time.sleep(0.02)
os._exit(int(open("end").read()))
"""
_WITH_CHILD = "import subprocess\nsubprocess.Popen(['sleep', '600'], start_new_session=True)\n" + _ENGINE


class Node:
    """The folder of an attempt, and runs of its job."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs: list[subprocess.Popen[bytes]] = []
        plan = {
            "name": "n", "nonce": "f00d", "gpus": 0, "port": None, "ports": [21000, 29000], "network": "127.0.0.1/32",
            "log_bytes": 100_000, "path": "/usr/bin:/bin", "passes": [],
        }  # fmt: skip
        plain = json.dumps({"env": {"SECRET": "s3cr3t"}, "files": {}}).encode()
        pad = hashlib.shake_256(KEY).digest(len(plain))
        (folder / "job.py").write_bytes(Path(slurm_job.__file__).read_bytes())
        (folder / "private").write_bytes(bytes(one ^ other for one, other in zip(plain, pad, strict=True)))
        self.write("launch", plan)

    def run(self, restarts: int, engine: str = _ENGINE) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-I", "-S", "job.py", "f00d", "--", sys.executable, "-I", "-c", engine]
        # no Slurm is here to be asked: what it wants is known by its signals alone
        environ = {"PATH": "/nowhere", "SLURM_JOB_ID": "17", "SLURMD_NODENAME": "n1"}
        if restarts:
            environ["SLURM_RESTART_COUNT"] = str(restarts)
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=self.folder, env=environ, start_new_session=True
        )
        assert process.stdin is not None
        process.stdin.write(KEY + b"\n")
        process.stdin.close()
        self.runs.append(process)
        return process

    def began(self, restarts: int, starts: int) -> int:
        """Wait until that run's engine has said so, the so-manieth of all; its process."""
        wait_until(lambda: self.says().count("began with s3cr3t") == starts, WAIT_S, f"start {starts}")
        told = self.read("run")
        assert told["restarts"] == restarts
        return int(told["pid"])

    def refused(self, restarts: int) -> str:
        process = self.run(restarts)
        assert process.wait(WAIT_S) == 1
        assert process.stderr is not None
        return process.stderr.read().decode()

    def says(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob("log-*")))

    def read(self, record: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / f"{record}.json").read_text())
        return found

    def write(self, record: str, value: dict[str, Any]) -> None:
        (self.folder / f"{record}.json").write_text(json.dumps(value))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path)
    yield node
    for process in node.runs:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
            process.wait(WAIT_S)
        assert process.stderr is not None
        process.stderr.close()


def test_an_engine_that_ended_before_slurm_was_heard_is_followed_by_the_next_run(node: Node) -> None:
    """A requeue signals the engine and, by our luck, the job's own part much later or never."""
    first = node.run(0)
    os.kill(node.began(0, 1), signal.SIGTERM)
    assert first.wait(WAIT_S) == 0
    assert node.read("exit") | {"restarts": 0, "own": True, "exit_code": 0} == node.read("exit")
    node.run(1)
    node.began(1, 2)
    assert not (node.folder / "exit.json").exists()


def test_a_requeue_that_was_heard_is_followed_by_the_next_run(node: Node) -> None:
    first = node.run(0)
    node.began(0, 1)
    first.terminate()
    first.wait(WAIT_S)
    assert node.read("exit")["own"] is False
    assert node.read("term")["restarts"] == 0
    second = node.run(1)
    node.began(1, 2)
    # what Slurm wanted of the first run is not what it wants of the second
    (node.folder / "end").write_text("3")
    assert second.wait(WAIT_S) == 3
    assert node.read("exit") | {"restarts": 1, "own": True, "exit_code": 3} == node.read("exit")


def test_a_run_that_ended_does_not_begin_twice(node: Node) -> None:
    first = node.run(0)
    node.began(0, 1)
    (node.folder / "end").write_text("3")
    assert first.wait(WAIT_S) == 3
    assert "this run of the attempt has ended" in node.refused(0)
    assert node.read("exit")["exit_code"] == 3


def test_no_run_begins_after_a_stop_or_the_end_of_the_job(node: Node) -> None:
    first = node.run(0)
    node.began(0, 1)
    node.write("stop", {"at": 1.0})
    first.terminate()
    first.wait(WAIT_S)
    assert not (node.folder / "private").exists()
    node.run(1).wait(WAIT_S)
    assert node.read("exit")["message"] == "was stopped before it started"
    (node.folder / "stop.json").unlink()
    node.write("over", {"at": 1.0})
    assert "this attempt has ended" in node.refused(2)
    assert node.says().count("began") == 1


def test_a_run_that_lost_its_attempt_to_a_later_one_ends_and_writes_nothing(node: Node) -> None:
    """Slurm took the node for lost, and it was not."""
    first = node.run(0, _WITH_CHILD)
    engine = node.began(0, 1)
    below = _below(engine)
    second = node.run(1)
    node.began(1, 2)
    assert first.wait(WAIT_S) == 1
    assert all(gone(pid) for pid in [engine, *below])
    assert not (node.folder / "exit.json").exists()
    assert node.read("run")["restarts"] == 1
    assert second.poll() is None
    assert "a later run has this attempt" in node.refused(0)


def test_a_run_tells_again_and_again_that_it_lives(node: Node) -> None:
    node.run(0)
    node.began(0, 1)
    alive = node.folder / "alive"
    for _ in range(2):
        os.utime(alive, (1, 1))
        wait_until(lambda: alive.stat().st_mtime > 1, WAIT_S, "its next word")


def test_an_id_of_a_job_that_is_given_again_brings_no_port_along() -> None:
    ports = set()
    for nonce in ("00000000f00d", "000007d0f00d", "00000fa0f00d"):
        port, claim = slurm_job.claim_port({"ports": [21000, 29000], "nonce": nonce}, "127.0.0.1")
        claim.close()
        ports.add(port)
    assert len(ports) == 3, "of one job's id, as a controller that lost its last seconds gives them"


def test_an_earlier_runs_last_word_does_not_hide_where_the_next_one_is(node: Node) -> None:
    node.run(1)
    node.began(1, 1)
    told = node.read("run")
    node.write("run", told | {"restarts": 0, "port": 1, "owns_port": True})
    wait_until(lambda: node.read("run") == told, WAIT_S, "its own address")


def test_a_job_that_was_told_to_be_over_ends_where_it_still_runs(node: Node) -> None:
    first = node.run(0, _WITH_CHILD)
    engine = node.began(0, 1)
    below = _below(engine)
    node.write("over", {"at": 1.0})
    first.wait(WAIT_S)
    assert all(gone(pid) for pid in [engine, *below])


def _below(pid: int) -> list[int]:
    found = [child.pid for child in psutil.Process(pid).children(recursive=True)]
    assert found
    return found
