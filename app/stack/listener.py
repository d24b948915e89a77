"""Supervisor's event listener: what dies and comes back is written into the history, and given-up programs go on.

``python -m app.stack.listener``, run by supervisord, which talks to it by stdin and stdout.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from supervisor import childutils

from app.errors import HostlerError
from app.log import configure
from app.settings import Settings
from app.stack.supervisor import Supervisor, SupervisorGone
from app.usecases.events import record_event

#: A program that supervisor has given up is started anew after this long.
AGAIN_S = 10.0
#: Events kept while the database is down; the oldest go first.
KEPT = 500

log = logging.getLogger(__name__)


@dataclass
class Watcher:
    """Turns supervisor's events into ours. Pure: the clock is passed in."""

    kept: deque[tuple[str, dict[str, Any], str]] = field(default_factory=lambda: deque(maxlen=KEPT))
    #: programs that died and have not been seen running since: name -> how often
    down: dict[str, int] = field(default_factory=dict)
    #: programs that supervisor gave up: full name -> when to start it anew
    given_up: dict[str, float] = field(default_factory=dict)

    def take(self, event: str, facts: dict[str, str], now_s: float) -> None:
        name = facts.get("processname", "")
        full_name = f"{facts.get('groupname', name)}:{name}"
        if event == "PROCESS_STATE_EXITED":
            # an exit that nobody asked supervisor for, whatever its code
            self._died(name, {"role": name, "pid": int(facts["pid"])}, "ended; it is started again")
        elif event == "PROCESS_STATE_BACKOFF":
            tries = int(facts.get("tries", 0))
            self._died(name, {"role": name, "tries": tries}, "ended right after its start; it is tried again")
        elif event == "PROCESS_STATE_FATAL":
            self.given_up[full_name] = now_s + AGAIN_S
            message = f"{name} does not start; next try in {AGAIN_S:.0f} s; see logs/{name}.log in the state dir"
            self.kept.append(("child_failed", {"role": name}, message))
        elif event == "PROCESS_STATE_RUNNING" and name in self.down:
            data = {"role": name, "pid": int(facts["pid"]), "exits": self.down.pop(name)}
            self.kept.append(("child_restarted", data, f"{name} runs again, pid {facts['pid']}"))
        elif event == "PROCESS_STATE_STOPPED":
            # someone asked for it
            self.down.pop(name, None)
            self.given_up.pop(full_name, None)

    def due(self, now_s: float) -> list[str]:
        """Full names of programs to start anew now; each is returned once."""
        names = [name for name, at in self.given_up.items() if at <= now_s]
        for name in names:
            del self.given_up[name]
        return names

    def _died(self, name: str, data: dict[str, Any], message: str) -> None:
        self.down[name] = self.down.get(name, 0) + 1
        self.kept.append(("child_exited", data, f"{name} {message}"))


def main() -> int:
    """Serve events until supervisord closes the pipe."""
    settings = Settings.load()
    configure(settings, "listener")
    watcher, supervisor = Watcher(), Supervisor(settings)
    while True:
        childutils.listener.ready(sys.stdout)
        line = sys.stdin.readline()
        if not line:
            return 0
        headers = childutils.get_headers(line)
        facts = childutils.get_headers(sys.stdin.read(int(headers["len"])))
        watcher.take(headers["eventname"], facts, time.monotonic())
        childutils.listener.ok(sys.stdout)
        for name in watcher.due(time.monotonic()):
            _start(supervisor, name)
        flush(watcher, settings)


def flush(watcher: Watcher, settings: Settings) -> None:
    """Write what is kept, oldest first; what cannot be written now stays for the next event or tick."""
    while watcher.kept:
        kind, data, message = watcher.kept[0]
        try:
            record_event(settings, kind, data, message=message, cause="supervisor", node=settings.node_name)
        except HostlerError as error:
            log.warning("%s; %d events wait", error, len(watcher.kept))
            return
        watcher.kept.popleft()


def _start(supervisor: Supervisor, name: str) -> None:
    try:
        supervisor.start(name)
    except SupervisorGone as error:
        log.warning("cannot start %s: %s", name, error)


if __name__ == "__main__":
    sys.exit(main())
