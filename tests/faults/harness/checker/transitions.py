"""No illegal step in the events, no gap between two of them, and the row says what the last one said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.faults.harness.checker.evidence import Evidence
from tests.faults.harness.checker.lifecycle import FIRST, STEPS
from tests.faults.harness.facts import Finding


def check_transitions(found: Evidence) -> Iterator[Finding]:
    for replica_id, events in found.rows.events_by_replica().items():
        steps = [event for event in events if event.kind == "transition"]
        yield from _judge_steps(replica_id, steps)
        yield from _judge_releases(replica_id, events)
        row = found.rows.replicas.get(replica_id)
        if row is None:
            if replica_id not in found.deleted:
                yield Finding("transitions", "a replica vanished that nobody deleted", {"replica": replica_id})
        elif steps:
            yield from _judge_row(row, steps[-1])
    for replica_id in found.rows.replicas.keys() - {event.replica_id for event in found.rows.events}:
        yield Finding("transitions", "a replica without any event", {"replica": replica_id})


def _judge_steps(replica_id: str, steps: list[Any]) -> Iterator[Finding]:
    state: str | None = None
    attempt = 1
    for event in steps:
        told = {"replica": replica_id, "event": event.id, "cause": event.cause, "actor": event.actor}
        step = f"{event.from_state} -> {event.to_state}"
        legal = event.to_state == FIRST if event.from_state is None else event.to_state in STEPS[event.from_state]
        if not legal:
            yield Finding("transitions", f"illegal step {step}", told)
        if event.from_state != state:
            yield Finding("transitions", f"step {step} was taken when it was {state}", told)
        if event.attempt != attempt and not (state == FIRST and event.attempt == attempt + 1):
            text = f"step {step} is of attempt {event.attempt} though {attempt} was the one at hand"
            yield Finding("transitions", text, told)
        state, attempt = event.to_state, event.attempt


def _judge_releases(replica_id: str, events: list[Any]) -> Iterator[Finding]:
    """An attempt is released once, and after that nothing of it moves but its own end."""
    released = Counter(event.attempt for event in events if event.kind == "released")
    for attempt, times in released.items():
        if times > 1:
            told = {"replica": replica_id, "attempt": attempt, "times": times}
            yield Finding("transitions", "an attempt was released more than once", told)
    closed: dict[int, int] = {}
    for event in events:
        if event.kind == "released":
            closed.setdefault(event.attempt, event.id)
        elif event.kind == "transition" and event.attempt in closed and event.to_state not in (FIRST, "stopped"):
            told = {"replica": replica_id, "attempt": event.attempt, "event": event.id, "to": event.to_state}
            yield Finding("transitions", "an attempt moved after it was released", told)


def _judge_row(row: Any, last: Any) -> Iterator[Finding]:
    told = {"replica": row.id, "row": f"{row.state} ({row.reason})", "last": f"{last.to_state} ({last.reason})"}
    if (row.state, row.reason) != (last.to_state, last.reason):
        yield Finding("transitions", "the row does not say what its last event said", told)
