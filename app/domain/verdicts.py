"""From what was seen of a replica to what it means. Pure: evidence in, verdict out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from app.domain.lifecycle import LAUNCHING, SERVING, Reason, State


class Life(StrEnum):
    """What the backend knows of the attempt; the same words as ``workers.backends.base.Liveness``."""

    QUEUED = "queued"
    RUNNING = "running"
    EXITED = "exited"
    LINGERING = "lingering"
    ABSENT = "absent"
    LOST = "lost"
    UNKNOWN = "unknown"


GONE = (Life.EXITED, Life.ABSENT)
#: Looks, a probe interval apart, that find it lost before it is given up.
LOST_LOOKS = 2
_BEFORE_ALIVE = (State.SCHEDULING, State.PREPARING, State.STARTING)
#: Its deadline is that of a queue: what runs has left it in time.
_QUEUES = (State.SCHEDULING, State.PREPARING)
#: Launched, and not ready yet.
_READYING = (State.STARTING, State.WAITING_FOR_READY)


@dataclass(frozen=True)
class Evidence:
    """One look at one replica. ``answers`` is None when it was not asked; times are seconds."""

    state: State
    life: Life
    answers: bool | None = None
    #: False: a stranger listens on the attempt's port
    owns_port: bool | None = None
    failures: int = 0
    #: the present state's deadline has passed
    overdue: bool = False
    #: the replica was ready once in this attempt
    was_ready: bool = False
    exit_code: int | None = None
    signal: int | None = None
    out_of_memory: bool = False
    #: why it ended, where the backend knows it
    reason: Reason | None = None
    #: it runs elsewhere than it did when it was last looked at
    moved: bool = False
    #: its cluster took its place away (``preempted``), and it has not answered since
    displaced: bool = False
    #: it answers its probe and does no work: why that is believed (see ``app.domain.progress``)
    hung: str = ""
    detail: str = ""

    @property
    def begins_anew(self) -> bool:
        """It runs again or elsewhere, and did not answer there yet: it has the time of any launch, and no more."""
        return self.displaced or self.moved


@dataclass(frozen=True)
class Verdict:
    """``to`` is the state to go to, None to stay. ``gone``: nothing is left of the attempt, leases may be returned."""

    to: State | None = None
    reason: Reason | None = None
    message: str = ""
    failures: int = 0
    gone: bool = False
    #: whether the evidence proves it; without proof a mass verdict waits (``pool_suspect``)
    proven: bool = True


def judge(seen: Evidence, unhealthy_after: int) -> Verdict:
    """What the evidence means for a replica that was asked to run. Ending ones are judged by ``gone`` alone."""
    gone = seen.life in GONE
    if seen.state not in (*LAUNCHING, *SERVING, State.UNREACHABLE):
        return Verdict(gone=gone)
    if seen.life is Life.UNKNOWN:
        return _unknown(seen)
    if seen.life is Life.ABSENT:
        message = seen.detail or "the backend has no trace of it"
        return Verdict(State.FAILED, Reason.BACKEND_ERROR, message, gone=True, proven=False)
    if seen.life in (Life.EXITED, Life.LINGERING):
        return Verdict(State.FAILED, _end_reason(seen), end_message(seen), gone=gone)
    if seen.life is Life.LOST:
        return _lost(seen)
    if seen.life is Life.QUEUED:
        return _queued(seen)
    if seen.state in SERVING:
        return _serving(seen, unhealthy_after)
    return _launching(seen)


def _since(seen: Evidence) -> Reason | None:
    """The reason that goes with it from state to state until it answers: its place was taken away."""
    return Reason.PREEMPTED if seen.begins_anew else None


def way(state: State, to: State, *, was_ready: bool) -> tuple[State, ...]:
    """The path by which a verdict leads from ``state`` to ``to``: through all states of a launch in between."""
    order = (*LAUNCHING, State.READY)
    if to is State.READY and state is State.UNREACHABLE and not was_ready:
        return state, State.WAITING_FOR_READY, to
    if to is State.UNREACHABLE and state in order[: order.index(State.STARTING)]:
        # the backend took it, or it could not be away from it
        return (*way(state, State.STARTING, was_ready=was_ready), to)
    if state in order and to in order and order.index(to) > order.index(state):
        return order[order.index(state) : order.index(to) + 1]
    return state, to


def end_message(seen: Evidence) -> str:
    """How it ended, in words."""
    if seen.out_of_memory:
        return seen.detail or "killed for want of memory"
    if seen.detail:
        return seen.detail
    if seen.signal is not None:
        return f"ended by signal {seen.signal}"
    return f"exited with code {seen.exit_code}" if seen.exit_code is not None else "ended; its exit code is unknown"


def _end_reason(seen: Evidence) -> Reason:
    if seen.reason is not None:
        return seen.reason
    return Reason.OUT_OF_MEMORY if seen.out_of_memory else Reason.PROCESS_EXITED


def _lost(seen: Evidence) -> Verdict:
    """No proof of death: what is lost may turn up again, and is only given up when it did not in two more sweeps."""
    message = seen.detail or "it is not where it was launched, and nothing tells how it ended"
    failures = seen.failures + 1 if seen.state is State.UNREACHABLE else 1
    if failures > LOST_LOOKS:
        return Verdict(State.FAILED, Reason.NODE_LOST, message, failures=failures, proven=False)
    to = None if seen.state is State.UNREACHABLE else State.UNREACHABLE
    return Verdict(to, _since(seen), message, failures=failures, proven=False)


def _queued(seen: Evidence) -> Verdict:
    """In the backend's own queue, for the first time or again."""
    message = seen.detail or "waits in the queue of its cluster"
    if seen.was_ready and seen.state in (State.READY, State.UNREACHABLE):
        return Verdict(State.UNHEALTHY, Reason.PREEMPTED, message)
    if seen.state in SERVING and (seen.displaced or not seen.was_ready):
        return Verdict(message=message)
    # what was ill when its place was taken away is queued like any other
    if seen.state in (State.WAITING_FOR_READY, State.UNREACHABLE, State.UNHEALTHY):
        # it waits for its turn once more, and only then has time to become ready
        return Verdict(State.SCHEDULING, Reason.PREEMPTED, message)
    if seen.overdue:
        reason = Reason.QUEUE_TIMEOUT if seen.state is State.SCHEDULING else Reason.READINESS_TIMEOUT
        return Verdict(State.FAILED, reason, f"waited too long in the queue of its cluster; {message}")
    return Verdict(message=message)


