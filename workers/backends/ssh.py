"""Runs engines as processes of another host, reached by SSH: the process backend's own code, sent along, works there.

Each verb is one command over the host's one connection (``workers/transports``): a question in JSON, an answer in JSON.
What is true of the process backend is true there too, for the same files, locks and records say so: a launch that was
cut off in the middle happened or did not, and ``adopt`` finds out. An answer that does not come tells nothing.
"""

from __future__ import annotations

import time
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from app.domain.abilities import SPANS_HOSTS
from app.domain.path_maps import map_path
from workers.backends import wire
from workers.backends.base import (
    LOG_PART_BYTES,
    BackendContext,
    BackendError,
    BackendUnavailable,
    Fingerprint,
    Handle,
    Launch,
    LaunchRefused,
    Liveness,
    LogPart,
    Observation,
)
from workers.backends.bundle import INSTALL, NOT_OURS, NOT_THERE, OLDEST_PYTHON, RUN, make_bundle
from workers.backends.far_clock import FarClock, now_ns
from workers.backends.options import LOG_BYTES_SCHEMA, PATH_MAP_SCHEMA, PATH_SCHEMA, ports_schema
from workers.transports.asked import Asked
from workers.transports.base import Completed, TransportError
from workers.transports.channel import Ended
from workers.transports.options import SSH_SCHEMA, TUNNEL_SCHEMA, SshOptions
from workers.transports.ssh import SshTransport

DEFAULT_FOLDER = "~/.hostler"
DEFAULT_PYTHON = "python3"
#: For the verbs that are given no time of their own.
_SCAN_S = 20.0
#: What is known of the far host's clock is believed for so long: two clocks drift apart.
_CLOCK_S = 60.0


