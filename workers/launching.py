"""Carrying out a create or restart: claim, adopt or launch, look for a moment, leave the rest to the sweep."""

from __future__ import annotations

import errno
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cryptography.fernet import InvalidToken

from app.domain.lifecycle import Reason, State
from app.domain.placeholders import HOST_LATER, PORT_LATER
from app.domain.tasks import TaskKind
from app.domain.verdicts import Evidence, Life, judge
from app.doorbell.bell import SPREAD
from app.doorbell.queues import queue_for
from app.errors import Collided, HostlerError, Unavailable
from app.usecases import ends, launch_claims, launches, orphans, store_places, watching
from app.usecases.context import Context
from app.usecases.ends import End
from app.usecases.launch_claims import LaunchClaim
from app.usecases.log_lines import without_key
from app.usecases.reach import LOOPBACK, Address
from app.usecases.watching import Told
from workers.backends.base import (
    AlreadyLaunched,
    Backend,
    BackendError,
    Handle,
    Launch,
    LaunchRefused,
    Liveness,
    Observation,
    ProgramMissing,
)
from workers.backends.registry import BACKENDS
from workers.bootstrap import Runtime
from workers.engine_targets import (
    command_of,
    data_keeper,
    diagnostics_timeout_s,
    engine_of,
    explained_exit,
    readiness_target,
    to_json,
    wants_diagnostics,
)
from workers.keeper import Keeper
from workers.pidfds import Lifeline
from workers.probes.diagnostics import run_diagnostics
from workers.probes.http import look

log = logging.getLogger(__name__)

#: Ports tried when strangers listen on the leased ones.
PORT_TRIES = 20
TAIL_LINES = 50
LAUNCH_S = 20.0
#: After an unexpected error the launch is tried again this much later, a bounded number of times.
RETRY_S = 2.0
#: From this try on a daemon or host that is away is asked again at the same pace.
SLOWEST_TRY = 3
#: For so long a worker goes on with the next launch on one message, while each is that quick.
GO_ON_S = 0.2
NOTHING = "nothing to claim"


def carry_out_launches(runtime: Runtime, pool: str | None, spread: int = SPREAD) -> str:
    """``carry_out_launch``, and more of them while they are quick: a crowd of small ones does not cost a message each.

    The first one rings on, so nobody waits for those behind it. The result line names each of them.
    """
    until = time.monotonic() + GO_ON_S
    outcomes = [carry_out_launch(runtime, pool, spread)]
    while outcomes[-1] != NOTHING and time.monotonic() < until:
        outcomes.append(launch_best(runtime, pool))
    return "; ".join([one for one in outcomes if one != NOTHING]) or NOTHING


def carry_out_launch(runtime: Runtime, pool: str | None, spread: int = SPREAD) -> str:
    """Claim the best create or restart and carry it as far as can be seen now. Returns the task's result line.

    While there is more to do it rings on: twice for the first ``spread`` rings, so that one bell soon keeps
    ``2 ** SPREAD`` processes busy, and once after that, so that bells never pile up.
    """
    return launch_best(runtime, pool, lambda: _ring_on(runtime, pool, spread))


def launch_best(runtime: Runtime, pool: str | None, ring_on: Callable[[], None] | None = None) -> str:
    """The same; ``ring_on`` is called while there is more to do. None: nobody would hear, the caller goes on itself."""
    claim = launch_claims.claim_launch(runtime.ctx, pool=pool, worker=runtime.id)
    if claim is None:
        return NOTHING
    if claim.more and ring_on is not None:
        ring_on()
    placed = BACKENDS[claim.row.backend].place_options if claim.row.backend in BACKENDS else ()
    if placed:
        claim = launch_claims.take_place(runtime.ctx, claim, placed)
    outcome = None
    try:
        with Keeper(runtime.ctx, claim.task_id, claim.lease_token) as keeper:
            outcome = _Launch(runtime, claim, keeper).run()
    finally:
        if outcome is None:
            launches.give_back(runtime.ctx, claim, RETRY_S)
    # last: it would slow down the engine's start, and hold up the news that it is ready
    runtime.prepare(runtime.backend_of(claim.row))
    return f"task={claim.task_id} replica={claim.replica_id} attempt={claim.attempt} outcome={outcome}"


def _ring_on(runtime: Runtime, pool: str | None, spread: int) -> None:
    scope = {"pool": pool} if pool else {"node": runtime.settings.node_name}
    queue = queue_for(TaskKind.CREATE, pool or "", None if pool else runtime.settings.node_name)
    for _ in range(2 if spread > 0 else 1):
        runtime.ctx.doorbell.ring_now(TaskKind.CREATE, queue, **scope, spread=max(0, spread - 1))


