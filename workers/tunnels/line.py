"""The way to one host: its connection, kept and made anew, and the local ends that go through it. One thread each."""

from __future__ import annotations

import ipaddress
import logging
import os
import random
import re
import select
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import Collided, Unavailable
from app.usecases import tunnels
from app.usecases.context import Context
from app.usecases.tunnels import Far, Wanted
from workers.tunnels.connection import Connection, NoConnection
from workers.tunnels.held_port import HeldPort, PortTaken

log = logging.getLogger(__name__)

#: Between two looks at everything; what ends its process or is newly wanted is seen at once.
TURN_S = 1.0
#: While it connects.
CONNECTING_S = 0.05
#: A connection that answers the kernel may still be stuck: it is asked itself so often.
ASK_S = 15.0
#: After a connection ended or could not be made; longer after each further one, with chance in it so that the hosts of
#: many do not hear from all at one instant.
FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 15.0
#: Where only a person can help. More of it would look like an attack.
DENIED_WAIT_S = 60.0
#: A connection that stood for so long was a good one: the next trouble is a new one.
GOOD_S = 10.0
#: A refusal is told for so long after the last one.
HINT_S = 60.0
_DENIED = ("Permission denied", "Host key verification failed", "HOST IDENTIFICATION HAS CHANGED")
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9])?")


def is_host(told: str) -> bool:
    """Whether a job may say that it runs there: a name or an address, nothing that ``ssh`` would read otherwise."""
    if _NAME.fullmatch(told):
        return True
    try:
        return bool(ipaddress.ip_address(told))
    except ValueError:
        return False


@dataclass
class _End:
    """One local end. ``far`` is where it leads; None while it is not open."""

    wanted: Wanted
    port: int | None = None
    far: Far | None = None
    #: None where an ``ssh`` that an earlier process of ours started listens already
    held: HeldPort | None = None
    why: str = ""
    #: what the database was told last
    told: tuple[str, str, Far] | None = None
    was_up: bool = False


