"""Runs engines as processes of this host, each under a shim of its own (``shim.py``). Pitfalls 11, 26, 27 and 31."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from workers.backends import attempt_folder, hardware, stopping
from workers.backends.attempt_folder import AttemptFolder
from workers.backends.base import (
    LOG_PART_BYTES,
    BackendContext,
    BackendError,
    Fingerprint,
    Handle,
    Launch,
    Liveness,
    LogPart,
    Observation,
)
from workers.backends.launching import launch_process
from workers.backends.observing import Look, identity
from workers.backends.options import DEFAULT_PATH, LOG_BYTES_SCHEMA, PATH_SCHEMA
from workers.backends.output import read_output, read_part, tail_place
from workers.backends.proc import Identity, Table, boot_id, lives, open_pidfd
from workers.backends.shims import Shims

#: New shims that one look may start, so that it stays short.
TENDED_AT_ONCE = 8


class ProcessBackend:
    name = "process"
    summary = "Processes of the worker's own host, each under a small shim."
    host_bound = True
    serves_http = True
    queues = False
    puts_address = False
    lacks: frozenset[str] = frozenset()
    place_options: tuple[str, ...] = ()
    options_schema: Mapping[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "path": PATH_SCHEMA,
            "log_bytes": LOG_BYTES_SCHEMA,
        },
    }

    def __init__(self, context: BackendContext) -> None:
        self._context = context
        self._attempts = context.state_dir / "attempts"
        self._shims = Shims(self._attempts)

    def fingerprint(self, options: Mapping[str, Any], timeout_s: float = 5) -> Fingerprint:
        return Fingerprint(True, "this host answers", hardware.describe(self._context.node_gpus))

    def prepare(self) -> None:
        self._shims.prepare()

    def adopt(self, name: str, timeout_s: float = 5) -> Handle | None:
        folder = self._folder(name)
        return self._handle(name, folder) if folder.exists() and not folder.is_sealed() else None

    def launch(self, launch: Launch, timeout_s: float = 20) -> Handle:
        launch_process(
            self._attempts,
            self._shims,
            launch,
            log_bytes=launch.options.get("log_bytes", self._context.log_bytes),
            path=launch.options.get("path", DEFAULT_PATH),
            timeout_s=timeout_s,
        )
        return self._handle(launch.name, self._folder(launch.name))

    def inspect(self, handles: Sequence[Handle], timeout_s: float = 5) -> list[Observation]:
        look = Look()
        seen = [self._observe(handle, look) for handle in handles]
        running = (handle for handle, item in zip(handles, seen, strict=True) if item.liveness is Liveness.RUNNING)
        untended = (handle for handle in running if not self._is_tended(handle))
        for handle in islice(untended, TENDED_AT_ONCE):
            self._tend(handle)
        return seen

    def stop(self, handle: Handle, *, grace_s: float, force: bool = False, timeout_s: float = 5) -> Observation:
        folder = self._folder(handle.name)
        seen = self._observe(handle, Look())
        try:
            if seen.liveness is Liveness.ABSENT and not folder.seal():
                seen = self._observe(handle, Look())
            if seen.liveness.gone:
                return seen
            engine = identity(folder, handle.ref)
            if force or stopping.ask(folder, time.clock_gettime(time.CLOCK_BOOTTIME)) >= grace_s:
                stopping.kill(handle.name, folder, engine)
            else:
                stopping.terminate(handle.name, folder, engine)
        except OSError as error:
            raise BackendError(f"cannot stop {handle.name}: {error.strerror} ({error.filename}); use force") from error
        return self._observe(handle, Look())

    def logs(self, handle: Handle, *, tail: int | None = None, timeout_s: float = 5) -> Iterator[str]:
        return read_output(self._folder(handle.name).path, tail)

    def read_log(self, handle: Handle, place: str = "", limit: int = LOG_PART_BYTES, timeout_s: float = 5) -> LogPart:
        try:
            return read_part(self._folder(handle.name).path, place, limit)
        except OSError as error:
            raise BackendError(f"cannot read what {handle.name} wrote: {error.strerror} ({error.filename})") from error

    def tail_place(self, handle: Handle, lines: int, timeout_s: float = 5) -> str:
        try:
            return tail_place(self._folder(handle.name).path, lines)
        except OSError as error:
            raise BackendError(f"cannot read what {handle.name} wrote: {error.strerror} ({error.filename})") from error

    def recall(self, name: str) -> Mapping[str, Any] | None:
        return (self._folder(name).read("launch.json") or {}).get("record")

    def close(self, handle: Handle, timeout_s: float = 5) -> None:
        seen = self._observe(handle, Look())
        if not seen.liveness.gone:
            raise BackendError(f"{handle.name} is not gone ({seen.message or seen.liveness}); stop it first")
        if self._folder(handle.name).exists():
            self._folder(handle.name).remove()

    def watch_fd(self, handle: Handle) -> int | None:
        engine = identity(self._folder(handle.name), handle.ref)
        return open_pidfd(engine) if engine else None

    def list_marked(self, prefix: str) -> list[str]:
        found = {name for name in attempt_folder.names(self._attempts) if name.startswith(prefix)}
        return sorted(found | set(Table().marked(prefix)))

    def tidy(self, *, dry_run: bool = False) -> list[str]:
        return attempt_folder.tidy(self._attempts, dry_run=dry_run)

    def _folder(self, name: str) -> AttemptFolder:
        if "/" in name or name.startswith("."):
            raise BackendError(f"{name!r} is not the name of an attempt")
        return AttemptFolder(self._attempts / name)

    def _handle(self, name: str, folder: AttemptFolder) -> Handle:
        known, engine = folder.read("launch.json") or {}, folder.read("engine.json") or {}
        ref: dict[str, Any] = {field: known[field] for field in ("host", "port") if field in known}
        if engine:
            ref |= engine | {"boot_id": known.get("boot_id", boot_id())}
        return Handle(self.name, name, ref)

    def _observe(self, handle: Handle, look: Look) -> Observation:
        try:
            return look.observe(handle.name, self._folder(handle.name), handle.ref)
        except (OSError, BackendError) as error:
            return Observation(Liveness.UNKNOWN, message=f"cannot be seen: {error}")

    def _is_tended(self, handle: Handle) -> bool:
        folder = self._folder(handle.name)
        try:
            return lives(Identity.of(folder.read("shim.json"), boot_id())) or not folder.exists()
        except OSError:
            return True  # a folder we may not read is tended by whom it belongs to

    def _tend(self, handle: Handle) -> None:
        """An engine whose shim was killed blocks once its output fills the FIFO: give it another one."""
        folder = self._folder(handle.name)
        engine = identity(folder, handle.ref)
        log_bytes = (folder.read("launch.json") or {}).get("log_bytes", self._context.log_bytes)
        if engine is not None:
            with suppress(OSError):  # the next look tries again; that it runs is so in any case
                self._shims.tend(folder.path, log_bytes, engine.pid, engine.start)
