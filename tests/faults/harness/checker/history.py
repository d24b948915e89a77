"""No slot, port or GPU held twice, ever: from the history of the leases, by overlap.

Times are of no use here, because the clock is shifted by some faults. The order is taken from the ids of events: an
attempt takes its leases in the transaction that writes *-> scheduling* and returns them in the one that writes
*released*. Ids are given when the row is written, after the lease was had, so of two holders in a row the first one's
*released* has the smaller id. A port that was swapped before the launch has no event of its own and is judged by time,
unless the clock was shifted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.faults.harness.checker.evidence import Evidence
from tests.faults.harness.facts import Finding
from tests.faults.harness.world import replica_of

_NEVER = 2**63


@dataclass(frozen=True)
class Held:
    """One holding of one unit. ``begin`` and ``end`` are ids of events."""

    lease: Any
    begin: int
    end: int


def check_history(found: Evidence) -> Iterator[Finding]:
    begins: dict[tuple[str, int], int] = {}
    ends: dict[tuple[str, int], int] = {}
    for event in found.rows.events:
        owner = (event.replica_id, event.attempt)
        if event.kind == "transition" and event.to_state == "scheduling":
            begins.setdefault(owner, event.id)
        elif event.kind == "released":
            ends.setdefault(owner, event.id)
    units: dict[tuple[str, str, int], list[Any]] = defaultdict(list)
    for lease in found.rows.leases:
        units[lease.kind, lease.scope, lease.number].append(lease)
    shifted = any(line["op"] == "fault" and "clock" in line["name"] for line in found.journal)
    for leases in units.values():
        whole = []
        for lease in leases:
            owner = replica_of(lease.holder)
            if owner not in begins:
                told = {"lease": lease.id, "holder": lease.holder}
                yield Finding("history", "a lease was taken without a claim", told)
            elif not _was_swapped(lease, owner, ends):
                whole.append(Held(lease, begins[owner], _NEVER if lease.released_at is None else ends[owner]))
        yield from _overlaps(whole)
        if not shifted:
            yield from _overlaps_by_time(leases)


def _was_swapped(lease: Any, owner: tuple[str, int], ends: dict[tuple[str, int], int]) -> bool:
    """Returned before the attempt ended."""
    if lease.released_at is None:
        return False
    return owner not in ends or (lease.closed is not None and lease.released_at != lease.closed)


def _overlaps(held: list[Held]) -> Iterator[Finding]:
    ordered = sorted(held, key=lambda one: one.begin)
    for one, other in zip(ordered, ordered[1:], strict=False):
        if other.begin < one.end:
            yield _finding(one.lease, other.lease)


def _overlaps_by_time(leases: list[Any]) -> Iterator[Finding]:
    ordered = sorted(leases, key=lambda lease: lease.id)
    for one, other in zip(ordered, ordered[1:], strict=False):
        # a moment is the beginning of a statement, and one statement may wait for the other one's commit
        if one.released_at is None or (other.acquired_at - one.acquired_at).total_seconds() < 0:
            continue
        if (one.released_at - other.acquired_at).total_seconds() > 1:
            yield _finding(one, other)


def _finding(one: Any, other: Any) -> Finding:
    told = {
        "unit": f"{one.kind} {one.scope}/{one.number}",
        "leases": [one.id, other.id],
        "holders": [one.holder, other.holder],
        "times": [str(moment) for lease in (one, other) for moment in (lease.acquired_at, lease.released_at)],
    }
    return Finding("history", "a unit was held by two at once", told)
