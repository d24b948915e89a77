"""The loops over what runs on one host, or on none: what is expected, what serves, what ends, and who dies."""

from __future__ import annotations

import os
import queue
import select
import threading
import time
from collections.abc import Sequence
from typing import Any

from app.domain.lifecycle import LAUNCHING, SERVING, State
from app.usecases import watching
from workers.bootstrap import Runtime
from workers.expected import Expected
from workers.guarded import guarded
from workers.pidfds import Pidfds
from workers.probes.batch import Prober
from workers.rounds import Rounds
from workers.watch import Watch

#: Longest time between two questions what is due; a signal makes it sooner.
TICK_S = 0.25


class Lookout:
    """``run`` is a loop that must never wait long, ``probe_serving`` one that may: a thread for each.

    ``node`` is this host. None is what runs on no host of ours, which has a lookout of its own: a cluster that does
    not answer must hold up nothing of what runs here.
    """

    def __init__(self, runtime: Runtime, node: str | None, stop: threading.Event) -> None:
        self._ctx = runtime.ctx
        self._node = node
        self._stop = stop
        self._watch = Watch(runtime)
        self._pidfds = Pidfds(runtime)
        self._expected = Expected(self._watch)
        self._serving: queue.Queue[list[Any] | None] = queue.Queue()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        #: in the queue or being probed: a slow probe must not let old rows pile up
        self._in_flight: set[str] = set()
        #: rows that rounds read, for the death watch
        self._found: queue.SimpleQueue[Sequence[Any]] = queue.SimpleQueue()

    def run(self) -> None:
        """Until all stops; then nothing of it is under way any more."""
        while not self._stop.is_set():
            guarded(self._stop, self._turn)
        self._serving.put(None)
        self._watch.close()
        self._pidfds.close()

    def probe_serving(self) -> None:
        """Until ``run`` ends."""
        with Prober() as prober:
            rounds = Rounds(self._watch, prober, self._take_found, self._node)
            while not self._stop.is_set():
                # first, so that a crowd that becomes ready holds up no round
                if not rounds.wait_s:
                    guarded(self._stop, rounds.turn)
                try:
                    rows = self._serving.get(timeout=rounds.wait_s)
                except queue.Empty:
                    continue
                if rows is None:
                    return
                guarded(self._stop, self._watch.look, rows, prober)
                self._in_flight -= {row.id for row in rows}

    def wake(self) -> None:
        """Something may be due."""
        try:
            os.write(self._wake_write, b"!")
        except BlockingIOError:
            # the pipe is full of wake-ups already
            return

    def _turn(self) -> None:
        due = watching.claim_due(self._ctx, self._node)
        self._expected.take([row for row in due if State(row.state) in LAUNCHING])
        serving = [row for row in due if State(row.state) in (*SERVING, State.UNREACHABLE)]
        serving = [row for row in serving if row.id not in self._in_flight]
        if serving:
            self._in_flight |= {row.id for row in serving}
            self._serving.put(serving)
        others = [row for row in due if State(row.state) not in (*LAUNCHING, *SERVING, State.UNREACHABLE)]
        self._watch.look(others, self._expected.prober)
        self._pidfds.follow(due)
        while not self._found.empty():
            self._pidfds.follow(self._found.get())
        self._wait(time.monotonic() + TICK_S)

    def _wait(self, until: float) -> None:
        """Look at what is expected and at deaths until something may be due in the database."""
        while not self._stop.is_set():
            self._expected.turn()
            wait_s = max(0.0, min(until, self._expected.next_at()) - time.monotonic())
            ready, _, _ = select.select([self._pidfds.fileno(), self._wake_read], [], [], wait_s)
            dead = self._pidfds.take_dead() if self._pidfds.fileno() in ready else []
            if dead:
                self._expected.take(dead)
            if self._wake_read in ready:
                os.read(self._wake_read, 4096)
                return
            if time.monotonic() >= until:
                return

    def _take_found(self, rows: Sequence[Any]) -> None:
        if rows:
            self._found.put(rows)
            self.wake()
