"""The far end of the ssh backend: questions on stdin, answers on stdout, one a line; only engines stay behind.

It runs on the host behind SSH, out of what ``bundle.py`` sent there, without any package but Python's own, and is the
process backend with three things added: it finds a port and an address for the engine, it believes no clock but its
own, and it ends by itself when it hangs or nobody asks any more.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.domain.placeholders import HOST_LATER, PORT_LATER, put_address
from workers.backends import wire
from workers.backends.attempt_folder import STALE_S, half_made
from workers.backends.base import BackendContext, BackendError, BackendUnavailable, Handle, Launch
from workers.backends.free_port import Ports
from workers.backends.options import DEFAULT_PORTS
from workers.backends.proc import boot_id
from workers.backends.process import ProcessBackend

#: Lines of a log are given up to this size, the newest.
MOST_LINES_BYTES = 8 * 1024 * 1024
#: Longer than a caller goes on with one that it has.
IDLE_S = 5
#: Code of other versions that was not asked for so long is removed.
UNUSED_S = 30 * 24 * 3600.0
#: A call that hangs (a dead file server) is ended this much after its caller gave up.
_HUNG_S = 30


def main(folder: str) -> None:
    os.umask(0o077)
    # whoever asked may be gone; what was begun is finished
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for line in _questions():
        question = wire.load(line)
        signal.alarm(int(question["timeout_s"]) + _HUNG_S)
        os.write(1, _answer(folder, question) + b"\n")
        signal.alarm(0)


def _questions() -> Iterator[bytes]:
    """Whole lines only: a question that broke off is none."""
    read = bytearray()
    while select.select([0], [], [], IDLE_S)[0] and (part := os.read(0, 65536)):
        begun = len(read)
        read += part
        while (end := read.find(b"\n", begun)) >= 0:
            yield bytes(read[:end])
            del read[: end + 1]
            begun = 0


def _answer(folder: str, question: Mapping[str, Any]) -> bytes:
    try:
        answer = {"result": _FarEnd(Path(folder), question).answer()}
    except BackendError as error:
        answer = wire.error_to(error)
    except OSError as error:
        answer = wire.error_to(BackendUnavailable(f"{error.strerror}: {error.filename}"))
    answer["clock"] = {"boot_id": boot_id(), "ns": time.clock_gettime_ns(time.CLOCK_BOOTTIME)}
    return wire.dump(answer)


class _FarEnd:
    """One question."""

    def __init__(self, folder: Path, question: Mapping[str, Any]) -> None:
        self.folder = folder
        self.question = question
        self.arguments: Mapping[str, Any] = question["arguments"]
        self.timeout_s = float(question["timeout_s"])
        self.backend = ProcessBackend(BackendContext(state_dir=folder, log_bytes=question["log_bytes"]))
        # handles of either end are of either's name
        self.backend.name = question["backend"]

    def answer(self) -> Any:
        verbs: dict[str, Callable[[], Any]] = {
            "hello": lambda: None,
            "fingerprint": lambda: wire.fingerprint_to(self.backend.fingerprint({})),
            "adopt": self._adopt,
            "launch": self._launch,
            "inspect": self._inspect,
            "stop": self._stop,
            "logs": self._logs,
            "read_log": self._read_log,
            "tail_place": lambda: self.backend.tail_place(self._handle(), self.arguments["lines"]),
            "recall": lambda: self.backend.recall(self.arguments["name"]),
            "close": lambda: self.backend.close(self._handle()),
            "list_marked": lambda: self.backend.list_marked(self.arguments["prefix"]),
            "tidy": self._tidy,
        }
        return verbs[self.question["verb"]]()

    def _adopt(self) -> Any:
        found = self.backend.adopt(self.arguments["name"], self.timeout_s)
        return wire.handle_to(found) if found else None

    def _launch(self) -> Any:
        if self.arguments["boot_id"] != boot_id():
            raise BackendUnavailable("this host was restarted while the launch was on its way; nothing was started")
        launch = wire.launch_of(self.arguments["launch"])
        deadline_ns = int(self.arguments["deadline_ns"])
        if not _wants_address(launch):
            return wire.handle_to(self.backend.launch(launch, _left_s(deadline_ns, launch)))
        first, last = launch.options.get("ports", DEFAULT_PORTS)
        host = _address(launch.options)
        with Ports(self.folder, first, last, deadline_ns) as ports:
            launch = _at(launch, host, ports.free(host))
            return wire.handle_to(self.backend.launch(launch, _left_s(deadline_ns, launch)))

    def _inspect(self) -> Any:
        handles = [wire.handle_of(value) for value in self.arguments["handles"]]
        return [wire.observation_to(seen) for seen in self.backend.inspect(handles, self.timeout_s)]

    def _stop(self) -> Any:
        grace_s, force = self.arguments["grace_s"], self.arguments["force"]
        return wire.observation_to(self.backend.stop(self._handle(), grace_s=grace_s, force=force))

    def _logs(self) -> Any:
        lines = self.backend.logs(self._handle(), tail=self.arguments["tail"])
        said = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
        kept = said[-MOST_LINES_BYTES:]
        if len(kept) < len(said):
            kept = kept[kept.find(b"\n") + 1 :]
        return b64encode(kept).decode()

    def _read_log(self) -> Any:
        limit = min(self.arguments["limit"], MOST_LINES_BYTES)
        return wire.part_to(self.backend.read_log(self._handle(), self.arguments["place"], limit))

    def _tidy(self) -> Any:
        dry_run = self.arguments["dry_run"]
        now, own = time.time(), Path(sys.path[0])
        os.utime(own)
        # uploads that broke off, and what older versions sent and nobody asks any more
        found = half_made(self.folder, older_than=now - STALE_S)
        found += [one for one in self.folder.glob("code-*") if one != own and one.stat().st_mtime < now - UNUSED_S]
        for path in found if not dry_run else []:
            shutil.rmtree(path, ignore_errors=True)
        return sorted(path.name for path in found) + self.backend.tidy(dry_run=dry_run)

    def _handle(self) -> Handle:
        return wire.handle_of(self.arguments["handle"])


def _wants_address(launch: Launch) -> bool:
    said = (*launch.argv, *launch.env.values(), *launch.files.values())
    return launch.port is None and any(HOST_LATER in item or PORT_LATER in item for item in said)


def _address(options: Mapping[str, Any]) -> str:
    """Where engines listen: as the pool says, else this end of a tunnel, else where this host was just reached."""
    if "address" in options:
        return str(options["address"])
    if options.get("tunnel"):
        return "127.0.0.1"
    # CLIENT PORT SERVER PORT, set by sshd
    reached = os.environ.get("SSH_CONNECTION", "").split()
    if len(reached) != 4:
        raise BackendError("this host does not say at which address it was reached; set the pool option address")
    return reached[2].removeprefix("::ffff:")


def _at(launch: Launch, host: str, port: int) -> Launch:
    """The same, with its address."""
    return replace(
        launch,
        host=host,
        port=port,
        argv=tuple(put_address(item, host, port) for item in launch.argv),
        env={name: put_address(value, host, port) for name, value in launch.env.items()},
        files={name: put_address(value, host, port) for name, value in launch.files.items()},
    )


def _left_s(deadline_ns: int, launch: Launch) -> float:
    left_s = (deadline_ns - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) / 1e9
    if left_s <= 0:
        raise BackendUnavailable(f"the launch of {launch.name} came too late; nothing was started")
    return left_s
