"""The agent's one loop: hints make it fast, and turns by the clock make it right."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

import hostler
from app.errors import Collided, Unavailable
from app.gateway.keeping import Keeper, Outcome
from app.gateway.lock import AgentLock
from app.gateway.places import Places
from app.usecases import gateways, tunnels
from app.usecases.context import Context
from app.usecases.registrations import CHANGED
from app.usecases.signals import Subscription

#: Whatever differs is put right within this, hint or no hint.
EVERY_S = 2.0
#: After a turn that left something undone, and the most it grows to while that stays so.
AGAIN_S, AGAIN_LONGEST_S = 0.05, 2.0
HEARTBEAT_S = 2.0
#: Between two looks whether what drains is idle.
DRAIN_LOOK_S = 0.01
#: What changes the table: every transition is an event, and tunnels come and go by themselves.
TOPICS = ("events", "models", CHANGED, tunnels.CHANGED)

log = logging.getLogger(__name__)


class Agent:
    """One loop. ``stop`` ends it after the turn at hand, and leaves everything as it is."""

    def __init__(self, ctx: Context, keeper: Keeper, places: Places) -> None:
        self._ctx = ctx
        self._keeper = keeper
        self._places = places
        self._over = threading.Event()
        self._wake: Subscription | None = None
        self._haproxy_up = False
        self._heartbeat_at = 0.0
        self._again_s = AGAIN_S

    def run(self) -> None:
        lock = AgentLock(self._places.folder / "agent.lock")
        try:
            if not lock.acquire(self._over):
                return
            log.info("keeping gateway %s", gateways.gateway_id(self._ctx.settings))
            with self._ctx.signals.subscribe(*TOPICS) as wake:
                self._wake = wake
                while not self._over.is_set():
                    self._once(wake)
        finally:
            lock.close()

    def stop(self, *_: object) -> None:
        self._over.set()
        if self._wake is not None:
            self._wake.wake()

    def _once(self, wake: Subscription) -> None:
        begun = time.monotonic()
        try:
            self._beat()
            outcome = self._keeper.turn()
            if outcome.haproxy_up != self._haproxy_up:
                self._haproxy_up, self._heartbeat_at = outcome.haproxy_up, 0.0
                self._beat()
            pause_s = self._pause_s(outcome)
            if outcome.draining and self._drain(outcome.draining, wake, time.monotonic() + pause_s):
                return
        except (Collided, Unavailable) as error:
            log.warning("nothing is changed: %s", error)
            pause_s = 0.5
        except OSError as error:
            log.error("the gateway's files cannot be written, nothing is changed: %s", error)
            pause_s = AGAIN_LONGEST_S
        if wake.wait(pause_s):
            # a crowd of changes is one turn: at most every second moment is spent on it
            self._over.wait(min(time.monotonic() - begun, 0.02))

    def _pause_s(self, outcome: Outcome) -> float:
        if not outcome.unfinished:
            self._again_s = AGAIN_S
            return EVERY_S
        pause_s, self._again_s = self._again_s, min(2 * self._again_s, AGAIN_LONGEST_S)
        return pause_s

    def _drain(self, draining: Mapping[str, tuple[str, ...]], wake: Subscription, until: float) -> bool:
        """Look at what drains until it is idle, the next turn is due, or a hint came: then True."""
        left = dict(draining)
        while left and time.monotonic() < until and not self._over.is_set():
            for server in self._keeper.confirm_idle(left):
                del left[server]
            if wake.wait(DRAIN_LOOK_S):
                return True
        return False

    def _beat(self) -> None:
        now = time.monotonic()
        if now - self._heartbeat_at >= HEARTBEAT_S:
            gateways.heartbeat(self._ctx, version=hostler.__version__, haproxy_up=self._haproxy_up)
            self._heartbeat_at = now