class Line(threading.Thread):
    """``want`` says what is to be kept; with nothing to keep it ends its connection and itself."""

    def __init__(self, ctx: Context, ssh: Mapping[str, Any], folder: Path, environ: Mapping[str, str]) -> None:
        self.connection = Connection(ssh, folder, environ)
        super().__init__(name=f"tunnels to {self.connection.name}", daemon=True)
        self._ctx = ctx
        self._wanted: dict[int, Wanted] = {}
        self._ends: dict[int, _End] = {}
        self._lock = threading.Lock()
        self._over = False
        self._leave = False
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stands = False
        self._stood_since = 0.0
        self._connecting = False
        self._next_try_at = 0.0
        self._ask_at = 0.0
        self._wait_s = FIRST_WAIT_S
        self._trouble = ""
        #: what was refused lately to one that goes through it
        self._hint = ""
        self._hint_at = 0.0

    def knows(self, attempt_id: int) -> bool:
        """Whether it has, or is about to have, a local end for it."""
        with self._lock:
            return not self._over and (attempt_id in self._wanted or attempt_id in self._ends)

    def want(self, wanted: Iterable[Wanted]) -> bool:
        """Keep these. False when it has ended: another one must."""
        with self._lock:
            if self._over:
                return False
            self._wanted = {one.attempt_id: one for one in wanted}
        self._wake()
        return True

    def stop(self) -> None:
        """Close everything, say so, and end."""
        self._leave = True
        self._wake()

    def run(self) -> None:
        self._take_over()
        try:
            while not self._leave:
                with self._lock:
                    wanted = dict(self._wanted)
                    self._over = not wanted and not self._ends
                    if self._over:
                        break
                self._turn(wanted)
                self._rest()
        finally:
            with self._lock:
                self._over = True
            self.connection.end()
            for end in self._ends.values():
                end.far, end.why = None, "the tunnels of this host were stopped"
                self._tell(end)
                self._let_go(end)
            os.close(self._wake_read)
            os.close(self._wake_write)

    def _take_over(self) -> None:
        """Go on with the connection of a process that was killed, if all that it listens on is known and wanted."""
        if not self.connection.find():
            return
        with self._lock:
            wanted = dict(self._wanted)
        found = {
            one.attempt_id: _End(one, one.port, one.far, told=("up", "", one.far), was_up=True)
            for one in wanted.values()
            if one.port is not None and one.state == "up" and one.led_to == one.far
        }
        if self.connection.listening() == {end.port for end in found.values()}:
            log.info("going on with the connection to %s", self.connection.name)
            self._ends, self._stands, self._stood_since = found, True, time.monotonic()
        else:
            self.connection.end()

    def _turn(self, wanted: Mapping[int, Wanted]) -> None:
        try:
            self._connect()
        except NoConnection as error:
            self._lose(str(error))
        gone = [end for attempt_id, end in self._ends.items() if attempt_id not in wanted]
        for end in gone:
            self._close(end)
        for attempt_id, one in wanted.items():
            end = self._ends.setdefault(attempt_id, _End(one))
            end.wanted = one
            self._keep(end)
            self._tell(end)

    def _connect(self) -> None:
        now = time.monotonic()
        if self._stands:
            self.connection.check_alive()
            if self.connection.is_stopped:
                self.connection.end()
                raise NoConnection("its ssh was frozen and was ended")
            if now >= self._ask_at:
                self.connection.check_answers()
                self._ask_at = time.monotonic() + ASK_S
            if now - self._stood_since > GOOD_S:
                self._wait_s = FIRST_WAIT_S
            refused = self.connection.refused_since()
            if refused and not self._hint:
                log.warning("%s", refused)
            if refused or now - self._hint_at > HINT_S:
                self._hint, self._hint_at = refused, now
        elif self._connecting:
            if self.connection.stands():
                log.info("connected to %s", self.connection.name)
                self._stands, self._connecting, self._trouble, self._hint = True, False, "", ""
                self._stood_since, self._ask_at = time.monotonic(), time.monotonic() + ASK_S
        elif now >= self._next_try_at:
            self.connection.start()
            self._connecting = True

    def _lose(self, why: str) -> None:
        self._stands = self._connecting = False
        self._trouble = f"{self.connection.name}: {why}"
        denied = any(words in why for words in _DENIED)
        wait_s = DENIED_WAIT_S if denied else self._wait_s * random.uniform(0.8, 1.2)
        self._next_try_at = time.monotonic() + wait_s
        self._wait_s = min(LONGEST_WAIT_S, 2 * self._wait_s)
        log.warning("no connection to %s, tried again in %.1f s: %s", self.connection.name, wait_s, why)
        for end in self._ends.values():
            end.far, end.why = None, self._trouble
            # at once: until it is held, the port is anybody's
            self._hold(end)

    def _keep(self, end: _End) -> None:
        one = end.wanted
        if not is_host(one.far.host):
            end.why = f"no name or address of a host: {one.far.host[:100]!r}"
            if end.far is not None:
                self._close_forward(end)
            return
        if end.port is None and not self._lease(end):
            return
        if end.far is not None and end.far == one.far:
            return
        if end.far is not None:
            self._close_forward(end)
        self._hold(end)
        if end.held is None or not self._stands:
            end.why = end.why or self._trouble or f"connecting to {self.connection.name}"
            return
        assert end.port is not None
        # said before it is so: nobody may take the end of one address for that of another
        end.why = ""
        self._tell(end)
        try:
            with end.held.offered():
                self.connection.forward(end.port, one.far)
            end.far = one.far
        except NoConnection as error:
            if self.connection.is_foreign(end.port):
                self._give_up_port(end, f"a stranger took port {end.port}")
                return
            self.connection.end()
            self._lose(str(error))

    def _lease(self, end: _End) -> bool:
        try:
            end.port = tunnels.lease_end(self._ctx, end.wanted)
        except (Collided, Unavailable) as error:
            log.warning("no local end for %s yet: %s", end.wanted.name, error)
            return False
        if end.port is None and not end.why:
            end.why = "no port of HOSTLER_PORTS is free for it, or a gateway still leads to the one it had"
            log.warning("no local end for %s yet: %s", end.wanted.name, end.why)
        return end.port is not None

    def _hold(self, end: _End) -> None:
        """Bind its port, so that nobody else can listen there."""
        if end.held is not None or end.port is None:
            return
        try:
            end.held = HeldPort(end.port)
        except PortTaken as error:
            self._give_up_port(end, str(error))

    def _give_up_port(self, end: _End, why: str) -> None:
        """Somebody else listens there: another port, once nobody routes to this one any more."""
        log.warning("%s gets another local end: %s", end.wanted.name, why)
        port = end.port
        self._let_go(end)
        try:
            if port is not None:
                tunnels.forget(self._ctx, [(end.wanted.attempt_id, port)])
        except (Collided, Unavailable) as error:
            # it stays stored as what it is: not open
            log.warning("port %s is not given back yet: %s", port, error)
            end.why = why
            return
        end.port, end.told, end.why = None, None, why

    def _close(self, end: _End) -> None:
        """Its attempt is gone, or wants no tunnel any more."""
        if end.far is not None:
            self._close_forward(end)
        self._let_go(end)
        try:
            if end.port is not None:
                tunnels.forget(self._ctx, [(end.wanted.attempt_id, end.port)])
        except (Collided, Unavailable) as error:
            log.warning("the local end of %s is not forgotten yet: %s", end.wanted.name, error)
            return
        del self._ends[end.wanted.attempt_id]

    def _close_forward(self, end: _End) -> None:
        assert end.port is not None
        assert end.far is not None
        far, end.far = end.far, None
        try:
            if self._stands:
                self.connection.cancel(end.port, far)
        except NoConnection as error:
            self.connection.end()
            self._lose(str(error))

    def _let_go(self, end: _End) -> None:
        if end.held is not None:
            end.held.close()
            end.held = None

    def _tell(self, end: _End) -> None:
        """The database, if it does not know; what cannot be told now is told in the next turn."""
        if end.port is None:
            return
        is_open = end.far is not None and end.far == end.wanted.far and not self._trouble
        end.was_up |= is_open
        state = "up" if is_open else "down" if end.was_up else "opening"
        message = self._hint if is_open else end.why or self._trouble
        told = (state, message, end.wanted.far)
        if told == end.told:
            return
        try:
            tunnels.record(self._ctx, end.wanted.attempt_id, state=state, message=message, far=end.wanted.far)
            end.told = told
        except (Collided, Unavailable) as error:
            log.warning("that the local end of %s is %s is told later: %s", end.wanted.name, state, error)

    def _rest(self) -> None:
        wait_s = CONNECTING_S if self._connecting else TURN_S
        if not self._stands and not self._connecting:
            wait_s = min(wait_s, max(0.0, self._next_try_at - time.monotonic()))
        ended = self.connection.fileno()
        ready, _, _ = select.select([self._wake_read, *([ended] if ended is not None else [])], [], [], wait_s)
        if self._wake_read in ready:
            os.read(self._wake_read, 4096)

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b"!")
        except (BlockingIOError, OSError):
            # full of wake-ups already, or at its end
            return
