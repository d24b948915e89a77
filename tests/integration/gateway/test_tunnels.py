"""Tunnels with real parts: sshd, ssh, HAProxy and a database. Replicas are rows, their servers behind the sshd."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.db.repos import leases
from app.stack.layout import run_dir
from tests.integration.gateway.conftest import NODE, Server, World
from tests.support.crew import environment
from tests.support.embedded import wait_until
from tests.support.freezing import freeze
from tests.support.ports import free_port
from tests.support.sshd import Sshd, running_sshd

WAIT_S = 40


@dataclass
class Far:
    """A world whose replicas are reached through an sshd, and the role that keeps their tunnels."""

    world: World
    sshd: Sshd
    folder: Path
    ports: list[int]
    role: subprocess.Popen[bytes] | None = None

    def add(self, replica_id: str, **more: Any) -> Server:
        """A ready replica behind the sshd."""
        server = self.world.add(replica_id, node=None, **more)
        self.world.change(
            "UPDATE replicas SET spec = jsonb_set(spec, '{resolved,backend_options}',"
            " CAST(:options AS jsonb)) WHERE id = :id",
            id=replica_id,
            options=json.dumps({"tunnel": True, "ssh": self.sshd.ssh}),
        )
        return server

    def start(self) -> None:
        self.role = self.start_on(NODE, self.world.settings.state_dir)

    def start_on(self, node: str, state_dir: Path) -> subprocess.Popen[bytes]:
        """The role, as the supervisor starts it; marked, so that what it leaves is found."""
        environ = environment(self.world.settings) | {
            "HOSTLER_ROLE": "tunnels",
            "HOSTLER_STATE_DIR": str(state_dir),
            "HOSTLER_NODE_NAME": node,
        }
        with open(self.folder / "tunnels.log", "ab") as log:
            return subprocess.Popen([sys.executable, "-m", "workers.tunnels"], env=environ, stdout=log, stderr=log)

    def stop(self) -> None:
        assert self.role is not None
        self.role.terminate()
        assert self.role.wait(20) == 0, self.log()
        self.role = None

    def kill(self) -> None:
        assert self.role is not None
        self.role.kill()
        self.role.wait()
        self.role = None

    def log(self) -> str:
        return (self.folder / "tunnels.log").read_text(errors="replace")[-4000:]

    def end_on(self, node: str) -> Any | None:
        found = self.world.rows("SELECT * FROM tunnels WHERE node = :node", node=node)
        return found[0] if found else None

    def end_of(self, replica_id: str) -> Any | None:
        found = self.world.rows(
            "SELECT t.* FROM tunnels t JOIN attempts a ON a.id = t.attempt_id WHERE a.replica_id = :id", id=replica_id
        )
        return found[0] if found else None

    def await_state(self, replica_id: str, state: str) -> Any:
        def seen() -> Any:
            found = self.end_of(replica_id)
            return found if found is not None and found.state == state else None

        return wait_until(seen, WAIT_S, f"the tunnel of {replica_id} to be {state}")

    def await_answers(self, *names: str, model: str = "tiny") -> None:
        def seen() -> bool:
            self.world.turn()
            return self.world.answers(model) == set(names)

        wait_until(seen, WAIT_S, f"answers of {names}")

    def ssh(self) -> psutil.Process:
        """The one connection."""
        found = self.connections()
        assert len(found) == 1, found
        return found[0]

    def connections(self) -> list[psutil.Process]:
        folder = str(run_dir(self.world.settings.state_dir))
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                words = process.cmdline()
                is_ours = process.name() == "ssh" and "-M" in words and folder in " ".join(words)
                if is_ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


@pytest.fixture
def far(world: World, tmp_path: Path) -> Iterator[Far]:
    ports = [free_port() for _ in range(3)]
    with world.ctx.database.begin() as connection:
        leases.set_capacity(connection, "port", NODE, ports)
    with running_sshd(tmp_path / "sshd", run_dir(world.settings.state_dir)) as sshd:
        far = Far(world, sshd, tmp_path, ports)
        far.start()
        try:
            yield far
        finally:
            if far.role is not None:
                far.role.send_signal(signal.SIGCONT)
                far.role.terminate()
                far.role.wait(20)
            for left in far.connections():
                left.kill()
            print(far.log())  # noqa: T201  (shown when the test failed)


def test_requests_go_through_the_tunnel(far: Far) -> None:
    far.add("aaaaaaaaaaaa")
    far.await_answers("aaaaaaaaaaaa")
    end = far.await_state("aaaaaaaaaaaa", "up")
    assert end.port in far.ports
    server = f"127.0.0.1:{end.port}"
    assert server in (far.world.front.places.maps.parent / "haproxy.cfg").read_text()
    # nobody else is given that port while it may be routed to, and the lease is the attempt's
    assert far.world.leases("aaaaaaaaaaaa") == {"port": [end.port]}
    assert [row.port for row in far.world.rows("SELECT port FROM gateway_servers WHERE node = :n", n=NODE)] == [
        end.port
    ]


def test_a_dropped_connection_heals_and_traffic_with_it(far: Far) -> None:
    far.add("aaaaaaaaaaaa")
    far.await_answers("aaaaaaaaaaaa")
    before = far.ssh().pid
    far.sshd.cut()
    wait_until(lambda: [one.pid for one in far.connections()] not in ([], [before]), WAIT_S, "it")
    far.await_answers("aaaaaaaaaaaa")


def test_the_other_host_away_for_a_while_is_told_and_comes_back(far: Far) -> None:
    far.add("aaaaaaaaaaaa")
    far.await_answers("aaaaaaaaaaaa")
    port = far.await_state("aaaaaaaaaaaa", "up").port
    far.sshd.stop()
    down = far.await_state("aaaaaaaaaaaa", "down")
    wait_until(lambda: "refused" in far.end_of("aaaaaaaaaaaa").message, WAIT_S, f"the reason: {down.message}")
    far.await_answers("503")
    far.sshd.start()
    far.await_answers("aaaaaaaaaaaa")
    assert far.end_of("aaaaaaaaaaaa").port == port


def test_the_role_killed_leaves_traffic_alone_and_goes_on_with_its_connection(far: Far) -> None:
    far.add("aaaaaaaaaaaa")
    far.await_answers("aaaaaaaaaaaa")
    connection, port = far.ssh().pid, far.end_of("aaaaaaaaaaaa").port
    far.kill()
    far.await_answers("aaaaaaaaaaaa")
    far.start()
    far.add("bbbbbbbbbbbb", model="other")
    far.await_answers("bbbbbbbbbbbb", model="other")
    assert far.ssh().pid == connection
    assert far.end_of("aaaaaaaaaaaa").port == port
    # and it is kept as one of its own
    far.ssh().kill()
    wait_until(lambda: [one.pid for one in far.connections()] not in ([], [connection]), WAIT_S, "it")
    far.await_answers("aaaaaaaaaaaa")


def test_a_frozen_connection_is_replaced(far: Far) -> None:
    far.add("aaaaaaaaaaaa")
    far.await_answers("aaaaaaaaaaaa")
    before = far.ssh().pid
    os.kill(before, signal.SIGSTOP)
    wait_until(lambda: not psutil.pid_exists(before), WAIT_S, "the frozen one to be ended")
    far.await_answers("aaaaaaaaaaaa")


def test_a_frozen_role_holds_up_nothing_that_goes_on(far: Far) -> None:
    far.add("aaaaaaaaaaaa")
    far.await_answers("aaaaaaaaaaaa")
    assert far.role is not None
    freeze(far.role.pid)
    far.await_answers("aaaaaaaaaaaa")
    far.sshd.cut()
    far.await_answers("503")
    far.role.send_signal(signal.SIGCONT)
    far.await_answers("aaaaaaaaaaaa")


def test_nobody_else_can_listen_on_a_local_end_that_is_down(far: Far) -> None:
    far.add("aaaaaaaaaaaa")
    far.await_answers("aaaaaaaaaaaa")
    port = far.end_of("aaaaaaaaaaaa").port
    far.sshd.stop()
    far.await_state("aaaaaaaaaaaa", "down")
    for address in ("127.0.0.1", "0.0.0.0"):
        for share in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            with pytest.raises(OSError, match="in use"):
                _listen(address, port, share)
    far.sshd.start()
    far.await_answers("aaaaaaaaaaaa")


def test_a_stranger_on_the_local_end_is_never_taken_for_the_replica(far: Far) -> None:
    far.add("aaaaaaaaaaaa")
    far.await_answers("aaaaaaaaaaaa")
    port = far.end_of("aaaaaaaaaaaa").port
    # nobody of ours is left to hold the port
    far.sshd.stop()
    far.kill()
    for left in far.connections():
        left.kill()
    stranger = _Stranger(port)
    try:
        far.start()
        wait_until(lambda: far.end_of("aaaaaaaaaaaa") is None or far.end_of("aaaaaaaaaaaa").port != port, WAIT_S, "it")
        far.world.turn(2)
        assert far.world.answers() == {"503"}
        far.sshd.start()
        far.await_answers("aaaaaaaaaaaa")
        assert far.end_of("aaaaaaaaaaaa").port != port
        assert far.world.leases("aaaaaaaaaaaa") == {"port": [far.end_of("aaaaaaaaaaaa").port]}
    finally:
        stranger.close()


def test_an_attempt_that_moved_is_followed_and_its_old_address_is_asked_no_more(far: Far) -> None:
    first = far.add("aaaaaaaaaaaa")
    far.await_answers("aaaaaaaaaaaa")
    port = far.end_of("aaaaaaaaaaaa").port
    assert far.role is not None
    # while nobody moves the tunnel, it leads to somebody else
    freeze(far.role.pid)
    second = Server("moved")
    try:
        far.world.change("UPDATE replicas SET port = :port WHERE id = 'aaaaaaaaaaaa'", port=second.port)
        far.world.turn()
        far.await_answers("503")
        far.role.send_signal(signal.SIGCONT)
        far.await_answers("moved")
        assert (far.end_of("aaaaaaaaaaaa").port, far.end_of("aaaaaaaaaaaa").to_port) == (port, second.port)
    finally:
        second.close()
    assert first.port != second.port


def test_what_is_released_is_closed_and_the_last_one_ends_the_connection(far: Far) -> None:
    far.add("aaaaaaaaaaaa")
    far.add("bbbbbbbbbbbb", model="other")
    far.await_answers("aaaaaaaaaaaa")
    far.await_answers("bbbbbbbbbbbb", model="other")
    assert far.ssh()
    port = far.end_of("aaaaaaaaaaaa").port
    far.world.release("aaaaaaaaaaaa")
    wait_until(lambda: far.end_of("aaaaaaaaaaaa") is None, WAIT_S, "it")
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    assert far.world.leases("aaaaaaaaaaaa") == {}
    far.await_answers("bbbbbbbbbbbb", model="other")
    far.world.release("bbbbbbbbbbbb")
    wait_until(lambda: not far.connections(), WAIT_S, "no connection to be left")


def test_a_port_given_back_is_not_leased_while_it_is_routed(far: Far) -> None:
    far.add("aaaaaaaaaaaa")
    far.await_answers("aaaaaaaaaaaa")
    port = far.end_of("aaaaaaaaaaaa").port
    far.world.release("aaaaaaaaaaaa")
    wait_until(lambda: far.end_of("aaaaaaaaaaaa") is None, WAIT_S, "it")
    # no turn of the gateway's agent since: its row stands
    for number in range(len(far.ports)):
        far.add(f"bbbbbbbbbbb{number}", model=f"m{number}")
    wait_until(lambda: len(far.world.rows("SELECT 1 FROM tunnels")) == len(far.ports) - 1, WAIT_S, "it")
    assert port not in {row.port for row in far.world.rows("SELECT port FROM tunnels")}
    far.world.turn(2)
    wait_until(lambda: len(far.world.rows("SELECT 1 FROM tunnels")) == len(far.ports), WAIT_S, "it")


def test_stopped_it_leaves_nothing_and_says_so(far: Far) -> None:
    far.add("aaaaaaaaaaaa")
    far.await_answers("aaaaaaaaaaaa")
    far.stop()
    assert not far.connections()
    assert far.end_of("aaaaaaaaaaaa").state == "down"
    far.start()
    far.await_answers("aaaaaaaaaaaa")


def test_each_host_has_a_local_end_of_its_own(far: Far, tmp_path_factory: pytest.TempPathFactory) -> None:
    port = free_port()
    with far.world.ctx.database.begin() as connection:
        leases.set_capacity(connection, "port", "there", [port])
    folder = tmp_path_factory.mktemp("o")
    folder.chmod(0o700)
    other = far.start_on("there", folder)
    try:
        far.add("aaaaaaaaaaaa")
        far.await_answers("aaaaaaaaaaaa")

        def both() -> bool:
            found = far.world.rows("SELECT node, port FROM tunnels WHERE state = 'up' ORDER BY node")
            return [row.node for row in found] == [NODE, "there"] and found[1].port == port

        wait_until(both, WAIT_S, "two local ends")
        # this gateway leads to its own, and ends it without the other
        assert [row.port for row in far.world.rows("SELECT port FROM gateway_servers")] == [far.end_on(NODE).port]
        far.stop()
        assert far.end_on("there").state == "up"
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
        assert far.end_on(NODE).state == "down"
        far.world.release("aaaaaaaaaaaa")
        wait_until(lambda: far.end_on("there") is None, WAIT_S, "the other to be closed")
    finally:
        other.terminate()
        assert other.wait(20) == 0, far.log()


def test_a_host_without_a_gateway_serves_only_what_its_pools_hold(far: Far) -> None:
    far.world.change("DELETE FROM gateways")
    far.world.change("INSERT INTO nodes (name, pools) VALUES (:node, ARRAY['other'])", node=NODE)
    far.add("aaaaaaaaaaaa")
    far.world.change("INSERT INTO pools (name, backend, slots) VALUES ('other', 'process', 1)")
    far.add("bbbbbbbbbbbb", model="other")
    far.world.change("UPDATE replicas SET pool = 'other' WHERE id = 'bbbbbbbbbbbb'")
    far.await_state("bbbbbbbbbbbb", "up")
    assert far.end_of("aaaaaaaaaaaa") is None
    # one that all of this host's pools may have is a gateway's
    far.world.new_keeper()
    far.await_state("aaaaaaaaaaaa", "up")


def test_a_host_that_forwards_nothing_is_named(far: Far) -> None:
    far.sshd.stop()
    far.sshd.settings["AllowTcpForwarding"] = "no"
    far.sshd.start()
    far.add("aaaaaaaaaaaa")
    far.await_state("aaaaaaaaaaaa", "up")

    def told() -> bool:
        far.world.turn()
        far.world.answers()
        return "AllowTcpForwarding" in far.end_of("aaaaaaaaaaaa").message

    wait_until(told, WAIT_S, "it")


def _listen(address: str, port: int, share: int) -> None:
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, share, 1)
        stranger.bind((address, port))
        stranger.listen()


class _Stranger:
    """Takes a port as soon as it is free, and answers everything."""

    def __init__(self, port: int) -> None:
        code = (
            "import http.server as h, socketserver\n"
            "class H(h.BaseHTTPRequestHandler):\n"
            "  def do_GET(self):\n"
            "    self.send_response(200); self.send_header('Content-Length', '8'); self.end_headers()\n"
            "    self.wfile.write(b'stranger')\n"
            f"h.ThreadingHTTPServer(('127.0.0.1', {port}), H).serve_forever()\n"
        )
        self._process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)

        def answers() -> bool:
            assert self._process.poll() is None
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return True
            return False

        wait_until(answers, 20, "the stranger")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
