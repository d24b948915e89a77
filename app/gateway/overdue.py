"""Limits that HAProxy 2.8 has no word for: silence inside an answer that has begun, the whole time of a request, and a
last try where all replicas are out. A thread of the agent sees to them through the runtime socket.

While no agent runs, HAProxy's own limits hold: ``gateway_first_byte_s`` is then the longest silence, and a route whose
replicas are all out refuses.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from app.haproxy.runtime import HaproxyAway, Session
from app.haproxy.shown import ShownServer, parse_servers

LOOK_S = 2.0
#: A route whose replicas are all out is looked for more often.
LOOK_OUT_S = 0.25

#: What HAProxy has still to do with an answer: wait for its first byte (AN_RES_WAIT_HTTP, as in 2.8).
_WAITS = 0x400000
_LINE = re.compile(
    r"(?P<id>0x[0-9a-f]+): .* fe=(?P<frontend>\S+) be=(?P<backend>\S+) .* age=(?P<age>\w+) .*"
    r" rp\[\S*an=(?P<analysers>[0-9a-f]+)h.* scb=\[\S*rex=(?P<left>\w*),"
)
_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
#: Frontends of requests to replicas.
_ENTRIES = ("door", "inside")
_CONTROL = ("control", "flower", "<NONE>")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """Seconds; 0 is no limit. ``first_byte_s`` is HAProxy's own timer, from which the silence is read."""

    first_byte_s: float
    idle_s: float
    total_s: float
    #: whether routes with every replica out have a try all the same
    tries: bool


@dataclass(frozen=True)
class Request:
    """One request to a replica, as ``show sess`` has it. ``silent_s`` is None before the first byte of the answer."""

    id: str
    age_s: int
    silent_s: float | None

    def is_over(self, limits: Limits) -> bool:
        if limits.total_s and self.age_s > limits.total_s:
            return True
        return bool(limits.idle_s) and self.silent_s is not None and self.silent_s > limits.idle_s


def parse_requests(answer: str, first_byte_s: float) -> Iterator[Request]:
    """``show sess`` -> the requests to replicas; those to the control API have limits of their own."""
    for line in answer.splitlines():
        found = _LINE.match(line)
        if found is None or found["frontend"] not in _ENTRIES or found["backend"] in _CONTROL:
            continue
        silent_s = None
        # the slow lane's own silence is that of the request it sent on, which is another line
        if found["left"] and not int(found["analysers"], 16) & _WAITS and found["backend"].startswith("route_"):
            silent_s = first_byte_s - seconds(found["left"])
        yield Request(found["id"], seconds(found["age"]), silent_s)


def seconds(written: str) -> int:
    """``1h5m`` -> 3900. HAProxy writes the two largest units."""
    return sum(int(count) * _UNITS[unit] for count, unit in re.findall(r"(\d+)([dhms])", written))


def all_out(servers: Iterable[ShownServer]) -> list[tuple[str, str]]:
    """(slot, server) of every slot in which checks have taken out all that would take requests."""
    by_slot: dict[str, list[ShownServer]] = {}
    for server in servers:
        if server.backend.startswith("route_") and not server.draining and not server.maintenance:
            by_slot.setdefault(server.backend, []).append(server)
    return [
        (slot, server.name) for slot, found in by_slot.items() if not any(one.up for one in found) for server in found
    ]


class Overdue(threading.Thread):
    """Looks again and again, until ``stop``."""

    def __init__(self, socket: Path, limits: Limits) -> None:
        super().__init__(name="overdue", daemon=True)
        self._socket, self._limits = socket, limits
        self._over = threading.Event()

    def stop(self) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        timed = self._limits.idle_s or self._limits.total_s
        if not timed and not self._limits.tries:
            return
        looks = 0
        while not self._over.wait(LOOK_OUT_S if self._limits.tries else LOOK_S):
            looks += 1
            try:
                with Session(self._socket) as session:
                    if self._limits.tries:
                        try_again(session)
                    if timed and (not self._limits.tries or looks % int(LOOK_S / LOOK_OUT_S) == 0):
                        cut(session, self._limits)
            except HaproxyAway as error:
                log.debug("no look at the requests: %s", error)
            except ValueError as error:
                log.warning("HAProxy shows its servers in another way: %s", error)


def cut(session: Session, limits: Limits) -> int:
    """End what is overdue; how many."""
    found = 0
    for request in parse_requests(session.ask("show sess"), limits.first_byte_s):
        if request.is_over(limits):
            log.info("a request is cut: %d s old, silent for %s s", request.age_s, request.silent_s)
            session.ask(f"shutdown session {request.id}")
            found += 1
    return found


def try_again(session: Session) -> int:
    """Let replicas of routes that are wholly out have requests until their next check fails; how many."""
    found = all_out(parse_servers(session.ask("show servers state")).values())
    for slot, server in found:
        session.ask(f"set server {slot}/{server} health up")
    return len(found)
