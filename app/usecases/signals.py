"""Wake whoever waits for a change: one LISTEN per process fans out, one NOTIFY carries many topics.

A signal is a hint. Whoever waits looks at the table again when woken and at least once a second anyway, so a lost
signal costs a moment and never an answer. Topics: ``replica:<id>`` (it changed), ``task:<id>`` (it ended), ``events``,
``models`` (the catalogue changed), ``keys`` (one was revoked), ``registrations`` (one changed).
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy import make_url, text

from app.db.engine import CUT_OFF, CUT_OFF_THERE, Database
from app.errors import HostlerError

log = logging.getLogger(__name__)

#: Longest a waiter should sleep between two looks at the table.
POLL_S = 1.0
#: Least and most time between two NOTIFYs of one process: what happens meanwhile travels together. It doubles while
#: they follow each other.
COALESCE_S = 0.005
COALESCE_LONGEST_S = 0.02
#: Postgres refuses payloads of 8000 bytes and more.
PAYLOAD_BYTES = 7900
#: A publisher or listener without work ends after this time and is started again when there is some.
IDLE_S = 30.0
#: Between two looks of the listener whether anybody is left to listen for.
LOOK_S = 0.5
RECONNECT_S = 1.0


def notify(database: Database, topics: Iterable[str], *, at_once: bool = False) -> None:
    """Tell every process that something changed. Call it after the commit; it never raises.

    It returns at once and what is told soon after travels together, unless ``at_once``: then it was told on return.

    Inside the transaction a NOTIFY would make all commits queue up behind one lock.
    """
    signals_of(database).publish(topics, at_once=at_once)


def signals_of(database: Database) -> Signals:
    """The process's one fan-out for ``database``; nothing is connected before somebody waits or publishes."""
    with _making:
        found = _by_database.get(database)
        if found is None:
            found = _by_database[database] = Signals(database)
        return found


class Subscription:
    """Set when one of its topics was signalled since the last ``wait``."""

    def __init__(self) -> None:
        self._flag = threading.Event()

    def wait(self, timeout_s: float = POLL_S) -> bool:
        """True when woken by a signal, False when the time ran out. Clears the flag: look at the table afterwards."""
        woken = self._flag.wait(timeout_s)
        self._flag.clear()
        return woken

    def wake(self) -> None:
        self._flag.set()


