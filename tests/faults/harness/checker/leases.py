"""No lease without an owner, and nobody without the leases he needs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from tests.faults.harness.checker.evidence import Evidence
from tests.faults.harness.facts import Finding


def check_leases(found: Evidence) -> Iterator[Finding]:
    live = [lease for lease in found.rows.leases if lease.released_at is None]
    for lease in live:
        told = {"lease": lease.id, "unit": _unit(lease), "holder": lease.holder}
        if lease.name is None or lease.closed is not None:
            yield Finding("leases", "a lease is held by an attempt that is over", told)
        elif (replica := found.rows.replicas.get(lease.replica_id)) is None or replica.attempt != lease.attempt:
            yield Finding("leases", "a lease is held by an attempt that is not the replica's", told)
        elif replica.state in ("stopped", "failed"):
            yield Finding("leases", "an ended replica still holds a lease", {**told, "replica": replica.id})
    for unit, times in Counter(_unit(lease) for lease in live).items():
        if times > 1:
            yield Finding("leases", "a unit is leased more than once now", {"unit": unit, "times": times})
    yield from _judge_units(found, live)
    yield from _judge_owners(found, live)


def _judge_units(found: Evidence, live: list[Any]) -> Iterator[Finding]:
    """The unit's own note of who has it says the same as the lease."""
    noted = {unit.lease_id: _unit(unit) for unit in found.rows.units}
    held = {lease.id: _unit(lease) for lease in live}
    for lease_id in noted.keys() | held.keys():
        if noted.get(lease_id) != held.get(lease_id):
            told = {"lease": lease_id, "unit says": noted.get(lease_id), "lease says": held.get(lease_id)}
            yield Finding("leases", "a unit and its lease do not agree", told)


def _judge_owners(found: Evidence, live: list[Any]) -> Iterator[Finding]:
    held: dict[int, list[Any]] = defaultdict(list)
    for lease in live:
        held[lease.attempt_id].append(lease)
    for attempt in found.rows.open_attempts():
        kinds = Counter(lease.kind for lease in held[attempt.id])
        told = {"attempt": attempt.name, "leases": dict(kinds)}
        if kinds["slot"] != 1:
            yield Finding("leases", "an open attempt does not hold exactly one slot", told)
        if not found.rows.host_bound.get(attempt.backend, False):
            continue
        ports = [lease.number for lease in held[attempt.id] if lease.kind == "port"]
        if ports != [attempt.port]:
            text = "an open attempt does not hold exactly the port it is said to have"
            yield Finding("leases", text, {**told, "ports": ports, "port": attempt.port})


def _unit(row: Any) -> str:
    return f"{row.kind} {row.scope}/{row.number}"
