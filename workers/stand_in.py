"""Without a broker nobody hears a bell: then the agent carries out itself what waits, one after the other, slower.

The broker is a doorbell and holds no work, so that nothing is lost while it is away. When it is back, workers claim
again what they hear of; whoever claims first has it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from app.domain.tasks import CONTROL_KINDS, LAUNCH_KINDS, REPLICA_KINDS, TaskKind
from app.errors import Collided, Unavailable
from app.settings import Settings, pools_served
from app.usecases import sweeps
from workers.bootstrap import Runtime
from workers.launching import launch_best
from workers.tasks.replicas import CARRIERS

log = logging.getLogger(__name__)

#: Between two looks for work while the broker is away.
LOOK_S = 0.5
#: Tasks of one pool and verb in a row; then the others have their turn.
IN_A_ROW = 20


class StandIn:
    """``control`` and ``launches`` are for a thread each, so that a stop never waits behind a launch."""

    def __init__(self, settings: Settings, broker_away: Callable[[], bool], stopping: threading.Event) -> None:
        self._settings = settings
        self._broker_away = broker_away
        self._stopping = stopping

    def control(self) -> None:
        """Until the agent stops: stops and health checks."""
        self._keep_on([kind for kind in REPLICA_KINDS if kind in CONTROL_KINDS])

    def launches(self) -> None:
        """Until the agent stops: creates, restarts and diagnoses."""
        self._keep_on([kind for kind in REPLICA_KINDS if kind not in CONTROL_KINDS])

    def _keep_on(self, kinds: list[TaskKind]) -> None:
        # backends and connections of its own: it waits where the agent must not
        while not self._stopping.wait(LOOK_S):
            if self._broker_away():
                runtime = Runtime(self._settings, "agent")
                try:
                    self._while_away(runtime, kinds)
                finally:
                    runtime.ctx.close()

    def _while_away(self, runtime: Runtime, kinds: list[TaskKind]) -> None:
        while self._broker_away() and not self._stopping.wait(LOOK_S):
            try:
                self._turn(runtime, kinds)
            except (Collided, Unavailable) as error:
                log.warning("%s", error)

    def _turn(self, runtime: Runtime, kinds: list[TaskKind]) -> None:
        node, served = self._settings.node_name, pools_served(self._settings)
        for kind, pool, bound_to in sweeps.waiting(runtime.ctx):
            if kind not in kinds or bound_to not in (None, node):
                continue
            if bound_to is None and served is not None and pool not in served:
                continue
            for _ in range(IN_A_ROW):
                if self._stopping.is_set() or not self._broker_away():
                    return
                outcome = _carry_out(runtime, kind, None if bound_to else pool)
                if outcome == "nothing to claim":
                    break
                log.info("in the broker's absence: %s %s", kind, outcome)


def _carry_out(runtime: Runtime, kind: TaskKind, pool: str | None) -> str:
    if kind in LAUNCH_KINDS:
        return launch_best(runtime, pool)
    return CARRIERS[kind](runtime, pool)
