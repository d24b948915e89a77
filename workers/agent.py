"""The node's agent, one per host: heartbeat, death watch, readiness and health, and sweeping when nobody else does.

``python -m workers.agent``. It may be killed at any line: what it knows is in the database or found again.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from functools import partial

from app.log import configure
from app.settings import Settings
from app.stack.address import tell_children, with_node_address
from app.usecases.presence import NodeTaken
from workers import services
from workers.bootstrap import Runtime
from workers.guarded import guarded
from workers.housekeeping import CANARY_S, Housekeeping
from workers.log_copier import LogCopier
from workers.lookout import Lookout
from workers.orphans import clear_orphans, end_left_behind
from workers.registered import Registered
from workers.stand_in import StandIn

log = logging.getLogger(__name__)

#: Between two looks for what is left of attempts that ended, and of those that were given up.
ORPHANS_S = 30.0
LEFT_BEHIND_S = 5.0


class Agent:
    """Two lookouts, one for this host and one for what runs on none, and timers."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.ctx = runtime.ctx
        self._stop = threading.Event()
        self._here = Lookout(runtime, runtime.settings.node_name, self._stop)
        self._elsewhere = Lookout(runtime, None, self._stop)
        self._housekeeping = Housekeeping(runtime)
        self._stand_in = StandIn(runtime.settings, self._housekeeping.broker_away, self._stop)
        self._broken = False

    def run(self) -> None:
        """Until ``stop``."""
        self._housekeeping.begin()
        elsewhere = self._begin("elsewhere", self._elsewhere.run)
        for name, act in (
            ("serving", self._here.probe_serving),
            ("serving-elsewhere", self._elsewhere.probe_serving),
            ("orphans", self._clear_orphans),
            ("signals", self._listen),
            ("house", self._keep_house),
            ("canaries", self._send_canaries),
            ("services", partial(services.follow, self.ctx, self._stop)),
            ("registered", partial(Registered(self.ctx).run, self._stop)),
            ("logs", partial(LogCopier(self.runtime).run, self._stop)),
            ("stand-in-control", self._stand_in.control),
            ("stand-in-launches", self._stand_in.launches),
        ):
            self._begin(name, act)
        self._here.run()
        elsewhere.join()
        if self._broken:
            raise SystemExit(1)

    def stop(self, *_: object) -> None:
        self._stop.set()
        self._wake()

    def _begin(self, name: str, act: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=self._keep_alive, args=(act,), name=name, daemon=True)
        thread.start()
        return thread

    def _keep_alive(self, act: Callable[[], None]) -> None:
        """An agent that lacks one of its threads would be alive and blind: it ends, to be started again."""
        try:
            act()
        finally:
            if not self._stop.is_set():
                self._broken = True
                log.critical("thread %s ended; the agent ends with it", threading.current_thread().name)
                self.stop()

    def _listen(self) -> None:
        topics = (f"due:{self.runtime.settings.node_name}", "due:")
        with self.ctx.signals.subscribe(*topics) as subscription:
            while not self._stop.is_set():
                if subscription.wait(1.0):
                    self._wake()

    def _clear_orphans(self) -> None:
        # in a thread of its own: a place that does not answer must hold up no heartbeat. Not at once: a launch that was
        # just taken over is looked at first
        next_at = time.monotonic() + ORPHANS_S
        while not self._stop.wait(LEFT_BEHIND_S):
            guarded(self._stop, end_left_behind, self.runtime)
            if time.monotonic() >= next_at:
                guarded(self._stop, clear_orphans, self.runtime)
                next_at = time.monotonic() + ORPHANS_S

    def _keep_house(self) -> None:
        while not self._stop.wait(1.0):
            try:
                guarded(self._stop, self._housekeeping.turn)
            except NodeTaken as taken:
                log.critical("%s", taken)
                return

    def _send_canaries(self) -> None:
        while not self._stop.is_set():
            guarded(self._stop, self._housekeeping.send_canaries)
            self._stop.wait(CANARY_S)

    def _wake(self) -> None:
        self._here.wake()
        self._elsewhere.wake()


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