class SshBackend:
    name = "ssh"
    summary = "Processes of another host that is reached by SSH; nothing but Python is needed there."
    host_bound = False
    serves_http = True
    queues = True
    puts_address = True
    lacks = frozenset({SPANS_HOSTS})
    place_options: tuple[str, ...] = ("ssh", "folder", "python")
    options_schema: Mapping[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "required": ["ssh"],
        "properties": {
            "ssh": SSH_SCHEMA,
            "folder": {
                "type": "string",
                "pattern": "^(/|~/).*[^/\n]$(?!\n)",
                "x-admin": True,
                "description": f"Where attempts and our code lie there (0700); {DEFAULT_FOLDER} by default.",
            },
            "python": {
                "type": "string",
                "pattern": "^[^-\n][^\n]*$(?!\n)",
                "x-admin": True,
                "description": "The Python there that runs our code, a path or a name; python3 by default.",
            },
            "address": {
                "type": "string",
                "pattern": r"^[0-9A-Fa-f:.]+$(?!\n)",
                "format": "ip",
                "x-admin": True,
                "description": "IP address on which engines listen there; by default the one that SSH reached.",
            },
            "ports": ports_schema(1),
            "tunnel": TUNNEL_SCHEMA,
            "path_map": PATH_MAP_SCHEMA,
            "path": PATH_SCHEMA,
            "log_bytes": LOG_BYTES_SCHEMA,
        },
    }

    def __init__(self, context: BackendContext) -> None:
        self._context = context
        self._ssh = context.options.get("ssh")
        self._folder = context.options.get("folder", DEFAULT_FOLDER)
        self._python = context.options.get("python", DEFAULT_PYTHON)
        self._transport = SshTransport(SshOptions.of(self._ssh or {"host": "nowhere"}), context.run_dir)
        words = [self._folder, make_bundle().name, self._python]
        self._far = Asked(self._transport, ["/bin/sh", "-c", RUN, "hostler", *words])
        self._clock: FarClock | None = None

    def fingerprint(self, options: Mapping[str, Any], timeout_s: float = 5) -> Fingerprint:
        try:
            seen = wire.fingerprint_of(self._ask("fingerprint", {}, timeout_s))
        except BackendUnavailable as error:
            return Fingerprint(False, str(error), fix=SshOptions.of(self._ssh).trial if self._ssh else "")
        except BackendError as error:
            return Fingerprint(False, str(error))
        return replace(seen, detail=f"{self._transport.name} answers")

    def prepare(self) -> None:
        if self._ssh:
            self._fresh_clock(_SCAN_S)

    def adopt(self, name: str, timeout_s: float = 5) -> Handle | None:
        found = self._ask("adopt", {"name": name}, timeout_s)
        return wire.handle_of(found) if found else None

    def launch(self, launch: Launch, timeout_s: float = 20) -> Handle:
        deadline_ns = now_ns() + int(timeout_s * 1e9)
        clock = self._fresh_clock(timeout_s)
        arguments = {
            "launch": wire.launch_to(_there(launch)),
            "boot_id": clock.boot_id,
            "deadline_ns": clock.there(deadline_ns),
        }
        return wire.handle_of(self._ask("launch", arguments, (deadline_ns - now_ns()) / 1e9))

    def inspect(self, handles: Sequence[Handle], timeout_s: float = 5) -> list[Observation]:
        if not handles:
            return []
        try:
            seen = self._ask("inspect", {"handles": [wire.handle_to(handle) for handle in handles]}, timeout_s)
        except BackendError as error:
            return [Observation(Liveness.UNKNOWN, message=str(error)) for _ in handles]
        return [wire.observation_of(value) for value in seen]

    def stop(self, handle: Handle, *, grace_s: float, force: bool = False, timeout_s: float = 5) -> Observation:
        arguments = {"handle": wire.handle_to(handle), "grace_s": grace_s, "force": force}
        return wire.observation_of(self._ask("stop", arguments, timeout_s))

    def logs(self, handle: Handle, *, tail: int | None = None, timeout_s: float = 5) -> Iterator[str]:
        said = b64decode(self._ask("logs", {"handle": wire.handle_to(handle), "tail": tail}, timeout_s))
        yield from said.decode("utf-8", "replace").split("\n")[:-1]

    def read_log(self, handle: Handle, place: str = "", limit: int = LOG_PART_BYTES, timeout_s: float = 5) -> LogPart:
        arguments = {"handle": wire.handle_to(handle), "place": place, "limit": limit}
        return wire.part_of(self._ask("read_log", arguments, timeout_s))

    def tail_place(self, handle: Handle, lines: int, timeout_s: float = 5) -> str:
        place: str = self._ask("tail_place", {"handle": wire.handle_to(handle), "lines": lines}, timeout_s)
        return place

    def recall(self, name: str) -> Mapping[str, Any] | None:
        found: Mapping[str, Any] | None = self._ask("recall", {"name": name}, _SCAN_S)
        return found

    def close(self, handle: Handle, timeout_s: float = 5) -> None:
        self._ask("close", {"handle": wire.handle_to(handle)}, timeout_s)

    def watch_fd(self, handle: Handle) -> int | None:
        return None

    def list_marked(self, prefix: str) -> list[str]:
        if not self._ssh:
            return []
        found: list[str] = self._ask("list_marked", {"prefix": prefix}, _SCAN_S)
        return found

    def tidy(self, *, dry_run: bool = False) -> list[str]:
        if not self._ssh:
            return []
        found: list[str] = self._ask("tidy", {"dry_run": dry_run}, _SCAN_S)
        return found

    def _ask(self, verb: str, arguments: Mapping[str, Any], timeout_s: float) -> Any:
        """The result of the far end. Raises what it raised, or BackendUnavailable when no whole answer came."""
        if not self._ssh:
            raise BackendError('no host is named: set the pool option ssh, such as {"ssh": {"host": "gpu1"}}')
        question = wire.dump(
            {
                "verb": verb,
                "arguments": arguments,
                "timeout_s": timeout_s,
                "backend": self.name,
                "log_bytes": self._context.log_bytes,
            }
        )
        until = time.monotonic() + timeout_s
        asked_ns = now_ns()
        try:
            try:
                said = self._far.ask(question, timeout_s, may_repeat=verb != "launch")
            except Ended as ended:
                if ended.how.code != NOT_THERE:
                    raise
                self._install(until)
                asked_ns = now_ns()
                said = self._far.ask(question, until - time.monotonic())
        except Ended as ended:
            raise self._refusal(ended.how) from ended
        except TransportError as error:
            raise BackendUnavailable(str(error)) from error
        answer = wire.load(said)
        if "clock" in answer:
            self._clock = FarClock(answer["clock"]["boot_id"], int(answer["clock"]["ns"]), asked_ns, now_ns())
        if "error" in answer:
            raise wire.error_of(answer)
        return answer["result"]

    def _install(self, until: float) -> None:
        """Send our code there. Raises TransportError when it broke off: then nothing of it is used."""
        bundle = make_bundle()
        argv = [self._python, "-I", "-S", "-c", INSTALL, self._folder, bundle.name, bundle.sum]
        done = self._transport.run(argv, stdin=bundle.data, timeout_s=max(0.1, until - time.monotonic()))
        if done.code != 0:
            raise self._refusal(done)
        if done.stdout:
            raise LaunchRefused(_too_old(done.stdout.decode(errors="replace"), self._transport.name))

    def _refusal(self, done: Completed) -> BackendError:
        """What a code means that is not our far end's own."""
        where, said = self._transport.name, done.stderr.decode(errors="replace").strip()[-500:]
        if done.code in (126, 127):
            return LaunchRefused(
                f"there is no {self._python!r} on {where}: install Python {'.'.join(map(str, OLDEST_PYTHON))} or newer "
                f"there, or name one in the pool option python"
            )
        if done.code == NOT_OURS:
            return LaunchRefused(f"{self._folder} on {where} belongs to another user; set the pool option folder")
        return BackendUnavailable(f"our code on {where} ended with code {done.code}: {said or 'it said nothing'}")

    def _fresh_clock(self, timeout_s: float) -> FarClock:
        if self._clock is None or self._clock.age_s > _CLOCK_S:
            self._ask("hello", {}, timeout_s)
        assert self._clock is not None
        return self._clock


def _there(launch: Launch) -> Launch:
    """The same with the paths of the far host, and without what only we need to know."""
    known = launch.options.get("path_map", {})
    far_options = {name: launch.options[name] for name in _FAR_OPTIONS if name in launch.options}
    return replace(
        launch,
        argv=tuple(map_path(item, known) for item in launch.argv),
        env={name: map_path(value, known) for name, value in launch.env.items()},
        options=far_options,
    )


_FAR_OPTIONS = ("address", "ports", "tunnel", "path", "log_bytes")


def _too_old(version: str, where: str) -> str:
    oldest = ".".join(map(str, OLDEST_PYTHON))
    return f"Python on {where} is {version} and must be at least {oldest}: name another one in the pool option python"