class _Launch:
    """One launch. Each method is a step; the first that ends it returns the outcome's word."""

    def __init__(self, runtime: Runtime, claim: LaunchClaim, keeper: Keeper) -> None:
        self.runtime = runtime
        self.ctx = runtime.ctx
        self.claim = claim
        self.keeper = keeper
        self.backend: Backend = runtime.backend_of(claim.row)
        self._finds_place = finds_place(self.backend)
        self._may_queue = may_queue(self.backend)

    def run(self) -> str:
        if self.claim.claims > launches.MAX_CLAIMS:
            return self._fail(Reason.BACKEND_ERROR, "every try ended unexpectedly; see the workers' logs")
        try:
            handle = self.backend.adopt(self.claim.name)
            if handle is None:
                handle = self._launch()
            else:
                self._begin()
        except _Ended as ended:
            return ended.outcome
        except BackendError as error:
            return self._try_later(error) or self._fail(Reason.BACKEND_ERROR, str(error))
        return self._follow(handle)

    def _try_later(self, error: BackendError) -> str:
        """A daemon or another host may be away, and then nobody knows whether it took the launch: adopt finds out.

        So it goes on, after 2, 8 and then each 32 s, until the time to start is over.
        """
        if not (error.retryable and self._may_queue) or launches.start_is_overdue(self.ctx, self.claim):
            return ""
        tries = min(self.claim.claims, SLOWEST_TRY)
        delay_s = RETRY_S * 4 ** (tries - 1)
        log.warning("attempt %s is tried again in %.0f s: %s", self.claim.name, delay_s, error)
        watching.record_trouble(self.ctx, self.claim.replica_id, str(error))
        # that it is away says nothing against the launch: the bound on claims is for workers that die over it
        launches.give_back(self.ctx, self.claim, delay_s, claims=min(tries, SLOWEST_TRY - 1))
        return f"unavailable, again in {delay_s:.0f} s"

    def _launch(self) -> Handle:
        claim = self._with_free_port()
        self._check_data()
        try:
            host, port = claim.host or HOST_LATER, claim.port or PORT_LATER
            if self.backend.puts_address:
                host = HOST_LATER
            command = command_of(self.ctx, claim.row, host, port, len(claim.gpus))
        except InvalidToken:
            raise _Ended(self._fail(Reason.INVALID_CONFIG, _LOST_KEY)) from None
        except (Collided, Unavailable):
            raise
        except HostlerError as error:
            raise _Ended(self._fail(Reason.INVALID_CONFIG, error.detail)) from error
        if not self._begin():
            raise _Ended("superseded")
        # the token guards the row, not the world: a worker that froze here must not act on an old claim
        if not self.keeper.held:
            raise _Ended("lease lost")
        launch = Launch(
            name=claim.name,
            replica_id=claim.replica_id,
            attempt=claim.attempt,
            argv=command.argv,
            env=command.env,
            files=command.files,
            host=claim.host or LOOPBACK,
            port=claim.port,
            gpus=claim.gpus,
            labels=claim.row.labels,
            nodes=int((claim.row.spec.get("resources") or {}).get("nodes") or 1),
            options=claim.row.spec["resolved"]["backend_options"],
            record=orphans.record_of(claim.row, claim.attempt, claim.host, claim.port, claim.gpus),
        )
        try:
            # by then somebody else may hold the launch; the backend starts nothing later
            handle = self.backend.launch(launch, timeout_s=min(LAUNCH_S, self.keeper.left_s))
        except AlreadyLaunched:
            adopted = self.backend.adopt(claim.name)
            if adopted is None:
                raise
            handle = adopted
        except LaunchRefused as error:
            missing = command.missing if isinstance(error, ProgramMissing) else ""
            message = f"{missing} ({error})" if missing else str(error)
            raise _Ended(self._fail(Reason.LAUNCH_FAILED, message)) from error
        return handle

    def _begin(self) -> bool:
        """Record that the backend is about to be asked. False: somebody newer owns the replica."""
        begun = launches.record_launching(self.ctx, self.claim, may_queue=self._may_queue)
        if not self._may_queue and self.claim.state in _BEFORE_STARTING:
            self.claim = replace(self.claim, state=State.STARTING)
        return begun

    def _check_data(self) -> None:
        """A store must not begin anew on another host than its data are on."""
        if not engine_of(self.claim.row).keeps_data:
            return
        keeper = data_keeper(self.claim.row)
        host = store_places.elsewhere(self.ctx, keeper)
        if host:
            raise _Ended(
                self._fail(
                    Reason.LAUNCH_FAILED,
                    f"the data of this store are on host {host}, in data/{keeper} of its state dir. Run it there, in a"
                    " pool that only that host serves, or move the folder here.",
                )
            )

    def _can_listen(self) -> bool:
        host = self.claim.host or LOOPBACK
        try:
            return _can_bind(host, self.claim.port or 0)
        except OSError as error:
            message = f"{host} is no address of this host ({error.strerror}); set HOSTLER_NODE_ADDRESS to one it has"
            raise _Ended(self._fail(Reason.LAUNCH_FAILED, message)) from error

    def _with_free_port(self) -> LaunchClaim:
        for _ in range(PORT_TRIES):
            if self.claim.port is None or self._can_listen():
                return self.claim
            if not self.keeper.held:
                # it may well be our own engine that listens, launched by whoever took this over
                raise _Ended("lease lost")
            other = launch_claims.change_port(self.ctx, self.claim)
            if other is None:
                break
            self.claim = replace(self.claim, port=other)
        message = "strangers listen on the ports of HOSTLER_PORTS; free some or choose another range"
        raise _Ended(self._fail(Reason.NO_CAPACITY, message))

    def _follow(self, handle: Handle) -> str:
        seen, state = self._see(handle), self.claim.state
        verdict = judge(evidence(seen, state), self.ctx.settings.unhealthy_after)
        if self._may_queue:
            watching.record_told(self.ctx, [told_of(self.claim.replica_id, self.claim.attempt, seen)])
        if verdict.to is State.FAILED:
            return self._fail_seen(handle, seen, verdict.reason or Reason.BACKEND_ERROR, verdict.message, state)
        if verdict.to is State.READY and not self.backend.serves_http:
            passed = simulated_diagnostics() if wants_diagnostics(self.claim.row) else None
            tail = self._tail(handle)
            ready = launches.record_ready(self.ctx, self.claim, to_json(handle), passed, state, tail)
            return "ready" if ready else "superseded"
        # looking would hold up the launches that wait; the agent looks at all of them at once
        leave = not self.backend.serves_http or self._finds_place or self.claim.more
        if seen.liveness is not Liveness.RUNNING:
            launches.record_handle(self.ctx, self.claim, to_json(handle))
            return "starting"
        if not launches.record_launched(self.ctx, self.claim, to_json(handle), leave=leave):
            return "superseded"
        if leave:
            return "waiting_for_ready"
        return self._look(handle)

    def _see(self, handle: Handle) -> Observation:
        """What is seen of it; the backend took it, and is away or not."""
        try:
            return self.backend.inspect([handle])[0]
        except BackendError as error:
            return Observation(Liveness.UNKNOWN, message=str(error))

    def _look(self, handle: Handle) -> str:
        target = readiness_target(self.claim.row, Address(self.claim.host or LOOPBACK, self.claim.port or 0))
        with Lifeline(self.backend, handle) as life:
            found = look(target, life.goes_on, self.ctx.settings.look_s)
        seen = self._see(handle)
        state = State.WAITING_FOR_READY
        if seen.liveness.gone or seen.liveness is Liveness.LINGERING:
            verdict = judge(evidence(seen, state), self.ctx.settings.unhealthy_after)
            return self._fail_seen(handle, seen, verdict.reason or Reason.BACKEND_ERROR, verdict.message, state)
        if found is None or not found.ok or seen.owns_port is False:
            launches.leave_to_sweep(self.ctx, self.claim)
            return "waiting_for_ready"
        return self._become_ready(handle)

    def _become_ready(self, handle: Handle) -> str:
        row, diagnostics = self.claim.row, None
        if wants_diagnostics(row):
            diagnostics = run_diagnostics(
                engine_of(row),
                row.spec["resolved"]["config"],
                row.model_name,
                launches.base_url(self.claim.host, self.claim.port) or "",
                self.ctx.engine_key,
                min(diagnostics_timeout_s(row), MOST_DIAGNOSTICS_S),
            )
            if not diagnostics["passed"]:
                return self._fail_diagnostics(handle, diagnostics)
        ready = launches.record_ready(self.ctx, self.claim, to_json(handle), diagnostics, State.WAITING_FOR_READY)
        return "ready" if ready else "superseded"

    def _fail_diagnostics(self, handle: Handle, diagnostics: dict[str, Any]) -> str:
        end = diagnostics_end(diagnostics, self._tail(handle))
        return self._record(end, State.WAITING_FOR_READY, diagnostics)

    def _fail_seen(self, handle: Handle, seen: Observation, reason: Reason, message: str, state: State) -> str:
        tail = self._tail(handle)
        told, message = explained_exit(self.claim.row, reason, message, tail)
        end = End(told, message, seen.exit_code, seen.signal, tail, gone=seen.liveness.gone)
        return self._record(end, state)

    def _fail(self, reason: Reason, message: str) -> str:
        # recorded first, and fenced: one that froze on the way here must not kill what another one launched since
        outcome = self._record(End(reason, message), None)
        if outcome != "superseded":
            self._seal()
        return outcome

    def _seal(self) -> None:
        """End what there is under the name, and take it: a launcher that thaws later is refused."""
        try:
            left = self.backend.stop(Handle(self.claim.row.backend, self.claim.name), grace_s=0, force=True)
        except BackendError as error:
            log.warning("attempt %s could not be sealed yet: %s", self.claim.name, error)
            return
        if left.liveness.gone:
            ends.record_gone(self.ctx, self.claim.replica_id, self.claim.attempt)

    def _record(self, end: End, state: State | None, diagnostics: dict[str, Any] | None = None) -> str:
        claim, fence = self.claim, (self.claim.task_id, self.claim.lease_token)
        states = [state] if state else [State.SCHEDULING, State.PREPARING, State.STARTING, State.WAITING_FOR_READY]
        for one in states:
            if ends.record_failed(
                self.ctx, claim.replica_id, claim.attempt, one, end, fence=fence, diagnostics=diagnostics
            ):
                return f"failed:{end.reason}"
        return "superseded"

    def _tail(self, handle: Handle) -> str:
        return tail_of(self.ctx, self.backend, handle)


