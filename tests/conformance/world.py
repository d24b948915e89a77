"""What every test of a backend needs: launches by behaviour, waiting, counting starts, and leaving nothing behind."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from app.domain.abilities import RUNS_ARGV, RUNS_BARE
from tests.support.embedded import wait_until
from workers.backends.base import LOG_PART_BYTES, Backend, Handle, Launch, LaunchRefused, Liveness, Observation

SPECIMEN = Path(__file__).with_name("specimen.py")
WAIT_S = 10

#: The same behaviour for a backend that runs nothing, by its options.
_WITHOUT_ARGV: dict[str, Mapping[str, Any]] = {
    "idle": {},
    "end 0": {"exit_after_s": 0, "exit_code": 0},
    "end 3": {"exit_after_s": 0, "exit_code": 3},
    "stubborn": {"stop_delay_s": 3600},
}
#: Variables that a container has of itself.
_OF_CONTAINERS = frozenset({"HOSTNAME", "TERM", "container", "NVIDIA_VISIBLE_DEVICES"})


class World:
    """One backend in a state dir of its own."""

    def __init__(self, backend: Backend, folder: Path, options: Mapping[str, Any] | None = None) -> None:
        self.backend = backend
        self.options = options or {}
        #: whether a launch was seen to wait in a cluster's queue
        self.queues = False
        #: variables that are there whatever we say
        self.surroundings: frozenset[str] = _OF_CONTAINERS if RUNS_BARE in backend.lacks else frozenset()
        self.folder = folder
        self.prefix = f"hostler-t{uuid4().hex[:8]}-"
        #: what is seen by the same path where things run
        self.shared = folder / "shared"
        self.shared.mkdir()
        #: lines of a launch at which launchers are stopped: a container costs more than a process
        self.most_places = 24 if RUNS_BARE in backend.lacks else 10_000
        self._starts = self.shared / "starts"

    def plan(self, behaviour: str, **more: Any) -> Launch:
        """A launch that is not carried out. ``behaviour`` is a verb of the specimen with its arguments."""
        replica = uuid4().hex[:12]
        options: Mapping[str, Any] = {}
        if RUNS_ARGV in self.backend.lacks:
            options = _WITHOUT_ARGV[behaviour]
        fields: dict[str, Any] = {
            "name": f"{self.prefix}{replica}-1",
            "replica_id": replica,
            "attempt": 1,
            "argv": (sys.executable, "-I", "-S", str(SPECIMEN), *behaviour.split()),
            "env": {},
            "options": options,
        }
        fields |= more
        fields["options"] = {**self.options, **fields["options"]}
        fields["env"] = {"STARTS": str(self._starts), **fields["env"]}
        return Launch(**fields)

    def launch(self, behaviour: str, **more: Any) -> Handle:
        """Launch it, and wait while a cluster queues it."""
        handle = self.backend.launch(self.plan(behaviour, **more))
        self.queues = self.queues or self.see(handle).liveness is Liveness.QUEUED
        if self.queues:
            self.wait_for(handle, *(set(Liveness) - {Liveness.QUEUED}))
        return handle

    def see(self, handle: Handle) -> Observation:
        return self.backend.inspect([handle])[0]

    def wait_for(self, handle: Handle, *wanted: Liveness) -> Observation:
        def look() -> Observation | None:
            seen = self.see(handle)
            return seen if seen.liveness in wanted else None

        return wait_until(look, WAIT_S, f"{handle.name} being {' or '.join(wanted)}; it is {self.see(handle)}")

    def wait_for_owner(self, handle: Handle, owns: bool) -> Observation:
        """Wait until it is told whose the listening socket on its port is."""

        def look() -> Observation | None:
            seen = self.see(handle)
            return seen if seen.owns_port is owns else None

        return wait_until(look, WAIT_S, f"{handle.name} owning its port: {owns}; it is {self.see(handle)}")

    def refusal(self, **more: Any) -> str:
        """Why it does not run: as the launch was refused, or, where only the host it runs on can know, as it ended."""
        plan = self.plan("idle", **more)
        said = ""
        try:
            self.backend.launch(plan)
        except LaunchRefused as error:
            said = str(error)
        seen = self.wait_for(Handle(self.backend.name, plan.name), Liveness.EXITED, Liveness.ABSENT)
        return said or (seen.message if seen.liveness is Liveness.EXITED else "")

    def wait_for_line(self, handle: Handle, line: str) -> None:
        wait_until(lambda: line in list(self.backend.logs(handle)), WAIT_S, f"the line {line!r} from {handle.name}")

    def parts_of(self, handle: Handle, place: str = "", limit: int = LOG_PART_BYTES) -> Iterator[bytes]:
        """What is there of its log from ``place`` on, part by part; none may be longer than ``limit``."""
        while True:
            part = self.backend.read_log(handle, place, limit)
            assert not part.gap
            assert len(part.data) <= limit
            if not part.data:
                return
            yield part.data
            place = part.place

    def wait_started(self, handle: Handle, line: str = "started") -> None:
        """Wait until what was launched has said so, so that what comes next cannot come before."""
        self.wait_for(handle, Liveness.RUNNING)
        if RUNS_ARGV not in self.backend.lacks:
            self.wait_for_line(handle, line)

    def end(self, handle: Handle) -> Observation:
        """Kill it and see it gone."""

        def gone() -> Observation | None:
            seen = self.backend.stop(handle, grace_s=0, force=True)
            return seen if seen.liveness.gone else None

        return wait_until(gone, WAIT_S, f"{handle.name} being gone")

    def starts(self) -> int:
        """How often a specimen began to run in this world."""
        return len(self._starts.read_text().splitlines()) if self._starts.exists() else 0

    def clean(self) -> None:
        """End and forget whatever the test left; fails when something cannot be ended."""
        for name in self.backend.list_marked(self.prefix):
            handle = self.backend.adopt(name) or Handle(self.backend.name, name)
            self.end(handle)
            self.backend.close(handle)
        assert self.backend.list_marked(self.prefix) == []
        wait_until(lambda: not self._helpers(), WAIT_S, f"the end of {self._helpers()}, which worked for what is gone")

    def _helpers(self) -> list[str]:
        """Processes that are at work in this world's folder; removing a folder does not hide them."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError):  # it ended, or is somebody else's
                    if os.readlink(entry / "cwd").startswith(f"{self.folder}/"):
                        found.append(entry.name)
        return found
