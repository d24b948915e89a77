"""The node's agent, one per host: heartbeat, death watch, readiness and health, and sweeping when nobody else does.

``python -m workers.agent``. It may be killed at any line: what it knows is in the database or found again.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import signal
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from app.domain.lifecycle import LAUNCHING, SERVING, State
from app.errors import Collided, Unavailable
from app.log import configure
from app.settings import Settings
from app.stack.address import tell_children, with_node_address
from app.usecases import watching
from app.usecases.presence import NodeTaken
from workers import services
from workers.bootstrap import Runtime
from workers.expected import Expected
from workers.housekeeping import CANARY_S, Housekeeping
from workers.log_copier import LogCopier
from workers.pidfds import Pidfds
from workers.probes.batch import Prober
from workers.registered import Registered
from workers.rounds import Rounds
from workers.stand_in import StandIn
from workers.watch import Watch

log = logging.getLogger(__name__)

#: Longest time between two questions what is due; a signal makes it sooner.
TICK_S = 0.25


class Agent:
    """One loop that must never wait long, one thread for probes that may, and timers."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.ctx = runtime.ctx
        self._watch = Watch(runtime)
        self._pidfds = Pidfds(runtime)
        self._expected = Expected(self._watch)
        self._serving: queue.Queue[list[Any] | None] = queue.Queue()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stop = threading.Event()
        self._housekeeping = Housekeeping(runtime)
        self._stand_in = StandIn(runtime.settings, self._housekeeping.broker_away, self._stop)
        self._broken = False
        #: in the queue or being probed: a slow probe must not let old rows pile up
        self._in_flight: set[str] = set()
        #: rows that rounds read, for the death watch
        self._found: queue.SimpleQueue[Sequence[Any]] = queue.SimpleQueue()

    def run(self) -> None:
        """Until ``stop``."""
        self._housekeeping.begin()
        for name, act in (
            ("serving", self._probe_serving),
            ("signals", self._listen),
            ("house", self._keep_house),
            ("canaries", self._send_canaries),
            ("services", partial(services.follow, self.ctx, self._stop)),
            ("registered", partial(Registered(self.ctx).run, self._stop)),
            ("logs", partial(LogCopier(self.runtime).run, self._stop)),
            ("stand-in-control", self._stand_in.control),
            ("stand-in-launches", self._stand_in.launches),
        ):
            threading.Thread(target=self._keep_alive, args=(act,), name=name, daemon=True).start()
        while not self._stop.is_set():
            self._guarded(self._turn)
        self._serving.put(None)
        self._watch.close()
        self._pidfds.close()
        if self._broken:
            raise SystemExit(1)

    def stop(self, *_: object) -> None:
        self._stop.set()
        self._wake()

    def _keep_alive(self, act: Callable[[], None]) -> None:
        """An agent that lacks one of its threads would be alive and blind: it ends, to be started again."""
        try:
            act()
        finally:
            if not self._stop.is_set():
                self._broken = True
                log.critical("thread %s ended; the agent ends with it", threading.current_thread().name)
                self.stop()

    def _turn(self) -> None:
        due = watching.claim_due(self.ctx)
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

    def _probe_serving(self) -> None:
        with Prober() as prober:
            rounds = Rounds(self._watch, prober, self._take_found)
            while not self._stop.is_set():
                # first, so that a crowd that becomes ready holds up no round
                if not rounds.wait_s:
                    self._guarded(rounds.turn)
                try:
                    rows = self._serving.get(timeout=rounds.wait_s)
                except queue.Empty:
                    continue
                if rows is None:
                    return
                self._guarded(self._watch.look, rows, prober)
                self._in_flight -= {row.id for row in rows}

    def _take_found(self, rows: Sequence[Any]) -> None:
        if rows:
            self._found.put(rows)
            self._wake()

    def _listen(self) -> None:
        topics = (f"due:{self.runtime.settings.node_name}", "due:")
        with self.ctx.signals.subscribe(*topics) as subscription:
            while not self._stop.is_set():
                if subscription.wait(1.0):
                    self._wake()

    def _keep_house(self) -> None:
        while not self._stop.wait(1.0):
            try:
                self._guarded(self._housekeeping.turn)
            except NodeTaken as taken:
                log.critical("%s", taken)
                return

    def _send_canaries(self) -> None:
        while not self._stop.is_set():
            self._guarded(self._housekeeping.send_canaries)
            self._stop.wait(CANARY_S)

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b"!")
        except BlockingIOError:
            # the pipe is full of wake-ups already
            return

    def _guarded(self, act: Callable[..., Any], *arguments: Any) -> None:
        try:
            act(*arguments)
        except (Collided, Unavailable) as error:
            log.warning("%s", error)
            self._stop.wait(1.0)


def main() -> None:
    """Run the agent until SIGTERM or SIGINT."""
    settings = with_node_address(Settings.load())
    tell_children(settings)
    configure(settings, "agent")
    agent = Agent(Runtime(settings, "agent"))
    signal.signal(signal.SIGTERM, agent.stop)
    signal.signal(signal.SIGINT, agent.stop)
    try:
        agent.run()
    except NodeTaken as taken:
        # two agents of one name would each find the other's replicas gone
        log.critical("%s", taken)
        raise SystemExit(1) from taken


if __name__ == "__main__":
    main()
