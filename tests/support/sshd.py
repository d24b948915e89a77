"""A real sshd on a loopback port, with its own keys, for one user: the one who runs the tests.

It is as noisy as hosts are: a banner before the login, start-up files that talk. Its ssh_config knows three hosts:
``NAME`` (that server), ``NAME-jumped`` (the same, through itself) and ``NAME-forged`` (the same, with another host's
key on record).
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.bound import bound
from tests.support.embedded import wait_until
from tests.support.ports import free_port

_UP_S = 20
NOISE = "a word from a start-up file"
_BANNER = "NOTICE: this is a private host\nhostler 0 end 0\n"


@dataclass
class Sshd:
    """One server. ``ssh`` is the option ``ssh`` of pools and transports that reaches it."""

    name: str
    folder: Path
    port: int
    #: short and private, for the sockets of connections
    run_dir: Path
    settings: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        return self.folder / "ssh_config"

    @property
    def ssh(self) -> dict[str, Any]:
        return self.to(self.name)

    def to(self, host: str) -> dict[str, Any]:
        return {"host": host, "config": str(self.config), "connect_timeout_s": 10}

    def start(self) -> None:
        lines = [f"{name} {value}" for name, value in self.settings.items()]
        (self.folder / "sshd_config").write_text("\n".join(lines) + "\n")
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [*bound("KILL"), _program(), "-D", "-e", "-f", str(self.folder / "sshd_config")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        wait_until(self._answers, _UP_S, f"sshd on port {self.port}; see {self.folder / 'log'}")

    def stop(self) -> None:
        """End the server and every session of it."""
        sessions = self.sessions()
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            self.process.wait(_UP_S)
            self.process = None
        self.cut(sessions)

    def sessions(self) -> list[psutil.Process]:
        """The server's processes that serve one connection each."""
        if self.process is None:
            return []
        return [one for one in psutil.Process(self.process.pid).children() if one.is_running()]

    def cut(self, sessions: list[psutil.Process] | None = None) -> None:
        """Drop connections as a network does: from one moment to the next. What runs there goes on."""
        for one in self.sessions() if sessions is None else sessions:
            for process in (*_children_of_sshd(one), one):
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue

    def logins(self) -> int:
        """How many connections were accepted so far."""
        return (self.folder / "log").read_text(errors="replace").count("Accepted publickey")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text()
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as link:
                return link.recv(4) == b"SSH-"
        except OSError:
            return False


@pytest.fixture(scope="session")
def far_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """One for all tests that leave it as it was. Import it into a conftest to use it."""
    with short_folder() as run_dir, running_sshd(tmp_path_factory.mktemp("far"), run_dir) as server:
        yield server


@contextmanager
def short_folder() -> Iterator[Path]:
    """A private folder whose path is short enough for sockets, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="hs", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextmanager
def running_sshd(folder: Path, run_dir: Path, *, name: str = "far", **settings: str) -> Iterator[Sshd]:
    """A server in ``folder``, which is made. ``settings`` are lines of sshd_config that win over ours.

    Skips the test where the machine has no OpenSSH.
    """
    for program in ("ssh", "ssh-keygen"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} on this machine; install openssh-client")
    if not _program():
        pytest.skip("no sshd on this machine; install openssh-server")
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    run_dir.mkdir(parents=True, mode=0o700, exist_ok=True)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where root's sshd wants to change its root to
    for key in ("host_key", "other_host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    server = Sshd(name, folder, free_port(), run_dir, _server_settings(folder) | settings)
    server.settings["ListenAddress"] = f"127.0.0.1:{server.port}"
    (folder / "banner").write_text(_BANNER)
    (folder / "authorized_keys").write_bytes((folder / "user_key.pub").read_bytes())
    (folder / "authorized_keys").chmod(0o600)
    _write_noisy_shell(folder)
    _write_client_config(server)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        end_masters(run_dir)


def end_masters(run_dir: Path) -> None:
    """End every connection whose socket lies in ``run_dir``."""
    ending = masters_in(run_dir)
    for process in ending:
        process.send_signal(signal.SIGCONT)
        process.terminate()
    psutil.wait_procs(ending, 5)


def masters_in(run_dir: Path) -> list[psutil.Process]:
    """What keeps, makes or uses the connections whose socket lies in ``run_dir``."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.name() == "ssh" and any(word.startswith(f"{run_dir}/ssh-") for word in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def _server_settings(folder: Path) -> dict[str, str]:
    return {
        "HostKey": str(folder / "host_key"),
        "PidFile": "none",
        "AuthorizedKeysFile": str(folder / "authorized_keys"),
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "UsePAM": "no",
        "PermitRootLogin": "prohibit-password",
        # folders of tests may lie below one that others can write to
        "StrictModes": "no",
        "Banner": str(folder / "banner"),
        "PrintMotd": "yes",
        "MaxStartups": "100",
        "LogLevel": "INFO",
        # instead of the account's own start-up files, which are none of our business
        "SetEnv": f"HOME={folder / 'home'}",
        "ForceCommand": str(folder / "login"),
    }


def _write_noisy_shell(folder: Path) -> None:
    """What sshd does for a login shell, with start-up files that talk."""
    login = folder / "login"
    login.write_text(
        "#!/bin/sh\n"
        f'echo "{NOISE}"\nprintf "and a line without end"\necho "{NOISE}" >&2\n'
        f'exec "$(cat {folder}/shell)" -c "$SSH_ORIGINAL_COMMAND"\n'
    )
    login.chmod(0o755)
    (folder / "shell").write_text("/bin/sh\n")
    (folder / "home").mkdir(mode=0o700, exist_ok=True)


def _write_client_config(server: Sshd) -> None:
    folder = server.folder
    for known, key in (("known_hosts", "host_key"), ("forged_known_hosts", "other_host_key")):
        kind, value = (folder / f"{key}.pub").read_text().split()[:2]
        (folder / known).write_text(f"[127.0.0.1]:{server.port} {kind} {value}\n")
    (folder / "ssh_config").write_text(
        f"Host {server.name} {server.name}-*\n"
        "  HostName 127.0.0.1\n"
        f"  Port {server.port}\n"
        f"  User {getpass.getuser()}\n"
        f"  IdentityFile {folder}/user_key\n"
        "  IdentitiesOnly yes\n"
        "  IdentityAgent none\n"
        f"Host {server.name}-jumped\n"
        f"  ProxyJump {server.name}\n"
        f"Host {server.name}-forged\n"
        f"  UserKnownHostsFile {folder}/forged_known_hosts\n"
        f"Host {server.name} {server.name}-*\n"
        f"  UserKnownHostsFile {folder}/known_hosts\n"
        "  GlobalKnownHostsFile none\n"
    )


def _children_of_sshd(session: psutil.Process) -> list[psutil.Process]:
    """The part of a session that runs as its user; not what it started."""
    try:
        return [child for child in session.children() if child.name().startswith("sshd")]
    except psutil.NoSuchProcess:
        return []


def _program() -> str:
    # it insists on being called by its whole path
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin") or ""
