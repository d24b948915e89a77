"""Looking at replicas: what the backend knows, what they answer, what that means, and the one write for all of it."""

from __future__ import annotations

import calendar
import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from app.domain.lifecycle import LAUNCHING, SERVING, TERMINAL, Reason, State
from app.domain.tasks import Phase
from app.domain.verdicts import Verdict, judge, way
from app.usecases import ends, launches, reach, watching
from app.usecases.ends import End
from app.usecases.reach import Address, Unreached
from app.usecases.watching import Fact, Move
from workers.backends.base import Backend, BackendError, Fingerprint, Handle, Liveness, Observation
from workers.bootstrap import Runtime
from workers.deep import DeepProbes
from workers.engine_targets import (
    diagnostics_timeout_s,
    engine_of,
    explained_exit,
    handle_of,
    readiness_target,
    to_json,
    wants_diagnostics,
)
from workers.jobs import Jobs
from workers.launching import diagnostics_end, evidence, may_queue, simulated_diagnostics, tail_of, told_of
from workers.probes.batch import Prober
from workers.probes.diagnostics import run_diagnostics
from workers.probes.wire import ProbeResult
from workers.stopping import end_attempt
from workers.suspicion import Doubt, Suspicion
from workers.tellings import Tellings

log = logging.getLogger(__name__)

#: A probe of a ready replica may take this long before it counts as failed.
PROBE_TIMEOUT_S = 5.0
#: Places that are asked at once.
MOST_PLACES = 16
#: How old a stored probe may grow while nothing changes: writing each of them would cost more than probing does.
FRESH_S = 20.0
_AT = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Seen:
    """One look at one replica."""

    row: Any
    handle: Handle
    observation: Observation
    probe: ProbeResult | None
    verdict: Verdict
    #: what is known of its work (see ``workers.deep``), and why it counts as hung
    deep: dict[str, Any] | None = None
    hung: str = ""


