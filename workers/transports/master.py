"""The one connection to a host, kept by OpenSSH itself and used by all processes of this stack on this node.

It is an ``ssh`` in the background that listens on a socket in the stack's run dir (``ControlMaster``). It belongs to no
process of ours: it ends by itself when nobody has used it for ``IDLE_S``, and `hostler down` ends it at once. Each is
started under a name of its own and then renamed to the one that everybody uses, so that two that are started at one
instant, or one whose starter was killed, do no harm: the unused one ends as an idle one does.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from workers.transports.base import TransportError
from workers.transports.local import end_group, passed_on
from workers.transports.options import SshOptions

IDLE_S = 60
#: A host that does not answer is not asked again for as long as this; twice as long after each further try.
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0
#: A Unix socket's path has 107 bytes, and ssh adds 17 while it makes one.
SOCKET_PATH_BYTES = 90
#: A connection over which nothing came for this long is dead.
_ALIVE_INTERVAL_S, _ALIVE_COUNT = 5, 3
_LOOK_S = 0.02
_STATE = "HOSTLER_STATE_DIR"
#: Weaker than this no configuration makes it: a host whose key changed is never spoken to.
_STRICT_ENOUGH = {"true", "yes", "ask", "accept-new"}
#: Where keys are lost as soon as they are learnt: then each key would be a new one.
_REMEMBERS_NOTHING = {"/dev/null", "none"}
_KNOWN_HOSTS = "~/.ssh/known_hosts"
#: ssh's words of a key that is another one than it knows: for which name, and where that is.
_CHANGED_KEY = re.compile(r"^Host key for (\S+) has changed\b", re.MULTILINE)
_OLD_KEY = re.compile(r"^Offending .* key in (/.*):[0-9]+\s*$", re.MULTILINE)


class Master:
    """Finds the connection, makes it, ends it. Holds nothing but paths, so it may be used after a fork."""

    def __init__(self, options: SshOptions, run_dir: Path) -> None:
        self.options = options
        mark = hashlib.sha256(json.dumps([options.host, options.config]).encode()).hexdigest()[:10]
        self.socket = run_dir / f"ssh-{mark}"
        self._lock = run_dir / f"ssh-{mark}.lock"
        self._failed = run_dir / f"ssh-{mark}.failed"

    def ensure(self, deadline: float) -> None:
        """A connection stands when this returns. ``deadline`` is of ``time.monotonic``.

        Raises TransportError with ssh's own words; at once while a host that failed is left in peace.
        """
        if self.answers():
            return
        self._refuse_early()
        lock = self._take_lock(deadline)
        try:
            if not self.answers():
                self._refuse_early()
                self._start(deadline)
        finally:
            if lock is not None:
                os.close(lock)

    def answers(self) -> bool:
        """Whether somebody listens on the socket."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            try:
                probe.connect(str(self.socket))
            except OSError as error:
                return error.errno == errno.EAGAIN  # it has more callers than it can greet
        return True

    def command(self, *words: str, no_way: str = "no connection") -> list[str]:
        """An ``ssh`` that goes through the connection or nowhere: without it, it says ``no_way`` and ends with 255."""
        # its stdout must stay open until the word is out, for ssh ends when it closes
        instead = f'ProxyCommand=/bin/sh -c "echo {no_way} 1>&2"'
        return [
            "ssh", "-F", "none", "-T", "-S", str(self.socket), "-o", "ControlMaster=no", "-o", instead,
            "-o", "LogLevel=ERROR", "-o", "BatchMode=yes", *words,
        ]  # fmt: skip

    def drop(self) -> None:
        """Let nobody use this connection any more; what is under way on it may end. A frozen one is killed."""
        pids = masters(self.socket)
        self.socket.unlink(missing_ok=True)
        for pid in pids:
            if _is_stopped(pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _take_lock(self, deadline: float) -> int | None:
        """So that many that need it make one. None when its holder is frozen: harmless, see above."""
        patience = time.monotonic() + max(0.0, deadline - time.monotonic()) / 2
        try:
            lock = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise TransportError(f"cannot write in {self._lock.parent}: {error.strerror}") from error
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if self.answers() or time.monotonic() > patience:
                    os.close(lock)
                    return None
                time.sleep(_LOOK_S)
            else:
                return lock

    def _start(self, deadline: float) -> None:
        path = f"{self.socket}.{uuid4().hex[:8]}"
        if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
            raise TransportError(f"{path} is too long for a socket; set XDG_RUNTIME_DIR to a short path")
        begun = time.monotonic()
        limit_s = min(deadline - begun, self.options.connect_timeout_s)
        argv = self.argv(
            path, limit_s, "-f", ControlPersist=IDLE_S, LogLevel="ERROR",
            ServerAliveInterval=_ALIVE_INTERVAL_S, ServerAliveCountMax=_ALIVE_COUNT,
        )  # fmt: skip
        code, said = _run(argv, limit_s - (time.monotonic() - begun))
        if code == 0:
            with suppress(FileNotFoundError):
                os.rename(path, self.socket)
                self._failed.unlink(missing_ok=True)
                return
        Path(path).unlink(missing_ok=True)
        self._fail(said or ("it did not answer in time" if code is None else f"ssh ended with code {code}"))

    def argv(self, path: str, timeout_s: float, *flags: str, **more: object) -> list[str]:
        """An ``ssh`` that carries commands or forwards for whoever comes to the socket ``path``, and does nothing else.

        ``more`` are options of ssh_config. Raises TransportError when the user's own cannot be read within the time.
        """
        options = {
            "BatchMode": "yes", "ConnectTimeout": max(1, round(self.options.connect_timeout_s)),
            **self._host_keys(timeout_s), "ClearAllForwardings": "yes", "ForwardAgent": "no", "ForwardX11": "no",
            "PermitLocalCommand": "no", "RemoteCommand": "none", "RequestTTY": "no", "EscapeChar": "none", **more,
        }  # fmt: skip
        said = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return ["ssh", *self._config(), "-M", "-N", "-T", "-S", path, *flags, *said, "--", self.options.host]

    def _host_keys(self, timeout_s: float) -> dict[str, str]:
        """What the user's own configuration says of host keys, unless that would let anybody in."""
        code, said = _run(["ssh", *self._config(), "-G", "--", self.options.host], timeout_s, with_stdout=True)
        if code != 0:
            self._fail(said or "its configuration cannot be read")
        values = dict(line.partition(" ")[::2] for line in said.splitlines())
        found = values.get("stricthostkeychecking", "ask")
        strict = {"true": "yes"}.get(found, found) if found in _STRICT_ENOUGH else "accept-new"
        options = {"StrictHostKeyChecking": strict, "NoHostAuthenticationForLocalhost": "no"}
        if set(values.get("userknownhostsfile", "").split()) <= _REMEMBERS_NOTHING:
            options["UserKnownHostsFile"] = _KNOWN_HOSTS
        return options

    def _config(self) -> list[str]:
        return ["-F", self.options.config] if self.options.config else []

    def _refuse_early(self) -> None:
        failed = self._last_failure()
        left = failed.get("until", 0) - time.clock_gettime(time.CLOCK_BOOTTIME)
        if 0 < left <= LONGEST_WAIT_S:
            # no countdown: these words are kept where they would go on saying it
            raise TransportError(str(failed["why"]))

    def _fail(self, said: str) -> None:
        """Remember it for all processes of this node, and tell it."""
        words = " ".join(said.splitlines()[-2:])[-600:].rstrip(".")
        why = f"{self.options.host} cannot be reached: {words}{_next_step(said, self.options)}"
        wait_s = min(LONGEST_WAIT_S, max(FIRST_WAIT_S, 2 * self._last_failure().get("wait_s", 0)))
        record = {"until": time.clock_gettime(time.CLOCK_BOOTTIME) + wait_s, "wait_s": wait_s, "why": why}
        with suppress(OSError):  # a full disk: then it is tried again at once
            draft = self._failed.with_suffix(f".{uuid4().hex[:8]}")
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                json.dump(record, file)
            draft.rename(self._failed)
        raise TransportError(why)

    def _last_failure(self) -> dict[str, Any]:
        try:
            found = json.loads(self._failed.read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def masters(socket_path: Path) -> list[int]:
    """Processes that keep, or are about to keep, the connection of that socket."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                # only masters are given a path with something after it
                if os.fsencode(socket_path) + b"." in Path("/proc", name, "cmdline").read_bytes():
                    found.append(int(name))
    return found


def ssh_environ() -> dict[str, str]:
    """For ssh: the user's agent and tickets, nobody to ask, and a shell whose words we know."""
    more = {name: os.environ[name] for name in ("SSH_AUTH_SOCK", _STATE) if name in os.environ}
    if _STATE in more:
        more["HOSTLER_ROLE"] = "ssh"  # so that `hostler down` finds it and `status` shows it
    return passed_on() | more | {"SHELL": "/bin/sh", "SSH_ASKPASS_REQUIRE": "never"}


def _run(argv: list[str], timeout_s: float, *, with_stdout: bool = False) -> tuple[int | None, str]:
    """Its code, None when it had to be ended, and what it said. Waits for nobody that it leaves in the background."""
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=said if with_stdout else subprocess.DEVNULL, stderr=said,
                env=ssh_environ(), start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise TransportError(f"cannot run ssh ({error.strerror}); install openssh-client") from error
        code: int | None = None
        with suppress(subprocess.TimeoutExpired):
            code = process.wait(max(0.05, timeout_s))
        if code is None:
            end_group(process)
        said.seek(0)
        return code, said.read(65536).decode(errors="replace").strip()


def _next_step(said: str, options: SshOptions) -> str:
    config = f"-F {shlex.quote(options.config)} " if options.config else ""
    if "Host key verification failed" in said:
        # also where the configuration would refuse what is new; it is a person who answers
        login = f"log in once by hand: ssh {config}-o StrictHostKeyChecking=ask {options.host}"
        if changed := _CHANGED_KEY.search(said):
            forget = _forget(changed[1], said)
            return f"; once its owner confirms the new key, forget the old one: {forget}; then {login}"
        return f"; compare its key with what its owner says, then {login}"
    if "Permission denied" in said:
        return f"; this must work without a question as the worker's user: ssh -o BatchMode=yes {config}{options.host}"
    return ""


def _forget(known_as: str, said: str) -> str:
    """What removes the key that is known of a host; ssh tells its name there, with the port, and the file."""
    found = _OLD_KEY.search(said)
    default = os.path.expanduser(_KNOWN_HOSTS)
    file = f" -f {shlex.quote(found[1])}" if found and found[1] != default else ""
    return f"ssh-keygen -R {shlex.quote(known_as)}{file}"


def _is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    except OSError:
        return False
