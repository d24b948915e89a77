"""A cluster behind a login node: a laptop that sees the login node only, and compute nodes that only that one sees."""

from __future__ import annotations

import getpass
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support import slurm
from tests.support.embedded import wait_until
from tests.support.netns import Host, Link, Net, need_namespaces, net

_UP_S = 20
_SSH_PORT = 22


class FarCluster(slurm.Cluster):
    """Its controller and its commands on one host, its nodes on another."""

    login: Host
    compute: Host

    def argv(self, part: str, *argv: str) -> list[str]:
        return (self.compute if part in self.nodes else self.login).argv(*argv)

    def listens(self) -> bool:
        return self.login.do(lambda: _answers(self.login.addresses[1], self.ctld_port))


@dataclass
class Behind:
    """The three hosts and what runs on the far ones."""

    net: Net
    laptop: Host
    login: Host
    compute: Host
    #: laptop to login node
    wan: Link
    folder: Path
    cluster: FarCluster | None = None
    sshd: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def ssh(self) -> dict[str, Any]:
        """The option ``ssh`` of a pool on the laptop."""
        return {"host": "login", "config": str(self.folder / "ssh_config"), "connect_timeout_s": 5}

    def start_sshd(self) -> None:
        program = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
        assert program is not None
        with open(self.folder / "sshd.log", "ab") as log:
            self.sshd = subprocess.Popen(
                self.login.argv(program, "-D", "-e", "-f", str(self.folder / "sshd_config")),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        wait_until(lambda: self.login.do(lambda: _answers(self.login.address, _SSH_PORT)), _UP_S, "sshd")

    def stop_sshd(self) -> None:
        """As a reboot does: the server and every session of it, from one moment to the next."""
        if self.sshd is None:
            return
        found = psutil.Process(self.sshd.pid)
        for process in [*found.children(recursive=True), found]:
            # what a session started goes on: jobs are submitted, not run, there
            if process.name().startswith("sshd"):
                process.send_signal(signal.SIGKILL)
        self.sshd.wait(_UP_S)
        self.sshd = None

    def sees(self, host: Host, address: str, port: int) -> bool:
        """Whether a connection from that host arrives."""
        return host.do(lambda: _answers(address, port))


@contextmanager
def behind_login(folder: Path) -> Iterator[Behind]:
    """Hosts, sshd and a cluster of one node; skips the test where this machine has not what that needs."""
    need_namespaces()
    why = slurm.lacks() or _lacks_ssh()
    if why:
        pytest.skip(why)
    with ExitStack() as stack:
        made = stack.enter_context(net())
        laptop, login, compute = (made.host(name) for name in ("laptop", "login", "compute"))
        wan = made.link(laptop, login, "10.81.1")
        made.link(login, compute, "10.82.1")
        folder.mkdir(mode=0o700, exist_ok=True)
        behind = Behind(made, laptop, login, compute, wan, folder)
        _configure_ssh(behind)
        stack.callback(behind.stop_sshd)
        behind.start_sshd()
        FarCluster.login, FarCluster.compute = login, compute
        addresses = (login.addresses[1], compute.address)
        cluster = stack.enter_context(slurm.running_cluster(1, kind=FarCluster, addresses=addresses))
        assert isinstance(cluster, FarCluster)
        behind.cluster = cluster
        yield behind


def _configure_ssh(behind: Behind) -> None:
    folder = behind.folder
    for key in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    (folder / "authorized_keys").write_bytes((folder / "user_key.pub").read_bytes())
    kind, value = (folder / "host_key.pub").read_text().split()[:2]
    (folder / "known_hosts").write_text(f"{behind.login.address} {kind} {value}\n")
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    (folder / "sshd_config").write_text(
        f"ListenAddress {behind.login.address}:{_SSH_PORT}\nHostKey {folder}/host_key\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        "UsePAM no\nPermitRootLogin prohibit-password\nStrictModes no\nPrintMotd yes\n"
    )
    (folder / "ssh_config").write_text(
        f"Host login\n  HostName {behind.login.address}\n  Port {_SSH_PORT}\n  User {getpass.getuser()}\n"
        f"  IdentityFile {folder}/user_key\n  IdentitiesOnly yes\n  IdentityAgent none\n"
        f"  UserKnownHostsFile {folder}/known_hosts\n  GlobalKnownHostsFile none\n"
        # somebody's own, that must not disturb
        "  LocalForward 127.0.0.1:20000 localhost:1\n"
    )


def _lacks_ssh() -> str:
    missing = [name for name in ("ssh", "ssh-keygen") if shutil.which(name) is None]
    if shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin") is None:
        missing.append("sshd")
    return f"there is no {missing[0]} here (Debian: openssh-client openssh-server)" if missing else ""


def _answers(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True