class Watch:
    """Looks at batches of replicas of this host. May be used from several threads, each with a Prober of its own."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.ctx = runtime.ctx
        self._suspicion = Suspicion(runtime.settings.probe_interval_s, PROBE_TIMEOUT_S)
        self._ends = Jobs("ends", 8, places=4)
        # apart, because an engine that hangs in its diagnostics must not hold up a death or a kill, its own included
        self._diagnoses = Jobs("diagnoses", 16)
        self._deep = DeepProbes(runtime)
        self._told = Tellings(self.ctx)
        self._places = ThreadPoolExecutor(MOST_PLACES, thread_name_prefix="places")

    def look(self, rows: Sequence[Any], prober: Prober, *, timeout_s: float = PROBE_TIMEOUT_S) -> list[Seen]:
        """Look at ``rows`` once and record what it means. Returns what was seen of those that were looked at."""
        rows = [row for row in rows if self.has_backend(row)]
        for row in rows:
            if row.state == State.STOPPING or row.state in TERMINAL:
                self._ends.begin(row.id, self._end, row, place=self.runtime.backend_of(row))
        living = [row for row in rows if row.state in _LIVING and row.attempt_id and not self.is_busy(row.id)]
        seen = self._see(living, prober, timeout_s)
        self._record(seen)
        return seen

    def is_busy(self, replica_id: str) -> bool:
        """Whether something about it is under way in a thread."""
        return self._ends.has(replica_id) or self._diagnoses.has(replica_id)

    def inspect(self, backend: Backend, handles: Sequence[Handle]) -> list[Observation]:
        """One observation per handle; all unknown when the backend cannot be asked."""
        try:
            return backend.inspect(handles)
        except BackendError as error:
            return [Observation(Liveness.UNKNOWN, message=str(error)) for _ in handles]

    def inspect_all(self, handles: Mapping[Backend, Sequence[Handle]]) -> dict[Backend, list[Observation]]:
        """The same at several places at once: one that does not answer holds up no other for longer than itself."""
        if len(handles) < 2:
            return {backend: self.inspect(backend, batch) for backend, batch in handles.items()}
        looks = {backend: self._places.submit(self.inspect, backend, batch) for backend, batch in handles.items()}
        return {backend: look.result() for backend, look in looks.items()}

    def has_backend(self, row: Any) -> bool:
        """Whether this version can look at it at all: a newer one may know more backends."""
        try:
            self.runtime.backend_of(row)
        except BackendError as error:
            log.warning("replica %s cannot be looked at here: %s", row.id, error)
            return False
        return True

    def note_answering(self, answered: Iterable[tuple[str, str]]) -> None:
        """These (pool, replica) answered, seen without ``look``: they are evidence about their pools too."""
        now = time.monotonic()
        pools = self._suspicion.note_answering(answered, now)
        for pool in pools:
            # a suspicion ends when it is looked at while most answer
            self._suspicion.doubt(pool, now)

    def is_at_rest(self, replica_id: str, attempt: int, stored: dict[str, Any] | None) -> bool:
        """Whether its work need not be looked into now; ``stored`` is what its last health says of it."""
        return self._deep.is_at_rest(replica_id, attempt, stored)

    def close(self) -> None:
        """Wait for what is under way."""
        self._ends.close()
        self._diagnoses.close()
        self._deep.close()
        self._places.shutdown(wait=True, cancel_futures=True)

    def _see(self, rows: Sequence[Any], prober: Prober, timeout_s: float) -> list[Seen]:
        found = {row.id: self._find(row) for row in rows}
        handles = {replica_id: handle for replica_id, handle in found.items() if handle is not None}
        rows = [row for row in rows if row.id in handles]
        observed: dict[str, Observation] = {}
        by_place: defaultdict[Backend, list[Any]] = defaultdict(list)
        for row in rows:
            by_place[self.runtime.backend_of(row)].append(row)
        looks = self.inspect_all({at: [handles[row.id] for row in batch] for at, batch in by_place.items()})
        for backend, looked in looks.items():
            batch = by_place[backend]
            observed |= {row.id: one for row, one in zip(batch, looked, strict=True)}
            if may_queue(backend):
                self._told.keep([told_of(row.id, row.attempt, one) for row, one in zip(batch, looked, strict=True)])
        asked = [row for row in rows if self._must_probe(row, observed[row.id])]
        found_at = reach.addresses(self.ctx, [_located(row, observed[row.id]) for row in asked])
        for row in asked:
            if isinstance(at := found_at[row.id], Unreached):
                # no way to it is no word about it, whatever the backend saw: as if nobody could tell; but one that is
                # being launched just has not answered yet
                known = Liveness.RUNNING if State(row.state) in LAUNCHING else Liveness.UNKNOWN
                observed[row.id] = replace(observed[row.id], liveness=known, message=at.why)
        ways = [(row, at) for row in asked if isinstance(at := found_at[row.id], Address)]
        asked = [row for row, _ in ways]
        answers = prober.probe([replace(readiness_target(row, at), timeout_s=timeout_s) for row, at in ways])
        probes = {row.id: answer for row, answer in zip(asked, answers, strict=True)}
        return [self._judge(row, handles[row.id], observed[row.id], probes.get(row.id)) for row in rows]

    def _find(self, row: Any) -> Handle | None:
        if row.backend_ref is not None:
            return handle_of(row.backend, row.attempt_name, row.backend_ref)
        if row.launching_at is None:
            # its launcher holds it and has not asked the backend yet
            return None
        try:
            handle = self.runtime.backend_of(row).adopt(row.attempt_name)
        except BackendError:
            # looked at by its name, it is unknown as long as that cannot be asked
            return handle_of(row.backend, row.attempt_name, None)
        if handle is not None:
            watching.record_handle(self.ctx, row.attempt_id, to_json(handle))
        return handle

    def _must_probe(self, row: Any, observation: Observation) -> bool:
        return (
            self.runtime.backend_of(row).serves_http
            and observation.liveness is Liveness.RUNNING
            and address_of(row, observation)[1] is not None
            and observation.owns_port is not False
        )

    def _judge(self, row: Any, handle: Any, observation: Observation, probe: ProbeResult | None) -> Seen:
        answers = observation.answers if probe is None else probe.ok
        if observation.owns_port is False:
            answers = False
        detail = probe.detail if probe is not None and not probe.ok else ""
        if probe is not None and probe.ok and observation.owns_port:
            self._deep.consider(row)
        hung = self._deep.hung(row) if probe is not None else ""
        found = evidence(
            observation,
            State(row.state),
            answers=answers,
            failures=row.check_failures,
            moved=row.port is not None and address_of(row, observation) != (row.host, row.port),
            displaced=row.reason == Reason.PREEMPTED,
            overdue=bool(row.overdue),
            was_ready=_was_ready(row),
            detail=detail if observation.liveness is Liveness.RUNNING else "",
            hung=hung,
        )
        verdict = judge(found, self.ctx.settings.unhealthy_after)
        return Seen(row, handle, observation, probe, verdict, self._deep.shown(row), hung)

    def _record(self, seen: Sequence[Seen]) -> None:
        moves: list[Move] = []
        facts: list[Fact] = []
        now = time.monotonic()
        doubts = self._note(seen, now)
        for one in seen:
            if self._must_wait(one, doubts.get(one.row.pool, Doubt.NONE), now):
                continue
            verdict = one.verdict
            if verdict.to is State.FAILED:
                self._ends.begin(one.row.id, self._fail, one, place=self.runtime.backend_of(one.row))
            elif verdict.to is State.READY and not _was_ready(one.row):
                self._become_ready(one, moves)
            elif verdict.to is not None:
                moves.append(_move(one))
            elif _worth_writing(one):
                facts.append(_fact(one))
        watching.record_sweep_moves(self.ctx, moves)
        watching.record_facts(self.ctx, facts)

    def _note(self, seen: Sequence[Seen], now: float) -> dict[str, Doubt]:
        """What the silence of each pool is worth, once all that was seen of it is known."""
        serving = [one for one in seen if State(one.row.state) in _SERVING]
        for one in serving:
            self._suspicion.note(one.row.pool, one.row.id, silent=_is_silent(one), now=now)
        doubts = {pool: self._suspicion.doubt(pool, now) for pool in {one.row.pool for one in serving}}
        for pool, doubt in doubts.items():
            if doubt is Doubt.BEGINS:
                silent, total = self._suspicion.counts(pool, now)
                found = self._fingerprint(next(one for one in serving if one.row.pool == pool))
                detail = found.detail if found.healthy else f"the backend itself does not answer: {found.detail}"
                watching.record_suspicion(self.ctx, pool=pool, silent=silent, of=total, detail=detail)
        return doubts

    def _must_wait(self, one: Seen, doubt: Doubt, now: float) -> bool:
        row, verdict = one.row, one.verdict
        if State(row.state) not in _SERVING or verdict.to is None or verdict.proven:
            return False
        if doubt in (Doubt.BEGINS, Doubt.HOLDS):
            return True
        if verdict.to is not State.FAILED:
            return False
        # the first of many to fall silent looks like a single one
        if not self._suspicion.is_confirmed(row.pool, row.id, now):
            return True
        return doubt is Doubt.OUTLASTED and not self._fingerprint(one).healthy

    def _fingerprint(self, one: Seen) -> Fingerprint:
        return self.runtime.backend_of(one.row).fingerprint(one.row.spec["resolved"]["backend_options"])

    def _become_ready(self, one: Seen, moves: list[Move]) -> None:
        if wants_diagnostics(one.row) and self.runtime.backend_of(one.row).serves_http:
            self._diagnoses.begin(one.row.id, self._diagnose, one)
            return
        more: dict[str, Any] = {}
        if wants_diagnostics(one.row):
            more["diagnostics"] = simulated_diagnostics()
        moves.append(_move(one, more))

    def _diagnose(self, one: Seen) -> None:
        row, here = one.row, _located(one.row, one.observation)
        address = reach.address(self.ctx, here)
        if isinstance(address, Unreached):
            return
        watching.set_launch_phase(self.ctx, row.id, Phase.DIAGNOSING)
        diagnostics = run_diagnostics(
            engine_of(row),
            row.spec["resolved"]["config"],
            row.model_name,
            address.url,
            self.ctx.engine_key,
            diagnostics_timeout_s(row),
        )
        if diagnostics["passed"]:
            watching.record_sweep_moves(self.ctx, [_move(one, {"diagnostics": diagnostics})])
            return
        if reach.wants_tunnel(row) and not row.overdue:
            unanswered = any(not check["ok"] and check["status"] is None for check in diagnostics["checks"])
            if unanswered or reach.address(self.ctx, here) != address:
                # the way to it broke meanwhile, which says nothing about it: asked anew while there is time
                return
        end = diagnostics_end(diagnostics, tail_of(self.ctx, self.runtime.backend_of(row), one.handle))
        ends.record_failed(self.ctx, row.id, row.attempt, State(row.state), end, diagnostics=diagnostics)

    def _fail(self, one: Seen) -> None:
        row, seen, verdict = one.row, one.observation, one.verdict
        self._suspicion.forget(row.pool, row.id)
        tail = tail_of(self.ctx, self.runtime.backend_of(row), one.handle)
        reason, message = verdict.reason, verdict.message
        if not _was_ready(row):
            reason, message = explained_exit(row, reason, message, tail)
        end = End(reason, message, seen.exit_code, seen.signal, tail, gone=verdict.gone)
        ends.record_failed(self.ctx, row.id, row.attempt, State(row.state), end)

    def _end(self, row: Any) -> None:
        self._suspicion.forget(row.pool, row.id)
        if row.attempt_id is None:
            ends.record_gone(self.ctx, row.id, row.attempt)
        elif end_attempt(self.runtime, row, look_s=0.5) == "stopping":
            left_s = max(0.05, row.grace_s - row.stopping_for_s) if row.stopping_for_s is not None else 1.0
            watching.recheck(self.ctx, row.id, min(1.0, left_s))


#: States in which the backend is asked and the engine probed.
_LIVING = (*LAUNCHING[1:], *SERVING, State.UNREACHABLE)
#: States whose silence says something about the pool.
_SERVING = (*SERVING, State.UNREACHABLE)


def address_of(row: Any, seen: Observation) -> tuple[str | None, int | None]:
    """Where it listens: what its backend tells now, where that decides it; else what was leased."""
    if seen.port is not None and row.node is None:
        return seen.host, seen.port
    return row.host, row.port


def _located(row: Any, seen: Observation) -> Any:
    """What ``reach`` asks of a row, at the address where it was seen."""
    host, port = address_of(row, seen)
    return SimpleNamespace(id=row.id, host=host, port=port, spec=row.spec, attempt_id=row.attempt_id)


def _was_ready(row: Any) -> bool:
    """Whether this attempt was ready once; an earlier attempt's readiness is no diagnosis of this one."""
    at = _entered(row, State.READY)
    return bool(at and row.launching_at and at >= row.launching_at)


