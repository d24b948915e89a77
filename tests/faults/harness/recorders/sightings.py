"""The process table, looked at again and again: who was seen under which attempt, and who outlived his leases.

What runs in other places is seen too, for they are made on this host.

A process outlives its attempt when the database first says that the attempt was released and the process is seen
alive after that: no clock is compared.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

import psycopg

from tests.faults.harness import far_world, world
from tests.faults.harness.facts import StackFacts
from tests.faults.harness.far_world import FarProcess
from tests.faults.harness.recorders.lines import Lines, read_lines
from tests.faults.harness.world import Process

NAME = "sightings.jsonl"
EVERY_S = 0.1
_CLOSED = (
    "SELECT n.name, a.released_at::text FROM unnest(%s::text[]) AS n(name) LEFT JOIN attempts a ON a.name = n.name"
    " WHERE a.id IS NULL OR a.released_at IS NOT NULL"
)


class Sightings:
    """One thread. Writes ``seen`` once per process, ``outlived`` once per process that should be gone, ``doubled`` once
    per attempt of which two engines were alive at once, ``shared_gpu`` once per two that had the same one."""

    def __init__(self, stack: StackFacts) -> None:
        self._stack = stack
        self._lines = Lines(stack.folder / NAME)
        self._seen: set[tuple[int, int]] = set()
        self._outlived: set[tuple[int, int]] = set()
        self._doubled: set[str] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sightings", daemon=True)
        self._connection: psycopg.Connection[Any] | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(30)
        if self._connection is not None:
            self._connection.close()
        self._lines.close()

    def look(self) -> None:
        """One round."""
        found: list[Process | FarProcess] = [*world.processes(self._stack.state_dir)]
        if self._stack.places is not None:
            found += far_world.processes(self._stack.places, self._stack.state_dir)
        for one in found:
            if (one.pid, one.start) not in self._seen:
                self._seen.add((one.pid, one.start))
                more = {"run": one.run} if isinstance(one, FarProcess) else {}
                self._lines.write("seen", attempt=one.name, pid=one.pid, start=one.start, leads=one.leads, **more)
        self._tell_doubled(found)
        closed = self._closed(sorted({one.name for one in found}))
        for one in found:
            who = (one.pid, one.start)
            if one.name in closed and who not in self._outlived and world.identity(one.pid) == one.start:
                self._outlived.add(who)
                self._lines.write("outlived", attempt=one.name, pid=one.pid, start=one.start, released=closed[one.name])

    def _tell_doubled(self, found: list[Process | FarProcess]) -> None:
        """Elsewhere an attempt may be begun anew, but never while it runs."""
        engines: dict[str, list[FarProcess]] = defaultdict(list)
        for one in found:
            if isinstance(one, FarProcess) and one.leads:
                engines[one.name].append(one)
        for name, several in engines.items():
            living = sorted(one.pid for one in several if world.identity(one.pid) == one.start)
            if len(living) > 1 and name not in self._doubled:
                self._doubled.add(name)
                self._lines.write("doubled", attempt=name, pids=living)
        holders: dict[str, set[str]] = defaultdict(set)
        for one in (one for several in engines.values() for one in several if one.devices):
            if world.identity(one.pid) == one.start:
                for device in one.devices:
                    holders[device].add(one.name)
        for device, names in holders.items():
            told = f"{device} {' '.join(sorted(names))}"
            if len(names) > 1 and told not in self._doubled:
                self._doubled.add(told)
                self._lines.write("shared_gpu", gpu=device, attempts=sorted(names))

    def _run(self) -> None:
        while not self._stopping.wait(EVERY_S):
            self.look()

    def _closed(self, names: list[str]) -> dict[str, str | None]:
        """Those of ``names`` that are released by now, with when; none while the database does not answer."""
        if not names:
            return {}
        try:
            if self._connection is None or self._connection.closed:
                self._connection = psycopg.connect(self._stack.database_url, autocommit=True, connect_timeout=2)
            return dict(self._connection.execute(_CLOSED, [names]).fetchall())
        except psycopg.Error:
            if self._connection is not None:
                self._connection.close()
            self._connection = None
            return {}


def read(folder: Path) -> list[dict[str, Any]]:
    return read_lines(folder / NAME)