class _Ended(Exception):
    def __init__(self, outcome: str) -> None:
        super().__init__(outcome)
        self.outcome = outcome


def finds_place(backend: Backend) -> bool:
    """Whether it decides where a server runs, perhaps later: its host and port are learned from what it tells."""
    return backend.serves_http and not backend.host_bound


def may_queue(backend: Backend) -> bool:
    """Whether what it took may wait there before it runs."""
    return backend.queues or finds_place(backend)


def told_of(replica_id: str, attempt: int, seen: Observation) -> Told:
    """What was seen of an attempt beside its state, as it is kept."""
    queued = seen.liveness is Liveness.QUEUED
    return Told(replica_id, attempt, seen.host, seen.port, seen.told, seen.message if queued else "")


_BEFORE_STARTING = (State.SCHEDULING, State.PREPARING)
_LOST_KEY = "its environment was encrypted under another key; put the old secret key back or create it again"
#: A worker's task has a hard limit; longer diagnostics are the agent's.
MOST_DIAGNOSTICS_S = 120.0


def evidence(seen: Observation, state: State, **more: Any) -> Evidence:
    """An observation as the domain's evidence."""
    return Evidence(
        state=state,
        life=Life(seen.liveness),
        answers=more.pop("answers", seen.answers),
        owns_port=seen.owns_port,
        exit_code=seen.exit_code,
        signal=seen.signal,
        out_of_memory=seen.out_of_memory,
        reason=seen.reason,
        detail=more.pop("detail", "") or seen.message,
        **more,
    )


def tail_of(ctx: Context, backend: Backend, handle: Handle) -> str:
    """The last lines of an attempt's output, for the record; empty when they cannot be read."""
    try:
        return without_key(ctx, "\n".join(backend.logs(handle, tail=TAIL_LINES)))
    except (BackendError, OSError) as error:
        return f"(the log cannot be read: {error})"


def diagnostics_end(diagnostics: dict[str, Any], log_tail: str) -> End:
    """The failure that diagnostics which did not pass come to."""
    failed = [check for check in diagnostics["checks"] if not check["ok"]]
    words = "; ".join(f"{check['name']}: {check.get('detail') or check.get('status')}" for check in failed)
    return End(Reason.DIAGNOSTICS_FAILED, f"diagnostics failed: {words}", log_tail=log_tail)


def _can_bind(host: str, port: int) -> bool:
    """Whether nobody listens there. Raises OSError for an address that is not this host's."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        # as engines do: a port whose old connections linger in TIME_WAIT is free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise
            return False
    return True


def simulated_diagnostics() -> dict[str, Any]:
    """What diagnostics come to where nothing runs that could be asked: its answer to the probe was all there is."""
    return {"passed": True, "simulated": True, "checks": [], "duration_s": 0.0}
