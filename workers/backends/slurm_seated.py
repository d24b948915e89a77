"""What is so of one attempt that shares its job with others: the job tells less of it, and its supervisor more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from workers.backends.base import Liveness, Observation
from workers.backends.slurm_look import TELLING_S, Look
from workers.backends.slurm_queue import QueuedJob


class Seated(Look):
    """An attempt on a seat of a shared job."""

    clearing = "its seat is being cleared"

    def __init__(self, attempt: Mapping[str, Any], job: QueuedJob | None, now: datetime) -> None:
        super().__init__(attempt, job, now)
        self.seat = attempt["seat"]

    def for_good(self) -> Observation | None:
        """Its seat was taken from it after its end, or before it began: no later run of the job starts it."""
        by = (self.attempt.get("over") or {}).get("by")
        if by is None:
            return None
        # also where the job ran again since, or is over by now: that is nothing of this one's any more
        self.ended, self.run, self.job = self.attempt.get("exit") or {}, self.attempt.get("run") or {}, None
        if by == "stop" and not self.ended:
            return Observation(Liveness.EXITED, message="was stopped while it was queued", told=self._told())
        return self._exited()

    def running(self) -> Observation:
        seen = self._running()
        return replace(seen, hindrance=self._hindrance()) if self.asked else seen

    def _running(self) -> Observation:
        assert self.job is not None
        if self.run or self.ended:
            return super().running()
        seated = datetime.fromtimestamp(self.seat["at"], UTC)
        since = max(seated, self.job.start or seated)
        where = self.job.batch_host or self.job.nodes
        if (self.now - since).total_seconds() < TELLING_S:
            return Observation(Liveness.QUEUED, message=f"is being started on {where}", told=self._told())
        message = f"its part of the job on {where} has told nothing yet"
        return Observation(Liveness.RUNNING, message=message, started_at=since, told=self._told())

    def _hindrance(self) -> str:
        """Why it cannot end while others on its job go on, and what can be done."""
        job = self.job
        assert job is not None
        if self.attempt.get("alone") or (self.ended and not self.ended.get("left")):
            return ""
        if job.state in ("SUSPENDED", "STOPPED"):
            return (
                f"Slurm suspended job {job.id}, which others share with it: nothing of that job hears a wish, and none"
                f" of it can be killed alone. It ends once the job goes on (`scontrol resume {job.id}`), or once all on"
                " that job are stopped"
            )
        if self.attempt.get("silent"):
            where = job.batch_host or job.nodes
            return (
                f"on {where} neither the program of job {job.id}, which others share with it, nor its own part of that"
                " job does what was asked; that node may hang. It ends once they go on, or once all on that job are"
                f" stopped (`scancel {job.id}` ends all of them)"
            )
        return ""

    def _wrote_nothing(self) -> bool:
        return not self.attempt.get("began")

    def _told(self) -> dict[str, Any] | None:
        told = super()._told()
        return None if told is None else told | {"seat": self.seat["seat"] + 1, "seats": self.seat["of"]}
