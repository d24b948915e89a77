"""Looking at replicas: what the backend knows, what they answer, what that means, and the one write for all of it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from app.domain.lifecycle import LAUNCHING, SERVING, TERMINAL, State
from app.domain.tasks import Phase
from app.domain.verdicts import Verdict, judge
from app.usecases import ends, launches, watching
from app.usecases.ends import End
from app.usecases.watching import Fact, Move
from workers.backends.base import BackendError, Handle, Liveness, Observation
from workers.bootstrap import Runtime
from workers.engine_targets import (
    diagnostics_timeout_s,
    engine_of,
    handle_of,
    readiness_target,
    to_json,
    wants_diagnostics,
)
from workers.launching import diagnostics_end, evidence, tail_of
from workers.probes.batch import Prober
from workers.probes.diagnostics import run_diagnostics
from workers.probes.wire import ProbeResult
from workers.stopping import end_attempt
from workers.suspicion import Suspicion

log = logging.getLogger(__name__)

#: A probe of a ready replica may take this long before it counts as failed.
PROBE_TIMEOUT_S = 5.0
#: While a launch is awaited a probe that is not answered at once is asked again soon.
LOOK_TIMEOUT_S = 0.5


@dataclass(frozen=True)
class Seen:
    """One look at one replica."""

    row: Any
    handle: Handle
    observation: Observation
    probe: ProbeResult | None
    verdict: Verdict


class Watch:
    """Looks at batches of replicas of this host. May be used from several threads, each with a Prober of its own."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.ctx = runtime.ctx
        self._suspicion = Suspicion(runtime.settings.probe_interval_s)
        self._threads = ThreadPoolExecutor(8, thread_name_prefix="watch")
        self._lock = threading.Lock()
        self._busy: dict[str, Future[None]] = {}

    def look(self, rows: Sequence[Any], prober: Prober, *, timeout_s: float = PROBE_TIMEOUT_S) -> list[Seen]:
        """Look at ``rows`` once and record what it means. Returns what was seen of those that were looked at."""
        rows = [row for row in rows if not self.is_busy(row.id)]
        for row in rows:
            if row.state == State.STOPPING or row.state in TERMINAL:
                self._begin(row, self._end, row)
        seen = self._see([row for row in rows if row.state in _LIVING and row.attempt_id], prober, timeout_s)
        self._record(seen)
        return seen

    def is_busy(self, replica_id: str) -> bool:
        """Whether something about it is under way in a thread."""
        return replica_id in self._busy

    def close(self) -> None:
        """Wait for what is under way."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _see(self, rows: Sequence[Any], prober: Prober, timeout_s: float) -> list[Seen]:
        found = {row.id: self._find(row) for row in rows}
        handles = {replica_id: handle for replica_id, handle in found.items() if handle is not None}
        rows = [row for row in rows if row.id in handles]
        observed: dict[str, Observation] = {}
        for name in sorted({row.backend for row in rows}):
            batch = [row for row in rows if row.backend == name]
            looked = self._inspect(name, [handles[row.id] for row in batch])
            observed |= {row.id: one for row, one in zip(batch, looked, strict=True)}
        asked = [row for row in rows if self._must_probe(row, observed[row.id])]
        targets = [replace(readiness_target(self.ctx, row, row.port), timeout_s=timeout_s) for row in asked]
        answers = prober.probe(targets)
        probes = {row.id: answer for row, answer in zip(asked, answers, strict=True)}
        return [self._judge(row, handles[row.id], observed[row.id], probes.get(row.id)) for row in rows]

    def _find(self, row: Any) -> Handle | None:
        if row.backend_ref is not None:
            return handle_of(row.backend, row.attempt_name, row.backend_ref)
        if row.launching_at is None:
            # its launcher holds it and has not asked the backend yet
            return None
        handle = self.runtime.backend(row.backend).adopt(row.attempt_name)
        if handle is not None:
            watching.record_handle(self.ctx, row.attempt_id, to_json(handle))
        return handle

    def _inspect(self, backend: str, handles: Sequence[Any]) -> list[Observation]:
        try:
            return self.runtime.backend(backend).inspect(handles)
        except BackendError as error:
            return [Observation(Liveness.UNKNOWN, message=str(error)) for _ in handles]

    def _must_probe(self, row: Any, observation: Observation) -> bool:
        return (
            self.runtime.backend(row.backend).serves_http
            and observation.liveness is Liveness.RUNNING
            and row.port is not None
            and observation.owns_port is not False
        )

    def _judge(self, row: Any, handle: Any, observation: Observation, probe: ProbeResult | None) -> Seen:
        answers = observation.answers if probe is None else probe.ok
        if observation.owns_port is False:
            answers = False
        detail = probe.detail if probe is not None and not probe.ok else ""
        found = evidence(
            observation,
            State(row.state),
            answers=answers,
            failures=row.check_failures,
            overdue=bool(row.overdue),
            was_ready="ready" in row.timestamps and row.state == State.UNREACHABLE,
            detail=detail if observation.liveness is Liveness.RUNNING else "",
        )
        return Seen(row, handle, observation, probe, judge(found, self.ctx.settings.unhealthy_after))

    def _record(self, seen: Sequence[Seen]) -> None:
        moves: list[Move] = []
        facts: list[Fact] = []
        for one in seen:
            if self._must_wait(one):
                continue
            verdict = one.verdict
            if verdict.to is State.FAILED:
                self._begin(one.row, self._fail, one)
            elif verdict.to is State.READY and State(one.row.state) in LAUNCHING:
                self._become_ready(one, moves)
            elif verdict.to is not None:
                moves.append(_move(one))
            elif _worth_writing(one):
                facts.append(_fact(one))
        watching.record_sweep_moves(self.ctx, moves)
        watching.record_facts(self.ctx, facts)

    def _must_wait(self, one: Seen) -> bool:
        row, now = one.row, time.monotonic()
        if State(row.state) not in (*SERVING, State.UNREACHABLE):
            return False
        answered = one.probe.ok if one.probe else one.observation.answers
        liveness = one.observation.liveness
        silent = liveness in (Liveness.UNKNOWN, Liveness.ABSENT) or (liveness is Liveness.RUNNING and not answered)
        self._suspicion.note(row.pool, row.id, silent=silent, now=now)
        if one.verdict.to is None or one.verdict.proven or not self._suspicion.holds(row.pool, now):
            return False
        if self._suspicion.is_new(row.pool, now):
            silent_count, total = self._suspicion.counts(row.pool, now)
            fingerprint = self.runtime.backend(row.backend).fingerprint({})
            detail = fingerprint.detail if fingerprint.healthy else f"fingerprint: {fingerprint.detail}"
            watching.record_suspicion(self.ctx, pool=row.pool, silent=silent_count, of=total, detail=detail)
        return True

    def _become_ready(self, one: Seen, moves: list[Move]) -> None:
        if wants_diagnostics(one.row) and self.runtime.backend(one.row.backend).serves_http:
            self._begin(one.row, self._diagnose, one)
            return
        more: dict[str, Any] = {}
        if wants_diagnostics(one.row):
            more["diagnostics"] = {"passed": True, "simulated": True, "checks": [], "duration_s": 0.0}
        moves.append(_move(one, more))

    def _diagnose(self, one: Seen) -> None:
        row = one.row
        watching.set_launch_phase(self.ctx, row.id, Phase.DIAGNOSING)
        # nobody else should begin the same while this one runs
        watching.recheck(self.ctx, row.id, diagnostics_timeout_s(row) + 10)
        diagnostics = run_diagnostics(
            engine_of(row),
            row.spec["resolved"]["config"],
            row.model_name,
            launches.base_url(row, row.port) or "",
            self.ctx.engine_key,
            diagnostics_timeout_s(row),
        )
        if diagnostics["passed"]:
            watching.record_sweep_moves(self.ctx, [_move(one, {"diagnostics": diagnostics})])
            return
        end = diagnostics_end(diagnostics, tail_of(self.runtime.backend(row.backend), one.handle))
        ends.record_failed(self.ctx, row.id, row.attempt, State(row.state), end, diagnostics=diagnostics)

    def _fail(self, one: Seen) -> None:
        row, seen, verdict = one.row, one.observation, one.verdict
        self._suspicion.forget(row.pool, row.id)
        tail = tail_of(self.runtime.backend(row.backend), one.handle)
        end = End(verdict.reason, verdict.message, seen.exit_code, seen.signal, tail, gone=verdict.gone)
        ends.record_failed(self.ctx, row.id, row.attempt, State(row.state), end)

    def _end(self, row: Any) -> None:
        self._suspicion.forget(row.pool, row.id)
        if row.attempt_id is None:
            ends.record_gone(self.ctx, row.id, row.attempt)
        elif end_attempt(self.runtime, row, look_s=0.5) == "stopping":
            left_s = max(0.05, row.grace_s - row.stopping_for_s) if row.stopping_for_s is not None else 1.0
            watching.recheck(self.ctx, row.id, min(1.0, left_s))

    def _begin(self, row: Any, act: Any, *arguments: Any) -> None:
        with self._lock:
            if row.id in self._busy:
                return
            future = self._busy[row.id] = self._threads.submit(act, *arguments)

        def done(finished: Future[None]) -> None:
            self._busy.pop(row.id, None)
            error = None if finished.cancelled() else finished.exception()
            if error is not None:
                log.error("replica %s: %s; it is tried again", row.id, error, exc_info=error)

        future.add_done_callback(done)


#: States in which the backend is asked and the engine probed.
_LIVING = (*LAUNCHING[1:], *SERVING, State.UNREACHABLE)


def _move(one: Seen, more: dict[str, Any] | None = None) -> Move:
    row, verdict = one.row, one.verdict
    state, to = State(row.state), verdict.to
    assert to is not None
    path: tuple[State, ...] = (state, to)
    if to is State.READY and state is State.STARTING:
        path = (state, State.WAITING_FOR_READY, to)
    patch: dict[str, Any] = {"check_failures": verdict.failures, "last_health": _health(one), **(more or {})}
    deadline_s = None
    if to is State.READY:
        patch["base_url"] = launches.base_url(row, row.port)
    if to is State.WAITING_FOR_READY:
        deadline_s = float((row.spec.get("timeouts") or {}).get("readiness_timeout_s") or launches.DEFAULT_READINESS_S)
    return Move(
        row.id,
        row.attempt,
        path,
        cause="observed",
        reason=verdict.reason,
        message=verdict.message,
        next_check_s=0 if to is State.WAITING_FOR_READY else 1.0,
        deadline_s=deadline_s,
        patch=patch,
    )


def _worth_writing(one: Seen) -> bool:
    if State(one.row.state) not in (*SERVING, State.UNREACHABLE):
        return False
    return one.row.last_health is None or one.verdict.failures != one.row.check_failures


def _fact(one: Seen) -> Fact:
    return Fact(one.row.id, one.row.attempt, one.verdict.failures, _health(one))


def _health(one: Seen) -> dict[str, Any]:
    probe = one.probe
    return {
        "healthy": bool(probe.ok if probe else one.observation.answers),
        "status": probe.status if probe else None,
        "latency_ms": probe.latency_ms if probe else None,
        "message": (probe.detail if probe else one.observation.message) or "",
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
