"""The replica lifecycle: the one table from which diagram, OpenAPI enum and CHECK constraints come.

Nothing outside ``app/db/repos/replicas.py`` assigns a state, and that module asks this one first.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class State(StrEnum):
    """Where a replica is. Terminal does not mean gone: see ``released_at``."""

    PENDING = "pending"
    SCHEDULING = "scheduling"
    PREPARING = "preparing"
    STARTING = "starting"
    WAITING_FOR_READY = "waiting_for_ready"
    READY = "ready"
    UNHEALTHY = "unhealthy"
    UNREACHABLE = "unreachable"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


class Reason(StrEnum):
    """Why a replica is in its state. Closed: free text belongs in the message beside it."""

    INVALID_CONFIG = "invalid_config"
    NO_CAPACITY = "no_capacity"
    QUEUE_TIMEOUT = "queue_timeout"
    LAUNCH_FAILED = "launch_failed"
    PROCESS_EXITED = "process_exited"
    OUT_OF_MEMORY = "out_of_memory"
    READINESS_TIMEOUT = "readiness_timeout"
    HEALTH_FAILED = "health_failed"
    DIAGNOSTICS_FAILED = "diagnostics_failed"
    PREEMPTED = "preempted"
    WALLTIME = "walltime"
    LIFETIME_EXPIRED = "lifetime_expired"
    NODE_LOST = "node_lost"
    BACKEND_ERROR = "backend_error"
    CANCELLED = "cancelled"


STATE_MEANING: dict[State, str] = {
    State.PENDING: "accepted and stored; waits in its pool's queue",
    State.SCHEDULING: "claimed by a worker, holding its slot, port and GPUs; a cluster may still queue it",
    State.PREPARING: "files, images and models are being made ready",
    State.STARTING: "handed to the backend; not yet seen alive",
    State.WAITING_FOR_READY: "seen alive; does not answer its readiness probe yet",
    State.READY: "answers; requests may be routed to it",
    State.UNHEALTHY: "alive but failed its health probes",
    State.UNREACHABLE: "the backend cannot be asked; no proof of death",
    State.STOPPING: "asked to end; not yet seen gone",
    State.STOPPED: "ended because someone asked for it",
    State.FAILED: "ended, or given up, for the reason beside it",
}

TERMINAL = frozenset({State.STOPPED, State.FAILED})
LIVE = frozenset(State) - TERMINAL
#: States in which a launch is under way and its create (or restart) task is open.
LAUNCHING = (State.PENDING, State.SCHEDULING, State.PREPARING, State.STARTING, State.WAITING_FOR_READY)
#: States in which the replica was ready once in this attempt.
SERVING = (State.READY, State.UNHEALTHY)
#: How the message of what is ``stopping`` begins while its stop has trouble.
STOP_TROUBLE = "stop: "

_FORWARD: dict[State, tuple[State, ...]] = {
    State.PENDING: (State.SCHEDULING,),
    # back to pending: the claim was given back (worker died before the launch, no port free)
    State.SCHEDULING: (State.PREPARING, State.PENDING),
    State.PREPARING: (State.STARTING, State.PENDING),
    State.STARTING: (State.WAITING_FOR_READY, State.UNREACHABLE),
    # back to scheduling: its cluster queues it again before it was ever ready
    State.WAITING_FOR_READY: (State.READY, State.UNREACHABLE, State.SCHEDULING),
    State.READY: (State.UNHEALTHY, State.UNREACHABLE),
    # back to waiting or the queue: its cluster took its place away, and it has yet to answer where it runs again
    State.UNHEALTHY: (State.READY, State.UNREACHABLE, State.WAITING_FOR_READY, State.SCHEDULING),
    State.UNREACHABLE: (State.SCHEDULING, State.STARTING, State.WAITING_FOR_READY, State.READY, State.UNHEALTHY),
    # a restart: the old attempt was seen gone, the next one queues
    State.STOPPING: (State.STOPPED, State.PENDING),
    State.STOPPED: (State.PENDING,),
    State.FAILED: (State.PENDING,),
}


def _edges() -> frozenset[tuple[State, State]]:
    pairs = {(source, target) for source, targets in _FORWARD.items() for target in targets}
    pairs |= {(state, State.STOPPING) for state in LIVE - {State.STOPPING}}
    pairs |= {(state, State.FAILED) for state in LIVE}
    # nothing was launched, so there is nothing to wait for
    pairs.add((State.PENDING, State.STOPPED))
    return frozenset(pairs)


#: Every legal step. A row of ``lifecycle_edges`` for each, so that Postgres refuses the others.
EDGES = _edges()


class IllegalTransition(ValueError):
    """That step is not in the lifecycle table. This is a defect of Hostler; please report it."""


def check_path(path: Iterable[State]) -> None:
    """Raise IllegalTransition unless each step of ``path`` (first state included) is legal."""
    states = list(path)
    for source, target in zip(states, states[1:], strict=False):
        if (source, target) not in EDGES:
            raise IllegalTransition(f"{source} -> {target}")


def sources_of(target: State) -> frozenset[State]:
    """The states from which ``target`` may be entered in one step."""
    return frozenset(source for source, end in EDGES if end is target)


def mermaid() -> str:
    """The diagram of the README, as Mermaid source."""
    lines = ["stateDiagram-v2", "    [*] --> pending"]
    lines += [f"    {source} --> {target}" for source in State for target in State if (source, target) in EDGES]
    lines += [f"    {state} --> [*]" for state in State if state in TERMINAL]
    return "\n".join(lines)
