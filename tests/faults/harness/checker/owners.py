"""Whose what runs is: processes under the name of an attempt, held against it and its replica."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tests.faults.harness.checker.evidence import Evidence
from tests.faults.harness.facts import Finding
from tests.faults.harness.far_world import FarProcess
from tests.faults.harness.world import Process


def judge_named(
    found: Evidence, rule: str, name: str, processes: Sequence[Process | FarProcess], attempt: Any | None
) -> Iterator[Finding]:
    """``rule`` says where they run: ``processes`` of this host, or ``places`` elsewhere."""
    where = " elsewhere" if rule == "places" else ""
    told = {"attempt": name, "pids": [process.pid for process in processes]}
    if attempt is None:
        yield Finding(rule, f"something runs{where} for an attempt that is over or unknown", told)
        return
    replica = found.rows.replicas.get(attempt.replica_id)
    if replica is None or replica.attempt != attempt.number:
        yield Finding(rule, f"something runs{where} for an attempt that is not the replica's", told)
    elif replica.state in ("stopped", "failed", "pending"):
        yield Finding(rule, f"something runs{where} for a replica that is {replica.state}", told)
    leaders = [process.pid for process in processes if process.leads]
    if len(leaders) > 1:
        yield Finding(rule, f"an attempt has more than one engine{where}", {**told, "engines": leaders})
