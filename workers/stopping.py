"""Carrying out a stop: ask, look for a moment, leave the rest to the sweep, which asks again until it is gone."""

from __future__ import annotations

import os
import select
import time
from typing import Any
from weakref import WeakKeyDictionary

from app.domain.lifecycle import State
from app.domain.tasks import Phase, TaskKind
from app.usecases import claims, ends, watching
from app.usecases.ends import End
from app.usecases.watching import Told
from workers.backends.base import Backend, BackendError, Handle, Liveness, Observation
from workers.bootstrap import Runtime
from workers.engine_targets import handle_of
from workers.launching import finds_place, tail_of
from workers.pidfds import watch_fd

#: How long a backend may take to answer one question.
PATIENCE_S = 5.0
#: How long a stop task watches before it leaves the rest to the sweep.
LOOK_S = 1.0
#: A control worker asks a place elsewhere with no more patience than this; others' stops wait behind it.
ASK_S = 2.0
#: A place that did not answer in that time is left to the agent for so long.
AWAY_S = 30.0
#: What was asked to end so long ago, and is lost, may be given up.
LOST_S = 5.0


def carry_out_stop(runtime: Runtime, pool: str | None) -> str:
    """Claim the oldest stop and ask the backend to end the attempt. Returns the task's result line."""
    claim = claims.claim(runtime.ctx, TaskKind.STOP, pool=pool, worker=runtime.id, phase=Phase.STOPPING)
    if claim is None:
        return "nothing to claim"
    row = claim.row
    place = _place(runtime, row)
    outcome = "gone"
    if row.attempt_id is None:
        ends.record_gone(runtime.ctx, row.id, row.attempt)
    elif row.launching_at is not None and _is_out_of_reach(row, place):
        # whoever asked it would wait, and so would the stops behind this one: the agent asks, beside its other work
        outcome = "unreachable"
        watching.recheck(runtime.ctx, row.id, 0)
    else:
        force = bool(claim.arguments.get("force"))
        patience_s = PATIENCE_S if place is None else ASK_S
        outcome = end_attempt(runtime, row, force=force, look_s=LOOK_S, patience_s=patience_s)
        if outcome == "unreachable" and place is not None:
            _away[place] = time.monotonic() + AWAY_S
    if outcome != "gone":
        claims.leave(runtime.ctx, claim, Phase.STOPPING)
    return f"task={claim.task_id} replica={row.id} attempt={row.attempt} outcome={outcome}"


#: Until when (monotonic) each place that this process found away is not asked by it again.
_away: WeakKeyDictionary[Backend, float] = WeakKeyDictionary()


def _place(runtime: Runtime, row: Any) -> Backend | None:
    """The backend at the place elsewhere where it runs, which may be away for itself; None for those of this host."""
    try:
        backend = runtime.backend_of(row)
    except BackendError:
        return None
    return backend if row.node is None and backend.place_options else None


def _is_out_of_reach(row: Any, place: Backend | None) -> bool:
    """Whether it is elsewhere, and its place could not be asked when its stop was asked for, or another's just now."""
    if place is not None and _away.get(place, 0.0) > time.monotonic():
        return True
    before = {state: at for state, at in row.timestamps.items() if state != State.STOPPING}
    return row.node is None and max(before, key=lambda state: before[state], default=None) == State.UNREACHABLE


def end_attempt(
    runtime: Runtime, row: Any, *, force: bool = False, look_s: float = 0.0, patience_s: float = PATIENCE_S
) -> str:
    """Ask the backend once to end the row's open attempt, and watch up to ``look_s`` for it to be gone.

    Returns ``gone`` (recorded), ``stopping``, or ``unreachable`` when the backend could not be asked, ``patience_s``
    long for each question.
    """
    if row.launching_at is None:
        # no backend was asked for it; nor will be, for its launch is over
        ends.record_gone(runtime.ctx, row.id, row.attempt)
        return "gone"
    handle = handle_of(row.backend, row.attempt_name, row.backend_ref)
    try:
        backend = runtime.backend_of(row)
        if row.backend_ref is None:
            # its launcher may have died between launch and save
            handle = backend.adopt(row.attempt_name, patience_s) or handle
        left = backend.stop(handle, grace_s=row.grace_s, force=force or row.grace_s == 0, timeout_s=patience_s)
        if row.stop_asked_at is None:
            watching.record_stop_asked(runtime.ctx, row.attempt_id)
        deadline = time.monotonic() + look_s
        while not _is_gone(left, row) and time.monotonic() < deadline:
            _wait_for_end(backend, handle, deadline)
            left = backend.inspect([handle], patience_s)[0]
    except BackendError as error:
        watching.record_stop_trouble(runtime.ctx, row.id, row.attempt_id, str(error))
        return "unreachable"
    if not _is_gone(left, row):
        if left.hindrance:
            watching.record_stop_trouble(runtime.ctx, row.id, row.attempt_id, left.hindrance)
        return "stopping"
    if left.told:
        # else a cluster's last word of it would be that it runs
        watching.record_told(runtime.ctx, [Told(row.id, row.attempt, told=left.told)])
    end = End(None, left.message, left.exit_code, left.signal, tail_of(runtime.ctx, backend, handle))
    ends.record_gone(runtime.ctx, row.id, row.attempt, end)
    return "gone"


def _is_gone(left: Observation, row: Any) -> bool:
    """What is nowhere, and was asked to end, is not waited for: there is nobody left to tell of its end."""
    given_up = State(row.state) is State.FAILED or (row.stopping_for_s or 0) >= LOST_S
    return left.liveness.gone or (left.liveness is Liveness.LOST and given_up)


def _wait_for_end(backend: Backend, handle: Handle, deadline: float) -> None:
    """Sleep until the process ends or a few milliseconds passed: its leader's end is not yet its group's."""
    descriptor = watch_fd(backend, handle)
    if descriptor is None:
        # asking another host costs both of us
        time.sleep(0.25 if finds_place(backend) else 0.01)
        return
    try:
        select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        time.sleep(0.002)
    finally:
        os.close(descriptor)
