"""What squeue and sacct say, over the versions of Slurm: fixed columns of all of them, JSON of those that filter it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

#: Columns of ``squeue -O`` and their widths. All are in 19.05; a longer value is cut there, and none of ours is longer.
COLUMNS = (
    ("JobID", 20), ("State", 20), ("RestartCnt", 12), ("StartTime", 24), ("BatchHost", 128), ("exit_code", 12),
    ("Reason", 64), ("Name", 160), ("Comment", 256), ("NodeList", 2048),
)  # fmt: skip
FIELDS = ",".join(f"{name}:{width}" for name, width in COLUMNS)
#: Of a job in JSON, what is read.
KEYS = (
    "job_id", "job_state", "restart_cnt", "start_time", "batch_host", "exit_code", "state_reason", "name", "comment",
    "nodes",
)  # fmt: skip
#: Before it, JSON was all users' jobs in full, whatever was asked for.
JSON_SINCE = (23, 11)

WAITING = frozenset(
    {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
)
OVER = frozenset(
    {"COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE", "OUT_OF_MEMORY"}
    | {"REVOKED", "LAUNCH_FAILED", "RECONFIG_FAIL"}
)
_NOTHING = frozenset({"", "(null)", "N/A", "None", "Unknown", "NONE"})


@dataclass(frozen=True)
class QueuedJob:
    """One job as the controller knows it. ``state``: the base state, ``completing`` while nodes are being cleared."""

    id: str
    name: str
    comment: str
    state: str
    completing: bool = False
    restarts: int = 0
    start: datetime | None = None
    batch_host: str = ""
    exit_code: int | None = None
    signal: int | None = None
    why: str = ""
    nodes: str = ""

    @property
    def over(self) -> bool:
        return self.state in OVER and not self.completing


def version_of(told: str) -> tuple[int, int] | None:
    """``slurm 22.05.8`` or ``slurm-wlm 22.05.8`` -> (22, 5)."""
    found = re.search(r"(\d+)\.(\d+)", told)
    return (int(found[1]), int(found[2])) if found else None


def format_of(version: tuple[int, int] | None, wish: str | None) -> dict[str, Any]:
    """How squeue is to be asked."""
    as_json = wish == "json" if wish else version is not None and version >= JSON_SINCE
    return {"json": as_json, "fields": FIELDS, "keys": list(KEYS)}


def read_fixed(text: str) -> list[QueuedJob]:
    """Output of ``squeue -h -O FIELDS``: columns are as wide as asked, in bytes."""
    jobs = []
    for line in text.encode("utf-8", "surrogateescape").split(b"\n"):
        if not line.strip():
            continue
        values, at = [], 0
        for _, width in COLUMNS:
            values.append(line[at : at + width].decode("utf-8", "replace").strip())
            at += width
        job, state, restarts, start, batch_host, code, why, name, comment, nodes = values
        # an array's or a heterogeneous job's: none of ours
        if not job.isdigit():
            continue
        base, completing = _state(state)
        exit_code, number = _fixed_code(code)
        jobs.append(
            QueuedJob(
                job,
                name,
                _word(comment),
                base,
                completing,
                int(restarts) if restarts.isdigit() else 0,
                _iso(start),
                _word(batch_host),
                exit_code,
                number,
                _word(why),
                _word(nodes),
            )
        )
    return jobs


def read_json(jobs: Iterable[Mapping[str, Any]]) -> list[QueuedJob]:
    """Jobs of ``squeue --json``, of 21.08 (plain values) up to 25.05 (states in lists, numbers in objects)."""
    found = []
    for job in jobs:
        said = job.get("job_state") or ""
        base, completing = _state(said if isinstance(said, str) else " ".join(map(str, said)))
        exit_code, number = _json_code(job.get("exit_code"))
        start = _number(job.get("start_time"))
        found.append(
            QueuedJob(
                str(_number(job.get("job_id"))),
                str(job.get("name") or ""),
                _word(str(job.get("comment") or "")),
                base,
                completing,
                _number(job.get("restart_cnt")) or 0,
                datetime.fromtimestamp(start, UTC) if start else None,
                _word(str(job.get("batch_host") or "")),
                exit_code,
                number,
                _word(str(job.get("state_reason") or "")),
                _word(str(job.get("nodes") or "")),
            )
        )
    return found


def read_accounting(text: str) -> dict[str, QueuedJob]:
    """Output of ``sacct -n -X -P -o JobIDRaw,State,ExitCode,End,JobName``; of a job that ran twice the last run."""
    found = {}
    for line in text.splitlines():
        words = line.split("|", 4)
        if len(words) == 5 and words[0].isdigit():
            base, completing = _state(words[1])
            code, number = _pair(words[2])
            found[words[0]] = QueuedJob(
                words[0], words[4], "", base, completing, exit_code=code, signal=number, start=_iso(words[3])
            )
    return found


def _state(said: str) -> tuple[str, bool]:
    """``CANCELLED by 1000``, ``COMPLETING``, ``CANCELLED COMPLETING``, ``RUNNING``: the base state first, if any."""
    words = said.upper().replace(",", " ").replace("|", " ").split()
    completing = "COMPLETING" in words
    others = [word for word in words if word in WAITING | OVER] or [word for word in words if word != "COMPLETING"]
    if "REQUEUED" in words or "REQUEUE_HOLD" in words:
        others = ["PENDING"]
    return (others[0] if others else "COMPLETING"), completing


def _fixed_code(said: str) -> tuple[int | None, int | None]:
    """Older versions give the status as ``wait`` knows it, newer ones ``CODE:SIGNAL``."""
    if ":" in said:
        return _pair(said)
    if not said.isdigit():
        return None, None
    return _split_status(int(said))


def _pair(said: str) -> tuple[int | None, int | None]:
    code, _, number = said.partition(":")
    if not code.isdigit() or not number.isdigit():
        return None, None
    return (None, int(number)) if int(number) else (int(code), None)


def _json_code(said: object) -> tuple[int | None, int | None]:
    if isinstance(said, Mapping):
        number = said.get("signal")
        killer = _number(number.get("id") if isinstance(number, Mapping) else None)
        killer = killer or _number(number.get("signal_id")) if isinstance(number, Mapping) else killer
        return (None, killer) if killer else (_number(said.get("return_code")), None)
    return _split_status(said) if isinstance(said, int) else (None, None)


def _split_status(status: int) -> tuple[int | None, int | None]:
    return (None, status & 0x7F) if status & 0x7F else (status >> 8 & 0xFF, None)


def _number(said: object) -> int | None:
    """A number as it is, or as ``{"set": true, "infinite": false, "number": 5}``."""
    if isinstance(said, Mapping):
        return _number(said.get("number")) if said.get("set", True) and not said.get("infinite") else None
    return int(said) if isinstance(said, (int, float)) and not isinstance(said, bool) else None


def _word(said: str) -> str:
    return "" if said in _NOTHING else said


def _iso(said: str) -> datetime | None:
    try:
        return datetime.fromisoformat(said).replace(tzinfo=UTC)
    except ValueError:
        return None
