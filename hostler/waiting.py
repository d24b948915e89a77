"""When waiting is over: the rules for replicas and tasks, and the failures that end a wait early."""

from __future__ import annotations

from hostler.errors import BadInput, HostlerError, NotFound, ReplicaFailed, ServiceFailed, TimedOut
from hostler.wire import Call, Json, Steps, exchange, until

WANTED = ("ready", "stopped", "released", "deleted")
SERVICE_WANTED = ("running", "stopped")
#: What a service never leaves by itself for the better.
SERVICE_ENDED = frozenset({"completed", "failed", "cancelled"})
TERMINAL = frozenset({"stopped", "failed"})
TASK_ENDED = frozenset({"succeeded", "failed", "cancelled"})
LOG_TAIL_LINES = 20
#: Seconds between two looks: the first and the longest.
LOOK_EVERY_S = (0.05, 0.5)


def replica_steps(call: Call, replica_id: str, wanted: str, timeout_s: float | None) -> Steps[Json]:
    """The replica's record once it is ``wanted``; see ``Verbs.wait_replica``."""
    if wanted not in WANTED:
        raise BadInput(f"cannot wait for {wanted!r}, only for one of: {', '.join(WANTED)}")
    seen: Json = {}

    def done(body: Json) -> bool:
        seen.update(body)
        return is_over(body, wanted)

    def late() -> HostlerError:
        return TimedOut(
            f"replica {replica_id} is not {wanted} after {timeout_s:g} s; it is {seen.get('status')}",
            hint=f"hostler replica explain {replica_id}",
        )

    try:
        body = yield from until(call, done, timeout_s=timeout_s, late=late, every_s=LOOK_EVERY_S)
    except NotFound:
        if wanted == "deleted":
            return {}
        raise
    if wanted == "ready" and body.get("status") != "ready":
        tail = yield from log_tail_steps(replica_id)
        raise failure(body, log_tail=tail)
    if wanted == "stopped" and body.get("status") != "stopped":
        raise failure(body)
    return body


def task_steps(call: Call, task_id: str, timeout_s: float | None) -> Steps[Json]:
    """The task's record once it has ended."""

    def late() -> HostlerError:
        return TimedOut(f"task {task_id} has not ended after {timeout_s:g} s", hint=f"hostler task get {task_id}")

    return (
        yield from until(
            call, lambda body: body.get("state") in TASK_ENDED, timeout_s=timeout_s, late=late, every_s=LOOK_EVERY_S
        )
    )


def service_steps(call: Call, ref: str, wanted: str, timeout_s: float | None) -> Steps[Json]:
    """The service's record once it is ``wanted``; see ``Verbs.wait_service``."""
    if wanted not in SERVICE_WANTED:
        raise BadInput(f"cannot wait for {wanted!r}, only for one of: {', '.join(SERVICE_WANTED)}")
    seen: Json = {}

    def done(body: Json) -> bool:
        seen.clear()
        seen.update(body)
        return service_is_over(body, wanted)

    def late() -> HostlerError:
        return TimedOut(
            f"service {ref} is not {wanted} after {timeout_s:g} s; it is {seen.get('status')}",
            hint=f"hostler service status {ref}",
        )

    body = yield from until(call, done, timeout_s=timeout_s, late=late, every_s=LOOK_EVERY_S)
    if wanted == "running" and not _all_ready(body):
        raise service_failure(body)
    return body


def service_is_over(service: Json, wanted: str) -> bool:
    """Whether the wait has an outcome, good or bad."""
    if wanted == "stopped":
        return bool(service.get("ended_at"))
    given_up = (service.get("plan") or {}).get("given_up")
    return _all_ready(service) or bool(given_up) or service.get("status") in SERVICE_ENDED


def _all_ready(service: Json) -> bool:
    # one whose update failed, and that went on with what it had, runs too
    is_wanted = service.get("desired_state") == "running"
    return is_wanted and int(service.get("ready") or 0) >= int(service.get("count") or 0)


def service_failure(service: Json, *, log_tail: str = "") -> ServiceFailed:
    """The exception that tells why ``service`` is not what was asked for."""
    service_id, status = str(service.get("id")), service.get("status")
    reason, message = str(service.get("reason") or ""), str(service.get("message") or "")
    text = ": ".join(part for part in (f"service {service_id} {status}", reason, message) if part)
    return ServiceFailed(
        text, service_id=service_id, reason=reason, log_tail=log_tail, hint=f"hostler service status {service_id}"
    )


def is_over(replica: Json, wanted: str) -> bool:
    """Whether the wait has an outcome, good or bad."""
    status = replica.get("status")
    if wanted == "ready":
        return status == "ready" or status in TERMINAL
    if wanted == "stopped":
        return status in TERMINAL
    if wanted == "released":
        return bool(replica.get("released_at"))
    return False


def failure(replica: Json, *, log_tail: str = "") -> ReplicaFailed:
    """The exception that tells why ``replica`` ended."""
    replica_id, status = str(replica.get("replica_id")), replica.get("status")
    reason = str(replica.get("reason") or "")
    text = f"replica {replica_id} {status}" + (f": {reason}" if reason else "")
    message = str(replica.get("message") or "")
    return ReplicaFailed(
        f"{text}: {message}" if message else text,
        replica_id=replica_id,
        reason=reason,
        log_tail=log_tail,
        hint=f"hostler replica logs {replica_id}",
    )


def log_tail_steps(replica_id: str) -> Steps[str]:
    """The last lines of a replica's output; empty when there are none to be had."""
    try:
        reply = yield from exchange(Call("GET", f"/api/v1/replicas/{replica_id}/logs", {"tail": LOG_TAIL_LINES}))
    except HostlerError:
        # the failure being told matters more than the missing logs
        return ""
    return reply.text()
