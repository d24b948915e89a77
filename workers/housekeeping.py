"""What the agent does by the clock: heartbeats, canaries, dead workers, deadlines, and sweeping in beat's stead."""

from __future__ import annotations

import logging
import os
import time

import psutil

import hostler
from app.doorbell.queues import node_queue
from app.usecases import presence, sweeps
from app.usecases.nodes import SILENT_S
from app.usecases.presence import BackendFacts, NodeFacts, NodeTaken
from workers.backends import hardware
from workers.backends.proc import boot_id
from workers.backends.registry import BACKENDS
from workers.bootstrap import Runtime, is_alive

log = logging.getLogger(__name__)

HEARTBEAT_S = 5.0
CANARY_S = 10.0
#: A broker that takes so long for a message takes none.
CANARY_LATE_S = 5.0
#: Whoever had this host's name before, this host's last boot as a rule, is silent after so long.
NAME_S = SILENT_S + 10.0


class Housekeeping:
    """``begin`` once, ``turn`` about every second."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._ctx = runtime.ctx
        self._next_heartbeat = 0.0
        self._next_sweep = 0.0
        self._canaries_refused = False
        self._canary_begun: float | None = None

    def begin(self) -> None:
        """Say what this host has and what its backends accept."""
        settings = self._runtime.settings
        presence.register_backends(
            self._ctx,
            [
                BackendFacts(name, one.summary, one.options_schema, one.host_bound, one.serves_http, one.lacks)
                for name, one in BACKENDS.items()
            ],
        )
        found = hardware.describe(settings.node_gpus)
        self._facts = NodeFacts(
            cpus=os.cpu_count() or 1,
            memory_bytes=psutil.virtual_memory().total,
            gpus=found["gpus"],
            boot_id=boot_id(),
            version=hostler.__version__,
        )
        self._take_name()
        # known from the first moment, not from the first turn
        self.turn()

    def turn(self) -> None:
        """Whatever is due by now."""
        now = time.monotonic()
        presence.take_back_dead(self._ctx, is_alive)
        sweeps.end_overdue(self._ctx)
        sweeps.end_lifetimes(self._ctx)
        if now >= self._next_heartbeat:
            self._next_heartbeat = now + HEARTBEAT_S
            self._heartbeat()
        if now >= self._next_sweep:
            # beat rings for the same tick; whoever is first carries it out, and repair does not hang on the broker
            self._next_sweep = now + self._runtime.settings.sweep_interval_s
            sweeps.sweep(self._ctx, self._runtime.id)

    def send_canaries(self) -> None:
        """Ring for this host's own workers. In a thread of its own: a broker that hangs must hold up no deadline."""
        node = self._runtime.settings.node_name
        queues = [node_queue(node, control=control) for control in (False, True)]
        begun = self._canary_begun = time.monotonic()
        try:
            taken = all(self._ctx.doorbell.ring_now("canary", queue, node=node) for queue in queues)
        finally:
            self._canary_begun = None
        # one that was taken so late was taken by a broker that came back meanwhile
        was_away = self._canaries_refused or time.monotonic() - begun > CANARY_LATE_S
        if not taken and not self._canaries_refused:
            log.warning("the broker is away: its work is carried out here")
        elif taken and was_away:
            log.warning("the broker is back")
        self._canaries_refused = not taken
        if taken:
            presence.heartbeat_node(self._ctx, boot_id(), canary_sent=True)

    def broker_away(self) -> bool:
        """Whether the broker refused the last canary, or has not taken the present one for ``CANARY_LATE_S``."""
        begun = self._canary_begun
        return self._canaries_refused or (begun is not None and time.monotonic() - begun > CANARY_LATE_S)

    def _take_name(self) -> None:
        """Raises NodeTaken when somebody else lives under this host's name."""
        deadline = time.monotonic() + NAME_S
        while True:
            try:
                presence.register_node(self._ctx, self._facts)
                return
            except NodeTaken as taken:
                if time.monotonic() > deadline:
                    raise
                log.warning("%s", taken)
                time.sleep(1)

    def _heartbeat(self) -> None:
        if not presence.heartbeat_node(self._ctx, boot_id(), canary_sent=False):
            # forgotten after a long silence, or another's by now
            presence.register_node(self._ctx, self._facts)
        presence.heartbeat_worker(self._ctx, self._runtime.id, "agent", os.getpid(), [], 0)
