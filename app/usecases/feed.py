"""One reader of new events per process, however many streams there are.

It keeps the newest events in memory, so that a stream that opens, comes back or lags behind finds them there; only who
wants older ones asks the table. The more streams a process has, the more rarely its feed reads: the streams of a stack
cost it one query a second at most, and a few streams still see everything at once.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from app.db.engine import Database
from app.db.repos import events as repo
from app.db.repos import retention
from app.errors import Unavailable
from app.usecases.signals import POLL_S, signals_of
from app.usecases.told import Told, told

log = logging.getLogger(__name__)

#: Events a stream may lag behind before its queue takes no more.
QUEUE_ROWS = 256
BATCH = 1000
#: Events kept in memory, about a kilobyte each, and those that are read when the first stream comes.
RECENT_ROWS, FIRST_ROWS = 10_000, 500
#: From so many streams on a process reads no more often than once in ``READ_S`` for each process there is.
CROWD = 50
READ_S = 1.5
#: While an older transaction holds events back.
UNSETTLED_S = 0.02
UNSETTLED_LONGEST_S = 0.25
#: A feed without streams ends after this time and is started again by the next one.
IDLE_S = 5.0
#: Streams of a process that read the table for themselves at one time.
READERS = 2

Filters = tuple[tuple[str, str], ...]


class Queue:
    """What one stream has not sent yet of what the feed has read."""

    def __init__(self, filters: Mapping[str, str], behind: repo.Cursor) -> None:
        self.filters: Filters = tuple(sorted(filters.items()))
        #: more than is queued has happened behind ``behind``: ask the feed again when the queue is empty
        self.lagging = True
        self.behind = behind
        self._told: deque[Told] = deque()
        self._more = threading.Event()

    def __len__(self) -> int:
        return len(self._told)

    def put(self, new: list[Told], behind: repo.Cursor) -> None:
        """Called by the feed: ``new`` is what matches of all that happened behind ``behind``."""
        if not self.lagging:
            if len(self._told) + len(new) > QUEUE_ROWS:
                self.lag(behind)
            else:
                self._told.extend(new)
        self._more.set()

    def lag(self, behind: repo.Cursor) -> None:
        """Take no more until all behind ``behind`` was asked for."""
        if not self.lagging:
            self.lagging, self.behind = True, behind

    def get(self, timeout_s: float) -> Told | None:
        """The next one; None when there was none in time or the rest has to be asked for."""
        if not self._told:
            self._more.clear()
            if not self._told and not self.lagging:
                self._more.wait(timeout_s)
        return self._told.popleft() if self._told else None

    def refill(self, found: list[Told], rest_behind: repo.Cursor | None) -> None:
        """``found`` is all that matches behind ``behind``, or all of it up to ``rest_behind``."""
        self._told.extend(found)
        self.lagging = rest_behind is not None
        self.behind = rest_behind or self.behind


class Feed:
    """The process's tail of the events table. ``processes`` is how many share the stack's one query a second."""

    def __init__(self, database: Database, processes: int = 1) -> None:
        self._database = weakref.ref(database)
        self._processes = processes
        self._lock = threading.Lock()
        self._queues: set[Queue] = set()
        #: the run of the reader, None while there is none
        self._running: object | None = None
        #: all settled events behind ``_since`` up to ``_place``
        self._recent: deque[Told] = deque()
        self._since: repo.Cursor = (0, 0)
        self._place: repo.Cursor = (0, 0)
        self._readers = threading.BoundedSemaphore(READERS)

    @contextmanager
    def subscribe(self, filters: Mapping[str, str], behind: repo.Cursor) -> Iterator[Queue]:
        """A queue of every event that matches and is settled behind that place. Raises Unavailable."""
        self.revive()
        queue = Queue(filters, behind)
        with self._lock:
            self._queues.add(queue)
        try:
            yield queue
        finally:
            with self._lock:
                self._queues.discard(queue)

    def revive(self) -> None:
        """Start the reader unless it runs. Its streams notice that it died when they have been quiet for a while."""
        with self._lock:
            database = self._database()
            if self._running or database is None:
                return
            self._begin(database)
            self._running = run = object()
            signals_of(database).spawn(partial(self._run, run), "event-feed")

    def resume(self, queue: Queue) -> bool:
        """Fill the queue from memory; False when that does not reach back so far."""
        with self._lock:
            if not self._since <= queue.behind:
                return False
            found: list[Told] = []
            for one in reversed(self._recent):
                if one.place <= queue.behind:
                    break
                if _matches(one, queue.filters):
                    found.append(one)
            found.reverse()
            rest = found[QUEUE_ROWS - 1].place if len(found) > QUEUE_ROWS else None
            queue.refill(found[:QUEUE_ROWS], rest)
            return True

    @contextmanager
    def reading(self) -> Iterator[None]:
        """For who reads the table for itself: many that come back at once take turns."""
        with self._readers:
            yield

    @property
    def _pace_s(self) -> float:
        """The least time between two reads."""
        return READ_S * self._processes * min(1.0, len(self._queues) / CROWD)

    def _begin(self, database: Database) -> None:
        with database.read() as connection:
            rows = repo.newest_settled(connection, FIRST_ROWS)
            # asked after the rows: what was forgotten meanwhile is not promised
            forgotten = retention.horizon(connection)
        handed_out = self._place
        self._recent = deque(told(row) for row in rows)
        self._since = forgotten if len(rows) < FIRST_ROWS else self._recent.popleft().place
        self._place = self._recent[-1].place if self._recent else self._since
        for queue in self._queues:
            # the reader that died handed out no more than this
            queue.lag(handed_out)

    def _run(self, run: object) -> None:
        try:
            self._tail()
        finally:
            # also when it died of a defect: the next stream starts it again, unless it has done so already
            with self._lock:
                if self._running is run:
                    self._running = None

    def _tail(self) -> None:
        quiet_since = time.monotonic()
        database = self._database()
        if database is None:
            return
        signals = signals_of(database)
        with signals.subscribe("events") as signal:
            del database
            pause_s, read_at = POLL_S, 0.0
            while not signals.closed:
                signal.wait(max(pause_s, self._pace_s))
                signals.rest(read_at + self._pace_s - time.monotonic())
                read_at = time.monotonic()
                pause_s = self._read_on(pause_s)
                with self._lock:
                    if self._queues:
                        quiet_since = time.monotonic()
                    elif time.monotonic() - quiet_since > IDLE_S:
                        # under the lock: a stream that comes now finds it ended and starts the next one
                        self._running = None
                        return

    def _read_on(self, pause_s: float) -> float:
        """Hand out what is new; returns how long to sleep at most until the next look."""
        database = self._database()
        if database is None:
            return POLL_S
        try:
            with database.read() as connection:
                while True:
                    rows, waiting = repo.settled_behind(connection, self._place, BATCH)
                    if rows:
                        self._hand_out([told(row) for row in rows])
                    if len(rows) < BATCH:
                        break
        except Unavailable as error:
            log.warning("the event feed waits for the database: %s", error)
            return POLL_S
        if not waiting:
            return POLL_S
        return min(pause_s * 2, UNSETTLED_LONGEST_S) if pause_s < POLL_S else UNSETTLED_S

    def _hand_out(self, new: list[Told]) -> None:
        with self._lock:
            before, self._place = self._place, new[-1].place
            self._recent.extend(new)
            while len(self._recent) > RECENT_ROWS:
                self._since = self._recent.popleft().place
            by_filters: dict[Filters, list[Told]] = {(): new}
            seen = {name: {one[name] for one in new} for name in repo.FILTERS}
            for queue in self._queues:
                if any(value not in seen[name] for name, value in queue.filters):
                    continue
                if queue.filters not in by_filters:
                    by_filters[queue.filters] = [one for one in new if _matches(one, queue.filters)]
                if matching := by_filters[queue.filters]:
                    queue.put(matching, before)


def _matches(one: Told, filters: Filters) -> bool:
    return all(one[name] == value for name, value in filters)
