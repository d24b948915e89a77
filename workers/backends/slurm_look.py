"""What is so of one attempt that has a folder: its records, under what Slurm says of its job."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from app.domain.hostlists import expand_hosts
from app.domain.lifecycle import Reason
from workers.backends.base import Liveness, Observation
from workers.backends.proc import signal_name
from workers.backends.slurm_queue import WAITING, QueuedJob

#: A job that Slurm started may need so long until its part of ours has told where it is.
TELLING_S = 30.0
#: A job's program that told so recently that it lives, lives: it does so every 5 s, on a file system that may stall.
ALIVE_S = 30.0
#: What it said of itself longer ago is believed no more where Slurm does not know the job: whose port it is, above all.
FRESH_S = 10.0
_REASONS = {
    "TIMEOUT": Reason.WALLTIME,
    "DEADLINE": Reason.WALLTIME,
    "PREEMPTED": Reason.PREEMPTED,
    "NODE_FAIL": Reason.NODE_LOST,
    "BOOT_FAIL": Reason.NODE_LOST,
    "CANCELLED": Reason.CANCELLED,
}
_WORDS = {
    "TIMEOUT": "Slurm ended it: its time limit was reached",
    "DEADLINE": "Slurm ended it: its deadline was reached",
    "PREEMPTED": "Slurm ended it: it was preempted",
    "NODE_FAIL": "Slurm ended it: its node failed",
    "BOOT_FAIL": "Slurm ended it: its node did not boot",
    "CANCELLED": "the job was cancelled in Slurm, not by Hostler",
    "OUT_OF_MEMORY": "Slurm ended it: out of memory",
}
#: What a node writes into the job's output when it ends a job, and the state that this is.
_SAID = (
    ("DUE TO TIME LIMIT", "TIMEOUT"),
    ("DUE TO PREEMPTION", "PREEMPTED"),
    ("DUE TO NODE FAILURE", "NODE_FAIL"),
    ("DUE TO JOB REQUEUE", "REQUEUED"),
    ("oom-kill event", "OUT_OF_MEMORY"),
    ("oom_kill event", "OUT_OF_MEMORY"),
    ("*** JOB", "CANCELLED"),
)


class Look:
    """One attempt that has a folder."""

    #: what is still to be done where its engine has ended
    clearing = "Slurm is ending the job"

    def __init__(self, attempt: Mapping[str, Any], job: QueuedJob | None, now: datetime) -> None:
        self.attempt, self.job, self.now = attempt, job, now
        self.run = attempt.get("run") or {}
        self.ended = attempt.get("exit") or {}
        self.term = attempt.get("term") or {}
        self.asked = "stop" in attempt
        known = attempt.get("owner") or attempt.get("job") or {}
        self.job_id = job.id if job else known.get("job_id")
        if job and self.run and (self.run.get("job_id") != job.id or self.run.get("restarts", 0) != job.restarts):
            self.run = {}  # of a run before this one
        newest = job.restarts if job else self.run.get("restarts", 0)
        # so may these be: how that one ended says nothing of this one
        if self.ended.get("restarts", 0) < newest:
            self.ended = {}
        if self.term.get("restarts", 0) < newest:
            self.term = {}

    def for_good(self) -> Observation | None:
        """How it ended, where that is settled whatever becomes of its job; for its own job only Slurm can say so."""
        return None

    def in_silence(self, silence: str) -> Observation:
        """The controller does not answer: whether there will be another run only it knows, unless we asked for none."""
        if self.asked and self.ended and not self.ended.get("left"):
            return self._exited()
        return Observation(Liveness.UNKNOWN, message=silence, told=self._told())

    def waiting(self) -> Observation:
        assert self.job is not None
        if self.asked and self.ended:
            return self._lingering("Slurm is about to run the job again, which will do nothing")
        why = self.job.why or self.job.state.lower()
        again = f" again (restart {self.job.restarts})" if self.job.restarts else ""
        message = f"waits{again} in the cluster's queue: {why}"
        if self.job.state == "CONFIGURING":
            message = f"waits for its nodes {self.job.nodes} to come up"
        return Observation(Liveness.QUEUED, message=message, told=self._told())

    def running(self) -> Observation:
        assert self.job is not None
        if self.ended:
            return self._ended_in(self.job)
        if not self.run:
            started = self.job.start or self.now
            where = self.job.batch_host or self.job.nodes
            if (self.now - started).total_seconds() < TELLING_S:
                return Observation(Liveness.QUEUED, message=f"is being started on {where}", told=self._told())
            return Observation(
                Liveness.RUNNING,
                message=f"its job on {where} has told nothing yet",
                started_at=started,
                told=self._told(),
            )
        return self._runs("Slurm suspended it" if self.job.state in ("SUSPENDED", "STOPPED") else "")

    def _runs(self, message: str) -> Observation:
        return Observation(
            Liveness.RUNNING,
            pid=self.run.get("pid"),
            host=self.run.get("host"),
            port=self.run.get("port"),
            started_at=_moment(self.run.get("started_at")),
            owns_port=self.run.get("owns_port"),
            message=message,
            told=self._told(),
        )

    def _ended_in(self, job: QueuedJob) -> Observation:
        """The engine ended in a job that Slurm said runs."""
        left = self.ended.get("left")
        # Slurm was asked after that end, and had not ended the run: then what is left may stay for ever
        outlived = self.ended.get("own") and left and self.attempt.get("ended_before") == job.restarts
        if not self.asked and not outlived:
            return self._undecided()
        return self._lingering(f"{left} process{' is' if left == 1 else 'es are'} left" if left else self.clearing)

    def completing(self) -> Observation:
        assert self.job is not None
        if self.asked or (self.ended.get("own") and self.job.state in ("COMPLETED", "FAILED")):
            return self._lingering(Look.clearing)
        return self._undecided()

    def _undecided(self) -> Observation:
        """This run ends. Whether Slurm ends the job or runs it again is seen when that is done."""
        message = "this run of it ends; whether there will be another one is not said yet"
        return Observation(Liveness.UNKNOWN, message=message, told=self._told())

    def over(self, job: QueuedJob) -> Observation:
        return self._exited(job.state, job)

    def forgotten(self, accounted: QueuedJob | None) -> Observation:
        """Slurm has the job no more, or never had it."""
        attempt = self.attempt
        if attempt.get("held"):
            return Observation(Liveness.QUEUED, message="is being submitted")
        if abs(attempt.get("alive_s", ALIVE_S)) < ALIVE_S and not (self.ended and not self.ended.get("left")):
            return self._alive()
        term = self.term
        state = accounted.state if accounted and accounted.over else ""
        if self.ended or term or state:
            return self._exited(state or _state_of(term, attempt.get("said", "")), accounted)
        said = _state_of({}, attempt.get("said", ""))
        if said:
            return self._exited(said)
        if self.asked:
            how = "was stopped while it was queued" if "owner" not in attempt else "ended, as asked; how is not known"
            return Observation(Liveness.EXITED, message=how, told=self._told())
        if "over" in attempt:
            # Slurm said so while it knew the job
            return self._exited()
        if self.job_id is None:
            return Observation(Liveness.LOST, message="was being submitted, and Slurm has no such job")
        return Observation(
            Liveness.LOST,
            message=f"Slurm knows no job {self.job_id} any more, and the job left no word of its end",
            told=self._told(),
        )

    def _alive(self) -> Observation:
        """Slurm forgot the job, and its program on the node goes on: it heeds the wish to stop in the folder."""
        message = f"Slurm knows no job {self.job_id} any more, and it still runs on its node"
        if self.ended:
            return self._lingering(message)
        if not self.run or abs(self.attempt["alive_s"]) > FRESH_S:
            # it may have ended without a word, and another one may answer at its address by now
            return Observation(Liveness.UNKNOWN, message=message, told=self._told())
        return self._runs(message)

    def _exited(self, state: str = "", job: QueuedJob | None = None) -> Observation:
        """``state``: what Slurm calls its end, where that is known."""
        return self._end(Liveness.EXITED, state, job, "")

    def _lingering(self, left: str) -> Observation:
        return self._end(Liveness.LINGERING, "", None, left)

    def _end(self, liveness: Liveness, state: str, job: QueuedJob | None, left: str) -> Observation:
        ended = self.ended
        reason = None
        if not self.asked and not (state == "CANCELLED" and ended.get("own") and not _as_by_sigterm(ended)):
            reason = _REASONS.get(state)
        code, number = ended.get("exit_code"), ended.get("signal")
        if not ended and job is not None:
            code, number = job.exit_code, job.signal
        out_of_memory = bool(ended.get("oom")) or (state == "OUT_OF_MEMORY" and not self.asked)
        message = ended.get("message") or _how(code, number, out_of_memory, asked=self.asked)
        if reason is not None:
            message = f"{_WORDS[state]}" + (f"; {message}" if ended else "")
        elif not ended:
            message = self._said(message)
        return Observation(
            liveness,
            pid=ended.get("pid"),
            exit_code=code,
            signal=number,
            out_of_memory=out_of_memory,
            message=f"{message}; {left}" if left else message,
            started_at=_moment(self.run.get("started_at")),
            ended_at=_moment(ended.get("ended_at")),
            reason=reason,
            told=self._told(),
        )

    def _said(self, message: str) -> str:
        """With what Slurm or the shell said last: then the engine was not even started."""
        if self.job is not None and self.job.restarts and not self.run and not self.asked:
            message += f"; it ended before its run {self.job.restarts + 1} began"
        lines = [line for line in self.attempt.get("said", "").splitlines() if line.strip()]
        if lines:
            return f"{message}; its job said: {lines[-1][:300]}"
        if self._wrote_nothing() and not self.asked:
            return f"{message}; its job could write nothing: do the nodes see the option `folder` as this host does?"
        return message

    def _wrote_nothing(self) -> bool:
        """Whether its job never came as far as its folder."""
        return "owner" not in self.attempt

    def _told(self) -> dict[str, Any] | None:
        if self.job_id is None:
            return None
        told: dict[str, Any] = {"job_id": self.job_id}
        job = self.job
        if job is not None:
            told |= {"state": job.state, "why": job.why, "restarts": job.restarts}
            waits = job.state in WAITING
            told["expected_start"] = job.start.isoformat() if waits and job.start else None
            told["nodes"] = _hosts(job.nodes)
        return told


def _state_of(term: Mapping[str, Any], said: str) -> str:
    """What Slurm called the end, by what the job was told or the node wrote."""
    if term.get("state") in _REASONS:
        return str(term["state"])
    # the last run's: a job that was run again has the words of the runs before it there too
    for line in reversed(said.splitlines()):
        for words, state in _SAID:
            if words in line:
                return state
    return "CANCELLED" if term else ""


def _how(code: int | None, number: int | None, out_of_memory: bool, *, asked: bool) -> str:
    if out_of_memory:
        return "killed for lack of memory"
    if number is not None:
        return f"killed by {signal_name(number)}" + (", as asked" if asked else "")
    if code is not None:
        return f"exited with code {code}"
    return "ended, as asked" if asked else "ended; how is not known"


def _as_by_sigterm(ended: Mapping[str, Any]) -> bool:
    number = signal.SIGTERM
    return ended.get("signal") == number or ended.get("exit_code") in (0, 128 + number)


def _hosts(listed: str) -> list[str]:
    try:
        return expand_hosts(listed)
    except ValueError:
        return [listed]


def _moment(value: object) -> datetime | None:
    return datetime.fromtimestamp(value, UTC) if isinstance(value, (int, float)) else None