class Signals:
    """The listener and the publisher of one process."""

    def __init__(self, database: Database) -> None:
        # weak: this object hangs on its database and must not keep it alive
        self._database = weakref.ref(database)
        self._url = database.url
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._threads: set[threading.Thread] = set()
        self._subscribers: dict[str, set[Subscription]] = {}
        self._listening = False
        self._used_at = time.monotonic()
        self._pending: set[str] = set()
        self._ring = threading.Event()
        self._publishing = False

    @contextmanager
    def subscribe(self, *topics: str) -> Iterator[Subscription]:
        """Listen to ``topics``. Subscribe first and look at the table then, or a change in between is missed."""
        subscription = Subscription()
        with self._lock:
            for topic in topics:
                self._subscribers.setdefault(topic, set()).add(subscription)
            self._used_at = time.monotonic()
            start, self._listening = not self._listening, True
        if start:
            self.spawn(self._listen, "signals-listen")
        try:
            yield subscription
        finally:
            with self._lock:
                for topic in topics:
                    waiting = self._subscribers.get(topic, set())
                    waiting.discard(subscription)
                    if not waiting:
                        self._subscribers.pop(topic, None)

    def wait(self, topic: str, timeout_s: float) -> bool:
        """Wait for one signal of ``topic``. For a loop use ``subscribe``: this misses what came before the call."""
        with self.subscribe(topic) as subscription:
            return subscription.wait(timeout_s)

    def publish(self, topics: Iterable[str], *, at_once: bool = False) -> None:
        """Wake this process's waiters now and the other processes' within milliseconds, or before it returns."""
        names = {topic for topic in topics if topic}
        if not names:
            return
        self._wake(names)
        if at_once:
            self._send(names)
            return
        with self._lock:
            self._pending |= names
            start, self._publishing = not self._publishing, True
        self._ring.set()
        if start:
            self.spawn(self._publish, "signals-publish")

    @property
    def closed(self) -> bool:
        """Whether the process is putting its database away: threads of ``spawn`` end."""
        return self._closed.is_set()

    def rest(self, seconds: float) -> None:
        """Sleep, unless the process is putting its database away."""
        if seconds > 0:
            self._closed.wait(seconds)

    def spawn(self, target: Callable[[], None], name: str) -> None:
        """Run ``target`` in a thread that ``close`` waits for. It must look at ``closed`` whenever it was woken."""

        def run() -> None:
            try:
                target()
            finally:
                with self._lock:
                    self._threads.discard(thread)

        thread = threading.Thread(target=run, name=name, daemon=True)
        with self._lock:
            self._threads.add(thread)
            # under the lock: whoever closes must not find a thread that cannot be waited for yet
            thread.start()

    def close(self, timeout_s: float = 5.0) -> None:
        """End the threads, so that none holds a connection while the pool is put away. Call it before the pool's."""
        self._closed.set()
        self._ring.set()
        self._wake_all()
        with self._lock:
            threads = set(self._threads)
        for thread in threads - {threading.current_thread()}:
            thread.join(timeout_s)

    def _wake(self, topics: Iterable[str]) -> None:
        with self._lock:
            waiting = {one for topic in topics for one in self._subscribers.get(topic, ())}
        for one in waiting:
            one.wake()

    def _wake_all(self) -> None:
        with self._lock:
            waiting = {one for group in self._subscribers.values() for one in group}
        for one in waiting:
            one.wake()

    def _publish(self) -> None:
        pause_s, quiet_since = COALESCE_S, time.monotonic()
        while True:
            self._ring.wait(IDLE_S)
            self._ring.clear()
            follows = time.monotonic() - quiet_since < pause_s
            pause_s = min(pause_s * 2, COALESCE_LONGEST_S) if follows else COALESCE_S
            with self._lock:
                batch, self._pending = self._pending, set()
                if not batch or self.closed:
                    self._publishing = False
                    return
            self._send(batch)
            time.sleep(pause_s)
            quiet_since = time.monotonic()

    def _send(self, batch: Iterable[str]) -> None:
        database = self._database()
        if database is None:
            return
        try:
            with database.read() as connection:
                for payload in payloads(batch):
                    connection.execute(
                        text("SELECT pg_notify(:channel, :payload)"), {"channel": CHANNEL, "payload": payload}
                    )
        except HostlerError as error:
            log.warning("signals not sent, waiters will poll: %s", error)

    def _listen(self) -> None:
        while not self._unused():
            try:
                self._listen_once()
                return
            except psycopg.Error as error:
                log.warning("listening stopped, waiters poll until it is back: %s", error)
            self._wake_all()
            self._closed.wait(RECONNECT_S)

    def _listen_once(self) -> None:
        """Until nobody has subscribed for a while; raises psycopg.Error when the connection is lost."""
        with psycopg.connect(
            conninfo(self._url),
            autocommit=True,
            application_name="hostler-listen",
            connect_timeout=5,
            options=CUT_OFF_THERE,
            **CUT_OFF,
        ) as connection:
            connection.execute(f'LISTEN "{CHANNEL}"')
            # whatever was signalled before LISTEN took hold
            self._wake_all()
            while not self._unused():
                for notice in connection.notifies(timeout=LOOK_S):
                    self._wake(notice.payload.split(","))

    def _unused(self) -> bool:
        with self._lock:
            if not self.closed and self._database() is not None:
                if self._subscribers:
                    self._used_at = time.monotonic()
                # kept for a while: the next waiter should not wait for a connection
                if time.monotonic() - self._used_at < IDLE_S:
                    return False
            self._listening = False
            return True


#: NOTIFY travels inside one database and every stack has its own, so the name needs no namespace.
CHANNEL = "hostler"


def payloads(topics: Iterable[str]) -> list[str]:
    """Comma-separated topics in as few payloads as Postgres takes."""
    found: list[str] = []
    current = ""
    for topic in topics:
        joined = f"{current},{topic}" if current else topic
        if len(joined.encode()) > PAYLOAD_BYTES:
            found.append(current)
            joined = topic
        current = joined
    return [*found, current] if current else found


def conninfo(url: str) -> str:
    """What libpq wants for the URL that SQLAlchemy wants."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


_by_database: weakref.WeakKeyDictionary[Database, Signals] = weakref.WeakKeyDictionary()
_making = threading.Lock()
