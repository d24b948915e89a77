"""Carrying out a health check or the diagnostics: one real look now, and again later when it was not good."""

from __future__ import annotations

from typing import Any

from app.domain.lifecycle import SERVING, TERMINAL, Reason, State
from app.domain.tasks import Phase, TaskKind, TaskState
from app.usecases import claims, reach, watching
from app.usecases.claims import Claim
from app.usecases.reach import Unreached
from workers.backends.base import BackendError, Liveness
from workers.bootstrap import Runtime
from workers.deep import stored_hung
from workers.engine_targets import diagnostics_timeout_s, engine_of, handle_of, readiness_target
from workers.keeper import Keeper
from workers.launching import MOST_DIAGNOSTICS_S
from workers.probes.diagnostics import run_diagnostics
from workers.probes.http import probe_once

#: One look takes no longer than this; the next comes after ``poll_interval_s``, so that nothing waits behind it.
LOOK_S = 5.0


def carry_out_health(runtime: Runtime, pool: str | None) -> str:
    """Claim the oldest due health check and look once. Returns the task's result line."""
    claim = claims.claim(runtime.ctx, TaskKind.HEALTH, pool=pool, worker=runtime.id, phase=Phase.PROBING)
    if claim is None:
        return "nothing to claim"
    with Keeper(runtime.ctx, claim.task_id, claim.lease_token):
        result = _look(runtime, claim.row, min(LOOK_S, float(claim.arguments.get("timeout_s", LOOK_S))))
    waited_s = watching.task_age_s(runtime.ctx, claim.task_id)
    poll_s = float(claim.arguments.get("poll_interval_s", 5))
    over = waited_s + poll_s >= float(claim.arguments.get("timeout_s", 120))
    if not result["healthy"] and not over and State(claim.row.state) not in TERMINAL:
        claims.put_back(runtime.ctx, claim, poll_s)
        outcome = "unhealthy, asked again later"
    else:
        outcome = "healthy" if result["healthy"] else "unhealthy"
        claims.finish(runtime.ctx, claim, TaskState.SUCCEEDED, result=result, message=result["message"])
    return f"task={claim.task_id} replica={claim.row.id} outcome={outcome}"


def carry_out_diagnose(runtime: Runtime, pool: str | None) -> str:
    """Claim the oldest diagnose and run the engine's diagnostics. Returns the task's result line."""
    claim = claims.claim(runtime.ctx, TaskKind.DIAGNOSE, pool=pool, worker=runtime.id, phase=Phase.DIAGNOSING)
    if claim is None:
        return "nothing to claim"
    row = claim.row
    if State(row.state) not in SERVING:
        message = f"replica {row.id} is {row.state}; diagnostics need a ready one"
        claims.finish(runtime.ctx, claim, TaskState.FAILED, reason=Reason.DIAGNOSTICS_FAILED, message=message)
        return f"task={claim.task_id} replica={row.id} outcome=not ready"
    with Keeper(runtime.ctx, claim.task_id, claim.lease_token):
        diagnostics = _diagnose(runtime, claim)
    watching.record_diagnostics(runtime.ctx, row.id, row.attempt, diagnostics)
    if diagnostics["passed"]:
        claims.finish(runtime.ctx, claim, TaskState.SUCCEEDED, result=diagnostics)
        return f"task={claim.task_id} replica={row.id} outcome=passed"
    failed = ", ".join(check["name"] for check in diagnostics["checks"] if not check["ok"])
    message = f"failed: {failed}"
    claims.finish(
        runtime.ctx, claim, TaskState.FAILED, reason=Reason.DIAGNOSTICS_FAILED, message=message, result=diagnostics
    )
    return f"task={claim.task_id} replica={row.id} outcome=failed"


def _diagnose(runtime: Runtime, claim: Claim) -> dict[str, Any]:
    row = claim.row
    if not runtime.backend_of(row).serves_http:
        look = _look(runtime, row, LOOK_S)
        return {"passed": look["healthy"], "simulated": True, "checks": look["checks"], "duration_s": 0.0}
    address = reach.address(runtime.ctx, row)
    if isinstance(address, Unreached):
        return {"passed": False, "checks": [{"name": "tunnel", "ok": False, "detail": address.why}], "duration_s": 0.0}
    return run_diagnostics(
        engine_of(row),
        row.spec["resolved"]["config"],
        row.model_name,
        address.url,
        runtime.ctx.engine_key,
        min(diagnostics_timeout_s(row), MOST_DIAGNOSTICS_S),
    )


def _look(runtime: Runtime, row: Any, timeout_s: float) -> dict[str, Any]:
    checks: list[dict[str, Any]] = []
    backend = runtime.backend_of(row)
    if row.attempt_id is None:
        return _answer(row, checks, f"replica is {row.state}; nothing runs yet")
    try:
        seen = backend.inspect([handle_of(row.backend, row.attempt_name, row.backend_ref)])[0]
    except BackendError as error:
        checks.append({"name": "process", "ok": False, "detail": str(error)})
        return _answer(row, checks, str(error))
    alive = seen.liveness is Liveness.RUNNING
    checks.append({"name": "process", "ok": alive, "detail": seen.message or str(seen.liveness)})
    if not alive:
        return _answer(row, checks, seen.message or f"the backend says {seen.liveness}")
    if not backend.serves_http:
        checks.append({"name": "answers", "ok": bool(seen.answers), "detail": "told by the backend"})
        return _answer(row, checks, "" if seen.answers else "does not answer")
    if seen.owns_port is False:
        checks.append({"name": "port", "ok": False, "detail": "a stranger listens on its port"})
        return _answer(row, checks, "a process that is not part of this replica listens on its port")
    address = reach.address(runtime.ctx, row)
    if isinstance(address, Unreached):
        checks.append({"name": "tunnel", "ok": False, "detail": address.why})
        return _answer(row, checks, address.why)
    probe = probe_once(readiness_target(row, address), timeout_s)
    checks.append(
        {"name": "answers", "ok": probe.ok, "status": probe.status, "latency_ms": probe.latency_ms}
        | ({"detail": probe.detail} if probe.detail else {})
    )
    hung = stored_hung(row)
    if probe.ok and hung:
        checks.append({"name": "work", "ok": False, "detail": hung})
        return _answer(row, checks, f"hung: {hung}")
    return _answer(row, checks, "" if probe.ok else probe.detail)


def _answer(row: Any, checks: list[dict[str, Any]], trouble: str) -> dict[str, Any]:
    healthy = bool(checks) and all(check["ok"] for check in checks)
    return {
        "replica_id": row.id,
        "healthy": healthy,
        "base_url": row.base_url,
        "message": trouble or "answers",
        "checks": checks,
    }