def _is_timed(row: Any) -> bool:
    """Whether its time to become ready runs, since it was last seen to run."""
    began, queued = _entered(row, State.WAITING_FOR_READY), _entered(row, State.SCHEDULING)
    if row.overdue is None or began is None or row.launching_at is None or began < row.launching_at:
        return False
    return queued is None or began >= queued


def _entered(row: Any, state: State) -> datetime | None:
    at = row.timestamps.get(state)
    return datetime.fromisoformat(at) if at else None


def _is_silent(one: Seen) -> bool:
    liveness = one.observation.liveness
    if one.hung:
        return True
    answered = one.probe.ok if one.probe else one.observation.answers
    if liveness is Liveness.RUNNING:
        return not answered
    return liveness in (Liveness.UNKNOWN, Liveness.ABSENT, Liveness.LOST)


def _move(one: Seen, more: dict[str, Any] | None = None) -> Move:
    row, verdict = one.row, one.verdict
    state, to = State(row.state), verdict.to
    assert to is not None
    host, port = address_of(row, one.observation)
    patch: dict[str, Any] = {"check_failures": verdict.failures, "last_health": _health(one), **(more or {})}
    if one.observation.liveness is Liveness.QUEUED:
        # where it runs next is not known, and whoever comes to its old address is somebody else
        patch |= {"host": None, "port": None, "base_url": None}
    elif (host, port) != (row.host, row.port):
        patch |= {"host": host, "port": port, "base_url": None}
    deadline_s = None
    # readiness has one clock: a backend that could not be asked for a while neither stops nor restarts it
    again = state is State.UNREACHABLE and _is_timed(row)
    keeps_deadline = to is State.UNREACHABLE or (to is State.WAITING_FOR_READY and again)
    if to is State.READY:
        patch["base_url"] = launches.base_url(host, port)
    timeouts = row.spec.get("timeouts") or {}
    if to is State.WAITING_FOR_READY and not keeps_deadline:
        deadline_s = float(timeouts.get("readiness_timeout_s") or launches.DEFAULT_READINESS_S)
    if to is State.SCHEDULING:
        deadline_s = timeouts.get("queue_timeout_s")
    return Move(
        row.id,
        row.attempt,
        way(state, to, was_ready=_was_ready(row)),
        cause="observed",
        reason=verdict.reason,
        message=verdict.message,
        next_check_s=0 if to in (State.SCHEDULING, State.WAITING_FOR_READY) else 1.0,
        deadline_s=deadline_s,
        keeps_deadline=keeps_deadline,
        patch=patch,
    )


def _worth_writing(one: Seen) -> bool:
    """What changed, and now and then what did not: the time of the last probe that is shown must not grow old."""
    if State(one.row.state) not in (*SERVING, State.UNREACHABLE):
        return False
    last = one.row.last_health
    if last is None or one.verdict.failures != one.row.check_failures or last.get("deep") != one.deep:
        return True
    # one of the future was written before the clock was set back
    return not 0 <= time.time() - calendar.timegm(time.strptime(last["at"], _AT)) < FRESH_S


def _fact(one: Seen) -> Fact:
    return Fact(one.row.id, one.row.attempt, one.verdict.failures, _health(one))


def _health(one: Seen) -> dict[str, Any]:
    probe = one.probe
    found = {
        "healthy": bool(probe.ok if probe else one.observation.answers) and not one.hung,
        "status": probe.status if probe else None,
        "latency_ms": probe.latency_ms if probe else None,
        "message": (f"hung: {one.hung}" if one.hung else probe.detail if probe else one.observation.message) or "",
        "at": health_time(),
    }
    return found if one.deep is None else {**found, "deep": one.deep}


def health_time() -> str:
    """Now, as ``last_health`` tells it."""
    return time.strftime(_AT, time.gmtime())
