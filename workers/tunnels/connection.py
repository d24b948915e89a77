"""One ``ssh`` that carries all forwards to one host. Once started it belongs to nobody, and is found again.

It runs in the foreground, in a session of its own, and keeps its words in a file: a role that is killed or frozen does
not take it along.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from app.usecases.reach import LOOPBACK
from app.usecases.tunnels import Far
from workers.backends import proc
from workers.backends.ports import Listeners, owns_all
from workers.backends.proc import Identity
from workers.transports.base import TransportError
from workers.transports.master import Master
from workers.transports.options import SshOptions

#: A connection over which nothing came for so long is dead.
ALIVE_INTERVAL_S, ALIVE_COUNT = 5, 2
#: What ``ssh`` says of one command to a connection that stands.
CONTROL_S = 10.0
#: Words that are kept; more of them is noise of one kind.
MOST_SAID_BYTES = 64 * 1024


class NoConnection(Exception):
    """``ssh`` refused, or is gone. The message is for people."""


class Connection:
    """The ``ssh`` of one host. For one thread. ``folder`` is private (0700) and its path short."""

    def __init__(self, ssh: Mapping[str, Any], folder: Path, environ: Mapping[str, str]) -> None:
        self.options = SshOptions.of(ssh)
        self._environ = dict(environ)
        mark = hashlib.sha256(json.dumps(dict(ssh), sort_keys=True).encode()).hexdigest()[:10]
        self.socket = folder / f"tunnel-{mark}"
        #: ssh replaces what follows a percent sign
        self._path = str(self.socket).replace("%", "%%")
        self.record = folder / f"tunnel-{mark}.json"
        self._words = folder / f"tunnel-{mark}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._known: Identity | None = None
        self._pidfd: int | None = None
        self._started_at = 0.0
        self._read_to = 0

    @property
    def name(self) -> str:
        return self.options.host

    def find(self) -> bool:
        """Take over the one that an earlier process of this role left. False: there is none that answers."""
        known = read_record(self.record)
        if known is not None and proc.lives(known):
            self._follow(known)
            with suppress(NoConnection):
                self._control("check")
                return True
        self.end()
        return False

    def start(self) -> None:
        """Begin to connect; ``stands`` tells when it is done. Raises NoConnection."""
        self.end()
        self._read_to = 0
        try:
            argv = Master(self.options, self.socket.parent).argv(
                self._path, CONTROL_S, ControlPersist="no", LogLevel="INFO", TCPKeepAlive="yes",
                ServerAliveInterval=ALIVE_INTERVAL_S, ServerAliveCountMax=ALIVE_COUNT,
                ExitOnForwardFailure="yes", GatewayPorts="no",
            )  # fmt: skip
        except TransportError as error:
            raise NoConnection(str(error)) from error
        try:
            self._words.write_bytes(b"")
            with self._words.open("ab") as words:
                self._process = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=words, env=self._environ,
                    cwd="/", start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            raise NoConnection(f"cannot run ssh ({error.strerror}); install openssh-client") from error
        self._started_at = time.monotonic()
        seen = proc.stat(self._process.pid)
        if seen is not None:
            known = Identity(self._process.pid, seen.start, proc.boot_id())
            self._follow(known)
            self._write(known)

    def _write(self, known: Identity) -> None:
        """For the one that comes after us; without it nobody would find, or end, the process."""
        draft = self.record.with_suffix(".new")
        try:
            draft.write_text(json.dumps(asdict(known)))
            draft.rename(self.record)
        except OSError as error:
            self.end()
            raise NoConnection(f"cannot write {draft}: {error.strerror}") from error

    def stands(self) -> bool:
        """Whether forwards can be asked for; False while it is still connecting. Raises NoConnection when it ended."""
        self.check_alive()
        if not self.socket.exists():
            if time.monotonic() - self._started_at > self.options.connect_timeout_s + CONTROL_S:
                self.end()
                raise NoConnection(f"{self.name} did not answer in {self.options.connect_timeout_s:g} s")
            return False
        self._control("check")
        return True

    def check_alive(self) -> None:
        """Raises NoConnection, with the last words of ``ssh``, when it ended. A zombie of ours is let go."""
        if self._process is not None and self._process.poll() is not None:
            code = self._process.returncode
            self._let_go()
            raise NoConnection(self._last_words() or f"ssh ended with code {code}")
        if not proc.lives(self._known):
            self._let_go()
            raise NoConnection(self._last_words() or "its ssh ended")

    def check_answers(self) -> None:
        """The same, and ends one that does not answer on this host: a frozen one answers nobody."""
        self.check_alive()
        self._control("check")

    @property
    def is_stopped(self) -> bool:
        """Whether somebody froze its process."""
        seen = proc.find(self._known) if self._known is not None else None
        return seen is not None and seen.state in "Tt"

    def forward(self, port: int, far: Far) -> None:
        """Listen on ``port`` of loopback for ``far``. Raises NoConnection."""
        self._control("forward", "-L", _forward(port, far))
        if not self.listens_on(port):
            raise NoConnection(f"its ssh does not listen on port {port}")

    def cancel(self, port: int, far: Far) -> None:
        """Listen there no more; what goes through may end. Raises NoConnection."""
        self._control("cancel", "-L", _forward(port, far))

    def listens_on(self, port: int) -> bool:
        """Whether it is this very process that a connection to ``port`` reaches."""
        sockets = Listeners().sockets(LOOPBACK, port)
        return bool(sockets) and self._known is not None and owns_all([self._known.pid], sockets)

    def is_foreign(self, port: int) -> bool:
        """Whether somebody else listens there."""
        return bool(Listeners().sockets(LOOPBACK, port)) and not self.listens_on(port)

    def listening(self) -> set[int]:
        """Its ports of loopback."""
        if self._known is None:
            return set()
        try:
            found = psutil.Process(self._known.pid).net_connections(kind="tcp4")
        except psutil.NoSuchProcess:
            return set()
        return {one.laddr.port for one in found if one.status == psutil.CONN_LISTEN}

    def refused_since(self) -> str:
        """What the other host said since the last call about forwards that it does not allow; empty when nothing."""
        said = self._said(self._read_to)
        self._read_to += len(said)
        if self._read_to > MOST_SAID_BYTES:
            os.truncate(self._words, 0)
            self._read_to = 0
        lines = [line for line in said.decode(errors="replace").splitlines() if _NOT_ALLOWED in line]
        return f"{self.name} does not allow it to be forwarded (AllowTcpForwarding, PermitOpen)" if lines else ""

    def fileno(self) -> int | None:
        """Readable when its process ended."""
        return self._pidfd

    def end(self) -> None:
        """End it with all that goes through it. Safe to call twice."""
        known = self._known or read_record(self.record)
        if known is not None and proc.send(known, signal.SIGTERM):
            deadline = time.monotonic() + 1.0
            while proc.lives(known) and time.monotonic() < deadline:
                if self._pidfd is not None:
                    select.select([self._pidfd], [], [], 0.05)
                else:
                    time.sleep(0.02)
                if self._process is not None:
                    self._process.poll()
            proc.send(known, signal.SIGKILL)
        self._let_go()

    def _follow(self, known: Identity) -> None:
        self._known, self._pidfd = known, proc.open_pidfd(known)

    def _let_go(self) -> None:
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            self._process = None
        if self._pidfd is not None:
            os.close(self._pidfd)
        self._known = self._pidfd = None
        self.record.unlink(missing_ok=True)
        self.socket.unlink(missing_ok=True)

    def _control(self, verb: str, *words: str) -> None:
        # without the user's configuration, whose own forwards would be asked for too
        argv = ["ssh", "-F", "none", "-S", self._path, "-o", "BatchMode=yes", "-O", verb, *words, "--", "there"]
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=CONTROL_S, env=self._environ, check=False
            )
        except subprocess.TimeoutExpired:
            self.end()
            raise NoConnection("its ssh did not answer on this host and was ended") from None
        if done.returncode != 0:
            raise NoConnection(" ".join((done.stdout + done.stderr).decode(errors="replace").split())[-300:])

    def _said(self, start: int) -> bytes:
        try:
            with self._words.open("rb") as words:
                words.seek(start)
                return words.read(MOST_SAID_BYTES)
        except OSError:
            return b""

    def _last_words(self) -> str:
        lines = [line.strip() for line in self._said(0).decode(errors="replace").splitlines() if line.strip()]
        return " ".join(lines[-3:])[-300:]


_NOT_ALLOWED = "open failed: administratively prohibited"


def read_record(path: Path) -> Identity | None:
    """Who keeps the connection of that record; None when there is no such file, or it is not whole."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return Identity.of(found, proc.boot_id()) if isinstance(found, dict) else None


def end_recorded(path: Path) -> None:
    """End the connection of a record that nobody wants any more."""
    known = read_record(path)
    if known is not None:
        proc.send(known, signal.SIGTERM)
    path.unlink(missing_ok=True)
    path.with_suffix("").unlink(missing_ok=True)


def _forward(port: int, far: Far) -> str:
    return f"{LOOPBACK}:{port}:{far}"
