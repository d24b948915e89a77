"""One reader of new events per process, however many streams there are: it fans out to bounded queues."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from app.db.engine import Database
from app.db.repos import events as repo
from app.errors import Unavailable
from app.usecases.signals import POLL_S, signals_of

log = logging.getLogger(__name__)

#: Events a stream may lag behind before it has to read for itself.
QUEUE_ROWS = 256
BATCH = 1000
#: While an older transaction holds events back.
UNSETTLED_S = 0.02
UNSETTLED_LONGEST_S = 0.25
#: A feed without streams ends after this time and is started again by the next one.
IDLE_S = 5.0


class Queue:
    """What the feed has read and one stream has not sent yet."""

    def __init__(self) -> None:
        #: rows were not queued, at first those before the subscription: read the table from the last row sent
        self.lagging = True
        self._rows: deque[Any] = deque()
        self._more = threading.Event()

    def put(self, rows: list[Any]) -> None:
        if self.lagging:
            return
        if len(self._rows) + len(rows) > QUEUE_ROWS:
            self.lagging = True
            self._rows.clear()
        else:
            self._rows.extend(rows)
        self._more.set()

    def get(self, timeout_s: float) -> Any | None:
        """The next row; None when there was none in time or rows were dropped."""
        if not self._rows:
            self._more.clear()
            if not self._rows and not self.lagging:
                self._more.wait(timeout_s)
        try:
            return self._rows.popleft()
        except IndexError:
            return None

    def restart(self) -> None:
        """Queue again from now on; what was dropped before is for the caller to read."""
        self._rows.clear()
        self.lagging = False


class Feed:
    """The process's tail of the events table."""

    def __init__(self, database: Database) -> None:
        self._database = weakref.ref(database)
        self._lock = threading.Lock()
        self._queues: set[Queue] = set()
        self._running = False
        self._place: repo.Cursor = (0, 0)

    @contextmanager
    def subscribe(self) -> Iterator[Queue]:
        """A queue that gets every event settled from now on. Raises Unavailable when the database is down."""
        self.revive()
        with self._lock:
            queue = Queue()
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
            if not self._queues:
                with database.read() as connection:
                    self._place = repo.settled_end(connection)
            self._running = True
            signals_of(database).spawn(self._run, "event-feed")

    def _run(self) -> None:
        try:
            self._tail()
        finally:
            # also when it died of a defect: the next stream starts it again
            self._running = False

    def _tail(self) -> None:
        quiet_since = time.monotonic()
        database = self._database()
        if database is None:
            return
        signals = signals_of(database)
        with signals.subscribe("events") as signal:
            del database
            pause_s = POLL_S
            while not signals.closed:
                signal.wait(pause_s)
                pause_s = self._read_on(pause_s)
                with self._lock:
                    if self._queues:
                        quiet_since = time.monotonic()
                    elif time.monotonic() - quiet_since > IDLE_S:
                        # under the lock: a stream that comes now finds it ended and starts the next one
                        self._running = False
                        return

    def _read_on(self, pause_s: float) -> float:
        """Hand out what is new; returns how long to sleep at most until the next look."""
        database = self._database()
        if database is None:
            return POLL_S
        try:
            with database.read() as connection:
                while True:
                    rows = repo.behind(connection, self._place, {}, BATCH)
                    if rows:
                        self._hand_out(rows)
                    if len(rows) < BATCH:
                        break
                waiting = repo.has_unsettled(connection)
        except Unavailable as error:
            log.warning("the event feed waits for the database: %s", error)
            return POLL_S
        if not waiting:
            return POLL_S
        return min(pause_s * 2, UNSETTLED_LONGEST_S) if pause_s < POLL_S else UNSETTLED_S

    def _hand_out(self, rows: list[Any]) -> None:
        with self._lock:
            self._place = (rows[-1].xid, rows[-1].id)
            for queue in self._queues:
                queue.put(rows)