def _unknown(seen: Evidence) -> Verdict:
    if seen.overdue and seen.state is State.SCHEDULING:
        message = f"waited too long in the queue of its cluster, which cannot be asked; {seen.detail}".rstrip("; ")
        return Verdict(State.FAILED, Reason.QUEUE_TIMEOUT, message, failures=seen.failures + 1)
    if seen.overdue and (seen.begins_anew or not seen.was_ready) and seen.state in (*_READYING, State.UNREACHABLE):
        # no proof of death, but whoever waits for it waited as long as was asked; it is killed once it can be asked
        return Verdict(State.FAILED, Reason.READINESS_TIMEOUT, _overdue(seen), failures=seen.failures + 1)
    if seen.state in (State.UNREACHABLE, *LAUNCHING[:3]):
        return Verdict(failures=seen.failures + 1, message=seen.detail)
    message = seen.detail or "the backend cannot be asked"
    return Verdict(State.UNREACHABLE, _since(seen), message, failures=seen.failures + 1, proven=False)


def _serving(seen: Evidence, unhealthy_after: int) -> Verdict:
    if seen.moved and seen.state is State.READY:
        # whoever listens at its old address by now is somebody else
        return Verdict(State.UNHEALTHY, Reason.PREEMPTED, "it runs elsewhere now and has yet to answer there")
    begins = seen.begins_anew and seen.state is State.UNHEALTHY
    if seen.answers and seen.owns_port is not False and not (begins and seen.hung):
        return _answering(seen)
    if begins:
        return Verdict(State.WAITING_FOR_READY, Reason.PREEMPTED, "it runs again and has yet to answer")
    failures = seen.failures + 1
    if seen.state is State.READY and failures >= unhealthy_after:
        message = seen.detail or f"{failures} probes in a row failed"
        return Verdict(State.UNHEALTHY, Reason.HEALTH_FAILED, message, failures=failures, proven=False)
    return Verdict(failures=failures, message=seen.detail)


def _answering(seen: Evidence) -> Verdict:
    """It answers its health probe, which is worth nothing while it is hung."""
    if not seen.hung:
        return Verdict(State.READY if seen.state is State.UNHEALTHY else None)
    if seen.state is State.READY:
        return Verdict(State.UNHEALTHY, Reason.HEALTH_FAILED, f"hung: {seen.hung}", proven=False)
    return Verdict(message=f"hung: {seen.hung}")


def _launching(seen: Evidence) -> Verdict:
    if seen.life is Life.RUNNING and seen.answers and seen.owns_port is not False and not seen.hung:
        return Verdict(State.READY)
    if seen.state is State.UNREACHABLE:
        if seen.was_ready and not seen.begins_anew:
            return Verdict(State.UNHEALTHY, Reason.HEALTH_FAILED, "the backend answers again")
        return Verdict(State.WAITING_FOR_READY, _since(seen), "the backend answers again")
    if seen.overdue and seen.state not in _QUEUES:
        return Verdict(State.FAILED, Reason.READINESS_TIMEOUT, _overdue(seen))
    if seen.state in _BEFORE_ALIVE and seen.life is Life.RUNNING:
        return Verdict(State.WAITING_FOR_READY, _since(seen), failures=0)
    return Verdict(failures=seen.failures, message=seen.detail)


def _overdue(seen: Evidence) -> str:
    if seen.owns_port is False:
        return f"a process that is not part of this attempt listens on its port; {seen.detail}".rstrip("; ")
    return f"did not answer its readiness probe in time; {seen.detail}".rstrip("; ")
