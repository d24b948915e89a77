"""Copies logs from where they lie into the database, for readers on hosts that have no file of them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from app.domain.log_parts import bytes_to_take
from app.errors import Collided, Unavailable
from app.usecases import copying_logs
from app.usecases.copying_logs import Piece, Progress
from workers.backends.base import LOG_PART_BYTES, Backend, BackendError, Handle, LogPart
from workers.bootstrap import Runtime
from workers.engine_targets import handle_of
from workers.jobs import Jobs

log = logging.getLogger(__name__)

#: Logs that are read at once: a backend that hangs holds up one.
THREADS = 8
#: Of them so many write: the agent has ten connections, for everything.
WRITERS = 3
#: Between two looks at what is wanted while something is, and while nothing is.
LOOK_S, IDLE_S = 0.2, 1.0
#: Between two looks at a log that nothing is written to: from, to.
QUIET_S, QUIETEST_S = 0.2, 1.0
READ_TIMEOUT_S = 10.0
#: Looks at a log that is another one at each of them.
ROTATED_TRIES = 10
#: A look that gives less than was asked for came to the end of a file, and of one log two are kept. After so many of
#: them all was given that was there at the first, however fast more is written.
ENDS = 3


class LogCopier:
    """One thread that sees what is wanted, and a few that read."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._ctx = runtime.ctx
        self._jobs = Jobs("logs", THREADS)
        self._writing = threading.BoundedSemaphore(WRITERS)
        #: by copy: when it is looked at again, and how long after that
        self._next: dict[int, tuple[float, float]] = {}

    def run(self, stop: threading.Event) -> None:
        """Until ``stop``."""
        with suppress(Collided, Unavailable):  # then what the last agent had is taken when its time has run out
            copying_logs.take_over(self._ctx)
        with self._ctx.signals.subscribe(copying_logs.WANTED) as wanted:
            while not stop.is_set():
                try:
                    busy = self._turn()
                except (Collided, Unavailable) as error:
                    log.warning("%s", error)
                    busy = False
                wanted.wait(LOOK_S if busy else IDLE_S)
        self._jobs.close()
        with suppress(Collided, Unavailable):  # then another one waits for this one's time to run out
            copying_logs.give_back(self._ctx, self._runtime.id)

    def _turn(self) -> bool:
        rows = copying_logs.take(self._ctx, self._runtime.id)
        self._next = {row.id: self._next.get(row.id, (0.0, QUIET_S)) for row in rows}
        now = time.monotonic()
        for row in rows:
            # a question is answered at once; what stands still is looked at less and less often
            if (row.asked > row.answered and not row.message) or self._next[row.id][0] <= now:
                self._jobs.begin(f"{row.attempt_name} (copy {row.id} of its log)", self._copy, row)
        return bool(rows)

    def _copy(self, row: Any) -> None:
        moved = False
        try:
            moved = self._go_on(row)
        except BackendError as error:
            copying_logs.complain(self._ctx, row.id, str(error))
        except (Collided, Unavailable) as error:
            log.warning("the log of %s is not copied now: %s", row.attempt_name, error)
        finally:
            _, pause_s = self._next.get(row.id, (0.0, QUIET_S))
            pause_s = QUIET_S if moved else min(pause_s * 2, QUIETEST_S)
            self._next[row.id] = time.monotonic() + pause_s, pause_s

    def _go_on(self, row: Any) -> bool:
        """Copy until readers must read first or all is copied that there was at the begin; whether there was something.

        Not until there is nothing more: an engine that never stops talking would hold its readers, and this thread.
        """
        began = at = Progress(row.place, row.size_bytes, row.read_bytes)
        source = _Source(self._runtime.backend_of(row), handle_of(row.backend, row.attempt_name, row.backend_ref))
        lines = copying_logs.tail_of(at.place)
        if lines is not None:
            begun = copying_logs.begin_at(self._ctx, row.id, at, source.tail_place(lines))
            if begun is None:
                return False
            began = at = begun
        hidden = copying_logs.hidden(self._ctx)
        ends = 0
        while not at.is_ahead:
            piece, rest = source.read(at.place, hidden, is_over=row.released_at is not None)
            if piece.data:
                with self._writing:
                    grown = copying_logs.append(self._ctx, row.id, at, piece)
                if grown is None:
                    # this agent was frozen, and another one took over
                    break
                at = grown
                ends += len(piece.data) + len(rest) < LOG_PART_BYTES
            if not piece.data or ends == ENDS:
                with self._writing:
                    copying_logs.answer(self._ctx, row.id, at, row.asked, rest)
                break
        return at is not began


class _Source:
    """One log, in whole lines."""

    def __init__(self, backend: Backend, handle: Handle) -> None:
        self._backend, self._handle = backend, handle

    def read(self, place: str, hidden: list[bytes], *, is_over: bool) -> tuple[Piece, bytes]:
        """The next whole lines from ``place`` on, none when there are none; and half a line that is behind them.

        Raises BackendError, also when it is rotated faster than it can be read.
        """
        for _ in range(ROTATED_TRIES):
            part = self._read_line(place)
            taken = bytes_to_take(part.data, LOG_PART_BYTES, hidden, is_over=is_over)
            if taken == len(part.data):
                return Piece(part.data, part.place, part.gap), b""
            if not taken:
                return Piece(b"", place), part.data
            # the place behind the whole lines is only told to whom reads just them
            lines = self._read_until(place, lambda _: False, taken)
            if lines.data == part.data[:taken]:
                return Piece(lines.data, lines.place, part.gap), part.data[taken:]
        raise BackendError(f"the log of {self._handle.name} is rotated faster than it can be read")

    def tail_place(self, lines: int) -> str:
        """Raises BackendError."""
        return self._backend.tail_place(self._handle, lines, timeout_s=READ_TIMEOUT_S)

    def _read_line(self, place: str) -> LogPart:
        """A part that holds a line end, unless there is none yet."""
        return self._read_until(place, lambda data: b"\n" in data, LOG_PART_BYTES)

    def _read_until(self, place: str, is_enough: Callable[[bytes], bool], limit: int) -> LogPart:
        """A backend may give less at once than there is."""
        part = self._part(place, limit)
        while part.data and not is_enough(part.data) and len(part.data) < limit:
            more = self._part(part.place, limit - len(part.data))
            if not more.data or more.gap:
                break
            part = LogPart(part.data + more.data, more.place, part.gap)
        return part

    def _part(self, place: str, limit: int) -> LogPart:
        return self._backend.read_log(self._handle, place, limit, timeout_s=READ_TIMEOUT_S)
