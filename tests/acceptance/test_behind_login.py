"""Hostler on a laptop, a login node that is reached by SSH only, and compute nodes that are reached by tunnels only."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.stack.processes import ROLE_MARK, STATE_MARK
from tests.support.behind import Behind, behind_login
from tests.support.embedded import wait_until
from tests.support.hosts import HostStack, on

WAIT_S = 90


@dataclass
class Laptop:
    """The stack there, and what it sees."""

    stack: HostStack
    behind: Behind

    def create(self) -> str:
        return self.stack.replica(pool="cluster", model_name="m")

    def get(self, replica_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.stack.call("GET", f"/api/v1/replicas/{replica_id}")
        return found

    def await_status(self, replica_id: str, *wanted: str) -> dict[str, Any]:
        def seen() -> dict[str, Any] | None:
            found = self.get(replica_id)
            assert found["status"] not in ({"failed", "stopped"} - set(wanted)), found
            return found if found["status"] in wanted else None

        found: dict[str, Any] = wait_until(seen, WAIT_S, f"{replica_id} to be {wanted}: {self.get(replica_id)}")
        return found

    def ask(self) -> int:
        """The status of a chat through the gateway."""
        body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
        found = self.stack.call("POST", "/v1/chat/completions", body, (200, 404, 502, 503, 504))
        return 200 if "choices" in found else 503

    def await_traffic(self) -> None:
        wait_until(lambda: self.ask() == 200, WAIT_S, "traffic")

    def jobs(self) -> list[list[str]]:
        assert self.behind.cluster is not None
        return self.behind.cluster.jobs()

    def ssh(self) -> list[psutil.Process]:
        """Connections that this stack keeps, by their marks."""
        marks = {STATE_MARK: str(self.stack.state_dir), ROLE_MARK: "tunnels"}
        every = (one for one in psutil.process_iter(["name", "environ"]) if one.info["name"] == "ssh")
        return [one for one in every if marks.items() <= (one.info["environ"] or {}).items()]


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    folder = tmp_path_factory.mktemp("b")
    with behind_login(folder / "far") as behind, on(behind.laptop, folder / "s") as stack:
        stack.up(HOSTLER_PROBE_INTERVAL_S="1")
        assert behind.cluster is not None
        options = {
            "ssh": behind.ssh, "tunnel": True, "folder": str(folder / "attempts"),
            "slurm_conf": str(behind.cluster.conf), "network": "10.82.1.0/24",
        }  # fmt: skip
        pool = {"name": "cluster", "backend": "slurm", "slots": 4, "options": options}
        stack.call("POST", "/api/v1/pools", pool, 201)
        yield Laptop(stack, behind)


def test_a_replica_on_a_compute_node_answers_on_the_laptop(laptop: Laptop) -> None:
    replica = laptop.create()
    found = laptop.get(replica)
    # it runs where the laptop sees nothing
    assert found["host"] == laptop.behind.compute.address
    assert laptop.behind.sees(laptop.behind.login, found["host"], found["port"])
    assert not laptop.behind.sees(laptop.behind.laptop, found["host"], found["port"])
    assert not laptop.behind.sees(laptop.behind.laptop, laptop.behind.login.addresses[1], 22)
    # and is reached at the laptop's own end
    (end,) = found["tunnels"]
    assert (end["state"], found["base_url"]) == ("up", f"http://127.0.0.1:{end['port']}")
    laptop.await_traffic()
    assert laptop.ssh()

    laptop.stack.call("POST", f"/api/v1/replicas/{replica}/stop", expect=202)
    wait_until(lambda: laptop.get(replica)["released_at"], WAIT_S, "it to be gone")
    assert laptop.jobs() == []
    wait_until(lambda: not laptop.ssh(), WAIT_S, "its tunnel to be closed")
    assert laptop.get(replica)["tunnels"] == []


def test_the_way_lost_and_found_again_costs_no_replica(laptop: Laptop) -> None:
    replica = laptop.create()
    laptop.await_traffic()
    before = laptop.jobs()
    laptop.behind.wan.cut()
    laptop.await_status(replica, "unreachable")
    assert laptop.ask() == 503
    laptop.behind.wan.heal()
    laptop.await_status(replica, "ready")
    laptop.await_traffic()
    # the login node is rebooted: every connection ends at once, and comes back when it is up
    laptop.behind.stop_sshd()
    laptop.await_status(replica, "unreachable")
    laptop.behind.start_sshd()
    laptop.await_status(replica, "ready")
    laptop.await_traffic()
    assert laptop.jobs() == before
    assert len(laptop.get(replica)["attempts"]) == 1
    laptop.stack.call("POST", f"/api/v1/replicas/{replica}/stop", expect=202)
    wait_until(lambda: laptop.get(replica)["released_at"], WAIT_S, "it to be gone")


def test_a_requeued_job_is_found_where_it_runs_next(laptop: Laptop) -> None:
    replica = laptop.create()
    laptop.await_traffic()
    before = laptop.get(replica)
    ((job, _, _),) = laptop.jobs()
    cluster = laptop.behind.cluster
    assert cluster is not None
    cluster.ask("scontrol", "requeue", job)
    wait_until(lambda: [state for _, _, state in laptop.jobs()] == ["PENDING"], WAIT_S, "its first run to be over")
    # somebody else comes to where it was
    stranger = wait_until(lambda: laptop.behind.compute.do(lambda: _listen(before)), WAIT_S, "its old port to be free")
    cluster.hasten(job)

    def moved() -> bool:
        found = laptop.get(replica)
        assert found["status"] not in ("failed", "stopped"), found
        return found["status"] == "ready" and found["port"] not in (None, before["port"])

    with stranger:
        wait_until(moved, WAIT_S, "it to run at another port")
        laptop.await_traffic()
    found = laptop.get(replica)
    assert (len(found["attempts"]), [end["state"] for end in found["tunnels"]]) == (1, ["up"])
    laptop.stack.call("POST", f"/api/v1/replicas/{replica}/stop", expect=202)
    wait_until(lambda: laptop.get(replica)["released_at"], WAIT_S, "it to be gone")


def _listen(replica: dict[str, Any]) -> socket.socket | None:
    try:
        return socket.create_server((replica["host"], replica["port"]))
    except OSError:
        return None


def test_down_leaves_no_connection(laptop: Laptop, tmp_path: Path) -> None:
    laptop.create()
    laptop.await_traffic()
    assert laptop.ssh()
    laptop.stack.must("down")
    assert not laptop.ssh()
    assert laptop.jobs() == []
