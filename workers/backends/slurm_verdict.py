"""What is so of one attempt, from what its job wrote, what the controller says and, last, what the accounting knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from app.domain.slurm_script import MARK
from workers.backends.base import Liveness, Observation
from workers.backends.slurm_look import Look
from workers.backends.slurm_queue import WAITING, QueuedJob
from workers.backends.slurm_seated import Seated

_NO_TRACE = "was never launched, or its record was removed"


def observe(
    name: str,
    attempt: Mapping[str, Any],
    jobs: Sequence[QueuedJob] | None,
    *,
    silence: str = "",
    accounted: Mapping[str, QueuedJob] | None = None,
    now: datetime | None = None,
) -> Observation:
    """``attempt``: its records; ``jobs``: the user's of its job's name; None: no answer, as ``silence`` tells."""
    if "sealed" in attempt:
        return Observation(Liveness.ABSENT, message="was stopped before it was launched")
    job = own_job(name, attempt, jobs or ())
    if not attempt.get("there"):
        return _without_folder(job, jobs, silence)
    look = (Seated if "seat" in attempt else Look)(attempt, job, now or datetime.now(UTC))
    ended = look.for_good()
    if ended is not None:
        return ended
    if jobs is None:
        return look.in_silence(silence)
    if job is None:
        known = (accounted or {}).get(look.job_id or "")
        # an id proves nothing there either: a controller that lost its last seconds gives it to another job
        return look.forgotten(known if known and known.name == job_name(name, attempt) else None)
    if job.over:
        return look.over(job)
    if job.completing or job.state == "COMPLETING":
        return look.completing()
    if job.state in WAITING:
        return look.waiting()
    return look.running()


def job_name(name: str, attempt: Mapping[str, Any]) -> str:
    """What the attempt's job is called: as the attempt, unless others share it."""
    seat = attempt.get("seat")
    return str(seat["job_name"]) if seat else name


def own_job(name: str, attempt: Mapping[str, Any], jobs: Sequence[QueuedJob]) -> QueuedJob | None:
    """The attempt's job: by its mark and the launch's nonce, or by the id that Slurm gave it. A name proves nothing."""
    shared = attempt.get("seat")
    nonce = (shared or attempt.get("launch") or {}).get("nonce")
    name = job_name(name, attempt)
    known = {record.get("job_id") for key in ("job", "owner") if (record := attempt.get(key))}
    owner = (attempt.get("owner") or {}).get("job_id")
    found = []
    for job in jobs:
        if job.name != name:
            continue
        marked = job.comment == f"{MARK}:{name}:{nonce}" if nonce else job.comment.startswith(f"{MARK}:{name}:")
        if job.id in known or marked:
            found.append(job)
    return max(found, key=lambda job: (job.id == owner, not job.over, int(job.id)), default=None)


def _without_folder(job: QueuedJob | None, jobs: Sequence[QueuedJob] | None, silence: str) -> Observation:
    if jobs is None:
        return Observation(Liveness.UNKNOWN, message=silence)
    if job is None or job.over:
        return Observation(Liveness.ABSENT, message=_NO_TRACE)
    told = {"job_id": job.id, "state": job.state}
    if job.completing:
        return Observation(Liveness.LINGERING, message="Slurm is ending its job; its record is lost", told=told)
    liveness = Liveness.QUEUED if job.state in WAITING else Liveness.RUNNING
    return Observation(liveness, message="its record is lost", told=told)
