"""What is so of one attempt that shares its job with others: the job tells less of it, and its supervisor more."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from workers.backends.base import Liveness, Observation
from workers.backends.slurm_look import TELLING_S, Look
from workers.backends.slurm_queue import QueuedJob


class Seated(Look):
    """An attempt on a seat of a shared job."""

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

    def _wrote_nothing(self) -> bool:
        return not self.attempt.get("began")

    def _told(self) -> dict[str, Any] | None:
        told = super()._told()
        return None if told is None else told | {"seat": self.seat["seat"] + 1, "seats": self.seat["of"]}
