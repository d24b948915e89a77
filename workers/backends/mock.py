"""Nothing runs, everything can be told to go wrong: for rehearsing release pipelines, and for our own tests.

The world is the folder ``<state>/mock``: ``NAME.json`` says that an attempt was launched (made whole by one ``link``,
so exactly one launcher wins), ``NAME.stop`` and ``NAME.kill`` when it was asked to end. What the handle holds is not
read again, so that looking at thousands costs one listing of the folder.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.domain.abilities import RUNS_ARGV, SPANS_HOSTS
from workers.backends.base import (
    LOG_PART_BYTES,
    AlreadyLaunched,
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
from workers.backends.mock_options import OPTIONS_SCHEMA
from workers.backends.mock_timeline import (
    Life,
    fails,
    is_unreachable,
    log_lines,
    log_part,
    observe,
    tail_place,
)

#: From so many handles on, one listing of the folder is cheaper than a look per handle.
_LIST_FROM = 64
#: A draft that was not given its name for so long was left by a process that was killed.
STALE_S = 600.0
_NO_TRACE = "was never launched, or its record was removed"


class MockBackend:
    name = "mock"
    summary = "Runs nothing: delays, failures and flapping health as told, the same for the same seed."
    host_bound = False
    serves_http = False
    queues = False
    puts_address = False
    lacks = frozenset({RUNS_ARGV, SPANS_HOSTS})
    place_options: tuple[str, ...] = ()
    options_schema: Mapping[str, Any] = OPTIONS_SCHEMA

    def __init__(self, context: BackendContext) -> None:
        self._world = context.state_dir / "mock"

    def fingerprint(self, options: Mapping[str, Any], timeout_s: float = 5) -> Fingerprint:
        if options.get("fail_fingerprint"):
            return Fingerprint(False, "the mock does not answer, as told")
        return Fingerprint(True, "nothing runs here", {"gpus": [], "cpus": 0, "memory_bytes": 0})

    def prepare(self) -> None:
        return

    def adopt(self, name: str, timeout_s: float = 5) -> Handle | None:
        record = self._read(name, "json")
        if record is None or record.get("sealed") or record["options"].get("lose_handle") == Liveness.ABSENT:
            return None
        return Handle(self.name, name, record)

    def launch(self, launch: Launch, timeout_s: float = 20) -> Handle:
        deadline = _uptime_s() + timeout_s
        self._refuse_taken(launch.name)
        self._delay(launch.options.get("launch_delay_s", 0), timeout_s)
        self._fail_launch(launch)
        if _uptime_s() > deadline:
            raise BackendUnavailable(f"the launch of {launch.name} took too long; nothing was started")
        record = {"launched_at": time.time(), "options": dict(launch.options)}
        if not self._create(launch.name, "json", record):
            self._refuse_taken(launch.name)
            raise BackendUnavailable(f"{launch.name} was launched and forgotten meanwhile; nothing was started")
        return Handle(self.name, launch.name, record)

    def inspect(self, handles: Sequence[Handle], timeout_s: float = 5) -> list[Observation]:
        now = time.time()
        present = self._listing() if len(handles) >= _LIST_FROM else None
        return [self._observe(handle, present, now) for handle in handles]

    def stop(self, handle: Handle, *, grace_s: float, force: bool = False, timeout_s: float = 5) -> Observation:
        life, now = self._life(handle, None), time.time()
        # a launcher that is still on its way must find the name taken, or else be found itself
        if life is None and self._create(handle.name, "json", {"launched_at": now, "options": {}, "sealed": True}):
            return Observation(Liveness.ABSENT, message=_NO_TRACE)
        life = life or self._life(handle, None)
        if life is None or life.sealed:
            return self._observe(handle, None, now)
        if is_unreachable(life, now):
            raise BackendUnavailable("the mock cannot be asked, as told")
        if self._counts_down(life.options, "stop", handle.name) or fails(life.options, "stop", handle.name):
            raise BackendError("the mock failed to stop it, as told")
        self._create(handle.name, "stop", {"at": now})
        asked_at = (self._read(handle.name, "stop") or {"at": now})["at"]
        if force or now >= asked_at + grace_s:
            self._create(handle.name, "kill", {"at": now})
        return self._observe(handle, None, now)

    def logs(self, handle: Handle, *, tail: int | None = None, timeout_s: float = 5) -> Iterator[str]:
        life = self._life(handle, None)
        lines = log_lines(life, time.time()) if life else []
        return iter(lines[max(0, len(lines) - tail) :] if tail is not None else lines)

    def read_log(self, handle: Handle, place: str = "", limit: int = LOG_PART_BYTES, timeout_s: float = 5) -> LogPart:
        life, now = self._life(handle, None), time.time()
        if life is not None and is_unreachable(life, now):
            raise BackendUnavailable("the mock cannot be asked, as told")
        return log_part(life, now, place, limit) if life else LogPart(b"", place)

    def tail_place(self, handle: Handle, lines: int, timeout_s: float = 5) -> str:
        life, now = self._life(handle, None), time.time()
        if life is not None and is_unreachable(life, now):
            raise BackendUnavailable("the mock cannot be asked, as told")
        return tail_place(life, now, lines) if life else ""

    def recall(self, name: str) -> Mapping[str, Any] | None:
        # nothing runs that would be worth adopting
        return None

    def close(self, handle: Handle, timeout_s: float = 5) -> None:
        seen = self._observe(handle, None, time.time())
        if not seen.liveness.gone:
            raise BackendError(f"{handle.name} is not gone ({seen.message or seen.liveness}); stop it first")
        options = (self._read(handle.name, "json") or {}).get("options", {})
        counted = [f"{verb}-{number}" for verb in ("inspect", "stop") for number in range(_count(options, verb))]
        # the record last: while it is there the name is taken
        for kind in ("stop", "kill", *counted, "json"):
            self._path(handle.name, kind).unlink(missing_ok=True)

    def watch_fd(self, handle: Handle) -> int | None:
        return None

    def list_marked(self, prefix: str) -> list[str]:
        return sorted(
            name.removesuffix(".json") for name in self._listing() if name.startswith(prefix) and name.endswith(".json")
        )

    def tidy(self, *, dry_run: bool = False) -> list[str]:
        old = time.time() - STALE_S
        drafts = [self._world / name for name in self._listing() if name.startswith(".")]
        found = [path for path in drafts if path.exists() and path.stat().st_mtime < old]
        for path in found if not dry_run else []:
            path.unlink(missing_ok=True)
        return sorted(path.name for path in found)

    def _observe(self, handle: Handle, present: Container[str] | None, now: float) -> Observation:
        try:
            life = self._life(handle, present)
            if life is None:
                return Observation(Liveness.ABSENT, message=_NO_TRACE)
            if self._counts_down(life.options, "inspect", handle.name):
                return Observation(Liveness.UNKNOWN, message="the mock failed to look, as told")
            return observe(life, now)
        except (OSError, BackendError, ValueError, KeyError) as error:
            return Observation(Liveness.UNKNOWN, message=f"cannot be seen: {error}")

    def _life(self, handle: Handle, present: Container[str] | None) -> Life | None:
        """What is known of it; ``present`` spares a look at the disk for each of its files."""
        name = handle.name
        if present is not None and f"{name}.json" not in present:
            return None
        record: Mapping[str, Any] | None = handle.ref
        if not _is_record(handle.ref) or (present is None and not self._path(name, "json").exists()):
            record = self._read(name, "json")
        if record is None:
            return None
        asked = self._read(name, "stop") if present is None or f"{name}.stop" in present else None
        killed = self._read(name, "kill") if present is None or f"{name}.kill" in present else None
        return Life(
            name=name,
            launched_at=record["launched_at"],
            options=record["options"],
            asked_at=asked["at"] if asked else None,
            killed_at=killed["at"] if killed else None,
            sealed=bool(record.get("sealed")),
        )

    def _refuse_taken(self, name: str) -> None:
        record = self._read(name, "json")
        if record is not None and record.get("sealed"):
            raise LaunchRefused(f"{name} was stopped before it was launched; nothing was started")
        if record is not None:
            raise AlreadyLaunched(f"{name} was launched before; adopt it")

    def _delay(self, wanted_s: float, timeout_s: float) -> None:
        time.sleep(min(wanted_s, timeout_s))
        if wanted_s > timeout_s:
            raise BackendUnavailable(f"the mock did not answer within {timeout_s:g} s, as told")

    def _fail_launch(self, launch: Launch) -> None:
        # counted per replica, so that "fails twice, then works" holds over its attempts
        if self._counts_down(launch.options, "launch", launch.replica_id) or fails(
            launch.options, "launch", launch.name
        ):
            kind = BackendUnavailable if launch.options.get("fail_retryable") else LaunchRefused
            raise kind("the mock refused the launch, as told")

    def _counts_down(self, options: Mapping[str, Any], verb: str, name: str) -> bool:
        """Whether ``fail_<verb>`` is a count of failures that is not used up; uses up one."""
        return any(self._create(name, f"{verb}-{number}", {}) for number in range(_count(options, verb)))

    def _listing(self) -> set[str]:
        try:
            return set(os.listdir(self._world))
        except FileNotFoundError:
            return set()

    def _path(self, name: str, kind: str) -> Path:
        if "/" in name or name.startswith("."):
            raise BackendError(f"{name!r} is not the name of an attempt")
        return self._world / f"{name}.{kind}"

    def _read(self, name: str, kind: str) -> dict[str, Any] | None:
        try:
            return json.loads(self._path(name, kind).read_bytes())
        except FileNotFoundError:
            return None

    def _create(self, name: str, kind: str, value: Mapping[str, Any]) -> bool:
        """Write a file as a whole, unless there is one: then False. 0600."""
        path = self._path(name, kind)
        self._world.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft, draft_path = tempfile.mkstemp(prefix=".", dir=self._world)
        try:
            with os.fdopen(draft, "w", encoding="utf-8") as file:
                json.dump(value, file)
            os.link(draft_path, path)
        except FileExistsError:
            return False
        finally:
            with suppress(FileNotFoundError):
                os.unlink(draft_path)
        return True


def _is_record(ref: Mapping[str, Any]) -> bool:
    return isinstance(ref.get("launched_at"), (int, float)) and isinstance(ref.get("options"), Mapping)


def _count(options: Mapping[str, Any], verb: str) -> int:
    wish = options.get(f"fail_{verb}", 0)
    return wish if isinstance(wish, int) and not isinstance(wish, bool) else 0


def _uptime_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
