"""The one loop of the role: what this host should keep, by host that it goes through; each has a thread (``line``)."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
from collections import defaultdict
from pathlib import Path

from app.errors import Collided, Unavailable
from app.stack.layout import ensure_run_dir
from app.usecases import tunnels
from app.usecases.context import Context
from app.usecases.signals import Subscription
from app.usecases.tunnels import Wanted
from workers.transports.master import ssh_environ
from workers.tunnels.connection import end_recorded
from workers.tunnels.line import Line

log = logging.getLogger(__name__)

#: What is wanted is read so often, hint or no hint.
EVERY_S = 2.0
#: Between two readings, however many hints come.
LEAST_S = 0.1
#: Longest wait for the lines to close at the end.
CLOSE_S = 8.0
#: Every transition is an event: of a replica that answers somewhere since.
TOPICS = ("events", tunnels.CHANGED)
#: Of the environment: so that `hostler status` and `down` know the connections as this role's.
_MARKS = ("HOSTLER_ROLE", "HOSTLER_STATE_DIR")


class Tunnels:
    """``run`` until ``stop``."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._folder = ensure_run_dir(ctx.settings.state_dir)
        marks = {name: os.environ[name] for name in _MARKS if name in os.environ}
        self._environ = ssh_environ() | marks
        self._lines: dict[str, Line] = {}
        self._over = threading.Event()
        self._wake: Subscription | None = None
        self._tidied = False

    def run(self) -> None:
        lock = os.open(self._folder / "tunnels.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not self._acquire(lock):
                return
            with self._ctx.signals.subscribe(*TOPICS) as wake:
                self._wake = wake
                while not self._over.is_set():
                    self._turn()
                    if wake.wait(EVERY_S):
                        self._over.wait(LEAST_S)
        finally:
            for line in self._lines.values():
                line.stop()
            for line in self._lines.values():
                line.join(CLOSE_S)
            os.close(lock)

    def stop(self, *_: object) -> None:
        self._over.set()
        if self._wake is not None:
            self._wake.wake()

    def _acquire(self, lock: int) -> bool:
        """One at a time, as the kernel sees it: a frozen one still has it."""
        while not self._over.is_set():
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                self._over.wait(0.2)
        return False

    def _turn(self) -> None:
        try:
            wanted, left = tunnels.read(self._ctx)
        except (Collided, Unavailable) as error:
            # all stays as it is, and heals without it
            log.warning("what is wanted cannot be read: %s", error)
            return
        by_host: defaultdict[str, list[Wanted]] = defaultdict(list)
        for one in wanted:
            by_host[json.dumps(one.ssh, sort_keys=True)].append(one)
        for key in self._lines.keys() | by_host.keys():
            self._hand(key, by_host.get(key, []))
        if not self._tidied:
            self._tidied = True
            self._end_others()
        unknown = [one for one in left if not any(line.knows(one.attempt_id) for line in self._lines.values())]
        try:
            tunnels.forget(self._ctx, [(one.attempt_id, one.port) for one in unknown])
        except (Collided, Unavailable) as error:
            log.warning("local ends of what is gone are forgotten later: %s", error)

    def _hand(self, key: str, wanted: list[Wanted]) -> None:
        line = self._lines.get(key)
        if line is not None and line.want(wanted):
            return
        if line is not None:
            line.join()
            del self._lines[key]
        if wanted:
            line = self._lines[key] = Line(self._ctx, wanted[0].ssh, self._folder, self._environ)
            line.want(wanted)
            line.start()

    def _end_others(self) -> None:
        """Connections of an earlier process of this role to hosts that nobody wants any more."""
        ours = {line.connection.record for line in self._lines.values()}
        for record in self._folder.glob("tunnel-*.json"):
            if record not in ours:
                end_recorded(Path(record))
