"""Why a replica is where it is: one rule per state and situation, in words, with the command to type next. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.domain.lifecycle import LAUNCHING, SERVING, STOP_TROUBLE, Reason, State

#: A host that was not heard of for so long missed a heartbeat, or the way to it is cut.
QUIET_S = 8.0


@dataclass(frozen=True)
class Gang:
    """Replicas of one service that start together or not at all: what they lack (``slots``, ``ports``, ``gpus``,
    ``members``; None nothing) and how much of it is free, where most is."""

    size: int
    gpus: int
    short: str | None
    free: int


@dataclass(frozen=True)
class Situation:
    """What is known of a replica at one moment. Times are ISO strings, ages seconds."""

    replica_id: str
    state: State
    reason: Reason | None = None
    message: str = ""
    pool: str = ""
    pool_state: str = "active"
    node: str | None = None
    task_id: str | None = None
    #: 1 is next; None when it does not wait in a queue
    position: int | None = None
    slots_free: int = 0
    slots_total: int = 0
    gpus_wanted: int = 0
    gpus_free: int = 0
    #: None where no port is needed
    ports_free: int | None = None
    #: the replica at the head of the queue, when that is another one
    first: str | None = None
    #: whether a worker that serves the pool was heard of lately
    workers_heard: bool = True
    lease_held: bool = False
    cleanup_pending: bool = False
    restarting: bool = False
    port: int | None = None
    check_failures: int = 0
    #: it takes nothing new and may finish what is in flight; the gateways that have not said yet that nothing is
    draining_until: str | None = None
    in_use_by: tuple[str, ...] = ()
    #: it waits together with others of its service; None when it goes by itself
    gang: Gang | None = None
    #: its slot, port and GPUs are held, and nobody launches it yet
    capacity_held: bool = False
    #: its backend could not be asked to launch it, and is asked again then
    tried_again_at: str | None = None
    #: its launch is queued again, and holds its place meanwhile
    retrying: bool = False
    #: since when its host was not heard of; None where it is on none
    host_silent_s: float | None = None
    #: whether anybody that can look at it was heard of lately
    looked_at: bool = True
    #: why it could not be asked to end, and whether it was given up for that
    stop_trouble: str = ""
    left_behind: bool = False
    #: its backend took it, and decides where and when it runs
    submitted: bool = False
    #: what that backend told of it: ``job_id, state, why, expected_start, command``
    cluster: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Explanation:
    """``rule`` is a stable word, ``text`` the sentence, ``command`` what to type next."""

    rule: str
    text: str
    command: str


def explain(now: Situation) -> Explanation:
    """The one rule that applies."""
    if now.state is State.PENDING:
        return _pending(now)
    if now.cleanup_pending:
        return Explanation(
            "cleanup_pending",
            f"It has {now.state}, but something of it was not seen gone yet; the sweep keeps killing it and its slot"
            f" stays taken. {now.message}".rstrip()
            + _stop_trouble(now),
            f"hostler replica stop {now.replica_id} --force",
        )
    if not now.looked_at and now.state in _LOOKED_AT:
        return _unserved(now)
    if now.state in LAUNCHING and now.node and (now.host_silent_s or 0) >= QUIET_S:
        return Explanation(
            "host_silent",
            f"Host {now.node}, which launches it, was not heard of for {now.host_silent_s:.0f} s. It goes on there, by"
            " its name, when that host is back; nothing is started elsewhere.",
            f"hostler node get {now.node}",
        )
    return _BY_STATE[now.state](now)


def _stop_trouble(now: Situation) -> str:
    """Why it is not gone, and what an admin can do about a place that does not come back."""
    if not now.stop_trouble:
        return ""
    return (
        f" Its stop: {now.stop_trouble}. It is asked again; if that place never comes back, an admin can give it up:"
        f" `hostler replica stop {now.replica_id} --abandon`."
    )


def _pending(now: Situation) -> Explanation:
    if now.pool_state == "draining":
        return Explanation(
            "pool_draining",
            f"Pool {now.pool} is draining: it finishes what runs and starts nothing.",
            f"hostler pool resume {now.pool}",
        )
    if not now.workers_heard:
        return Explanation(
            "no_worker",
            f"No worker that serves pool {now.pool} was heard of in the last 30 s.",
            "hostler doctor",
        )
    if now.gang and now.gang.short:
        return _gang(now, now.gang)
    if now.slots_free == 0:
        return Explanation(
            "pool_full",
            f"All {now.slots_total} slots of pool {now.pool} are taken; it is number {now.position} in the queue.",
            f"hostler replica list --pool {now.pool}",
        )
    if now.gpus_wanted > now.gpus_free:
        return Explanation(
            "no_gpu",
            f"It wants {now.gpus_wanted} GPUs and {now.gpus_free} are free; it is number {now.position} in the queue.",
            "hostler node list",
        )
    if now.ports_free == 0:
        return Explanation(
            "no_port",
            f"Every port of HOSTLER_PORTS is taken; it is number {now.position} in the queue.",
            "hostler node list",
        )
    if now.first:
        return Explanation(
            "behind",
            f"It is number {now.position} in the queue of pool {now.pool}; replica {now.first} is launched first.",
            f"hostler replica explain {now.first}",
        )
    return Explanation(
        "queued",
        f"It is number {now.position} in the queue of pool {now.pool}; a worker takes it next.",
        f"hostler task get {now.task_id}" if now.task_id else f"hostler replica get {now.replica_id}",
    )


def _gang(now: Situation, gang: Gang) -> Explanation:
    others = f"with the {gang.size - 1} others of its service that start when it does" if gang.size > 1 else "to start"
    number = f"it is number {now.position} in the queue"
    if gang.short == "slots":
        text = f"It waits for {gang.size} slots together {others}; {gang.free} are free in pool {now.pool}; {number}."
        return Explanation("pool_full", text, f"hostler replica list --pool {now.pool}")
    if gang.short == "gpus":
        text = f"It waits for {gang.gpus} GPUs together {others}; at most {gang.free} are free in one place; {number}."
        return Explanation("no_gpu", text, "hostler node list")
    if gang.short == "ports":
        text = f"It waits for {gang.size} ports together {others}; at most {gang.free} are free on one host; {number}."
        return Explanation("no_port", text, "hostler node list")
    text = "It starts together with the others of its service or not at all, and they are not all there yet."
    return Explanation("gang_incomplete", text, "hostler service list")


def _launching(now: Situation) -> Explanation:
    if now.capacity_held and not now.lease_held:
        return Explanation(
            "launched_next",
            "Its slot and what else it needs were taken together with the others of its service; a worker launches it"
            " next.",
            f"hostler task get {now.task_id}",
        )
    if not now.lease_held and now.message and (now.tried_again_at or now.retrying):
        when = f"at {now.tried_again_at}" if now.tried_again_at else "now"
        return Explanation(
            "launch_retried",
            f"Its backend could not be asked: {now.message}. It is tried again {when}, by its name.",
            f"hostler task get {now.task_id}",
        )
    if not now.lease_held and now.submitted and now.node:
        return Explanation(
            "backend_queue",
            f"Its backend on host {now.node} took it and has not started it yet. {now.message}".rstrip(),
            f"hostler replica get {now.replica_id}",
        )
    if not now.lease_held and now.submitted:
        return Explanation(
            "cluster_queue",
            f"{_queued(now)} {_look(now)}".rstrip(),
            f"hostler replica get {now.replica_id}",
        )
    if not now.lease_held:
        return Explanation(
            "launcher_lost",
            "The worker that launched it is gone; another one takes it over by its name.",
            f"hostler task get {now.task_id}",
        )
    return Explanation(
        "launching",
        f"A worker holds it and is {'preparing' if now.state is State.PREPARING else 'launching'} it.",
        f"hostler replica events {now.replica_id}",
    )


def _queued(now: Situation) -> str:
    """Where it stands in the queue of its cluster."""
    job = f"job {now.cluster['job_id']}" if now.cluster.get("job_id") else "it"
    if now.cluster.get("seats"):
        job += f", in which it has seat {now.cluster['seat']} of {now.cluster['seats']},"
    told = ", ".join(str(now.cluster[one]) for one in ("state", "why") if now.cluster.get(one)) or now.message
    start = now.cluster.get("expected_start")
    when = f"expects to start it at {start}" if start else "does not say when it may start"
    return f"Its cluster has {job} in its queue{f' ({told})' if told else ''} and {when}."


def _look(now: Situation) -> str:
    return f"Seen there with `{now.cluster['command']}`." if now.cluster.get("command") else ""


def _starting(now: Situation) -> Explanation:
    if now.lease_held:
        return _launching(now)
    return Explanation(
        "starting",
        "The backend took it; it was not seen alive yet.",
        f"hostler replica logs {now.replica_id}",
    )


def _waiting(now: Situation) -> Explanation:
    where = f" on port {now.port}" if now.port else ""
    if now.reason is Reason.PREEMPTED:
        return Explanation(
            "preempted",
            f"Its cluster took its place away; it runs again and does not answer its readiness probe{where} yet."
            " It fails if it does not in its time.",
            f"hostler replica logs {now.replica_id} -f",
        )
    return Explanation(
        "waiting_for_ready",
        f"It is alive and does not answer its readiness probe{where} yet. {now.message}".rstrip(),
        f"hostler replica logs {now.replica_id} -f",
    )


def _ready(now: Situation) -> Explanation:
    if now.check_failures:
        return Explanation(
            "probes_failing",
            f"Its last {now.check_failures} probes failed; a few more and it is unhealthy.",
            f"hostler replica health {now.replica_id}",
        )
    return Explanation("ready", "It answers its probes.", f"hostler replica get {now.replica_id}")


def _unhealthy(now: Situation) -> Explanation:
    if now.reason is Reason.PREEMPTED:
        since = "It has yet to answer where it runs now." if now.port else f"{_queued(now)} {_look(now)}"
        return Explanation(
            "preempted",
            f"Its cluster took its place away. {since}".rstrip(),
            f"hostler replica events {now.replica_id}",
        )
    return Explanation(
        "probes_failed",
        f"It is alive but {now.check_failures} probes in a row failed: {now.message}",
        f"hostler replica restart {now.replica_id}",
    )


def _unserved(now: Situation) -> Explanation:
    return Explanation(
        "no_agent",
        f"No agent serves pool {now.pool}, so that nobody looks at it; what is known of it is old, and it goes on when"
        " one comes back.",
        "hostler node list",
    )


def _unreachable(now: Situation) -> Explanation:
    return Explanation(
        "backend_silent",
        f"The backend cannot be asked, which proves nothing about the replica: {now.message}",
        f"hostler node get {now.node}" if now.node else "hostler doctor",
    )


def _stopping(now: Situation) -> Explanation:
    if now.draining_until:
        return Explanation(
            "draining",
            f"It takes no new requests, and gets until {now.draining_until} to finish what is in flight at"
            f" {', '.join(now.in_use_by) or 'its gateway'}.",
            f"hostler replica stop {now.replica_id} --force",
        )
    if now.restarting:
        return Explanation(
            "restarting",
            "The old attempt was asked to end; the next one queues once it is seen gone.",
            f"hostler replica events {now.replica_id}",
        )
    return Explanation(
        "stopping",
        f"It was asked to end and was not seen gone yet. {_cause(now)}".rstrip() + _stop_trouble(now),
        f"hostler replica stop {now.replica_id} --force",
    )


def _cause(now: Situation) -> str:
    """Its message, unless that is the trouble with its stop."""
    return "" if now.stop_trouble and now.message == STOP_TROUBLE + now.stop_trouble else now.message


def _stopped(now: Situation) -> Explanation:
    why = f" because {now.reason}" if now.reason else ""
    return Explanation(
        "stopped",
        f"It was stopped{why} and is gone; nothing of it is held.",
        f"hostler replica restart {now.replica_id}",
    )


def _failed(now: Situation) -> Explanation:
    if now.left_behind:
        return Explanation(
            "given_up", f"It was counted as gone: {now.message}.", f"hostler replica events {now.replica_id}"
        )
    return Explanation(
        f"failed_{now.reason}",
        f"It failed: {now.message}",
        f"hostler replica logs {now.replica_id}",
    )


_LOOKED_AT = (*LAUNCHING[1:], *SERVING, State.UNREACHABLE)
_BY_STATE = {
    State.SCHEDULING: _launching,
    State.PREPARING: _launching,
    State.STARTING: _starting,
    State.WAITING_FOR_READY: _waiting,
    State.READY: _ready,
    State.UNHEALTHY: _unhealthy,
    State.UNREACHABLE: _unreachable,
    State.STOPPING: _stopping,
    State.STOPPED: _stopped,
    State.FAILED: _failed,
}
