"""One service at one moment: its rows, its members, and what the planner says about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection

from app.db.repos import service_members, service_revisions, service_tasks
from app.domain import services as planner
from app.domain.services import Action, Create, Desired, Plan, RollBack
from app.usecases.refusals import refusals
from app.usecases.service_rows import by_service, desired_of, observed_of

T = TypeVar("T")


@dataclass
class Seen:
    """One service at one moment, and what the planner says about it."""

    row: Any
    spec: Mapping[str, Any]
    members: Sequence[Any]
    open_tasks: Sequence[Any]
    plan: Plan

    @property
    def now(self) -> float:
        return float(self.row.now.timestamp())

    @property
    def running(self) -> bool:
        return bool(self.row.desired_state == "running")

    @property
    def gone(self) -> bool:
        return all(member.released_at is not None for member in self.members)

    @property
    def past(self) -> list[str]:
        """Members that are gone and were replaced. Not before the one that they replaced themselves, so that no
        replaced one is ever without the one that replaced it."""
        replaced = {member.replaces for member in self.members}
        present = {member.replica_id: member for member in self.members}
        found: list[str] = []
        for member in sorted(self.members, key=lambda one: (one.created_at, one.replica_id)):
            free = member.replaces not in present or member.replaces in found
            if free and member.replica_id in replaced and member.released_at is not None:
                found.append(member.replica_id)
        return found

    @property
    def actions(self) -> list[Action]:
        """The planner's, without replicas that would be refused again."""
        return [one for one in self.plan.actions if not (isinstance(one, Create) and self._held_back(one))]

    def _held_back(self, wanted: Create) -> bool:
        refused = refusals(self.row.rollout).get(wanted.revision)
        return refused is not None and refused.wait_s(self.now) > 0

    def of(self, kind: type[T]) -> list[T]:
        return [one for one in self.actions if isinstance(one, kind)]


def see(connection: Connection, ids: Sequence[str], rows: Sequence[Any], loads: Mapping[str, int]) -> list[Seen]:
    members = by_service(service_members.planned(connection, ids))
    specs = service_revisions.specs(connection, [(row.id, row.revision) for row in rows])
    open_tasks: dict[str, list[Any]] = {}
    for task in service_tasks.open_of(connection, ids):
        open_tasks.setdefault(task.arguments["service_id"], []).append(task)
    found = []
    for row in rows:
        spec, own = specs[row.id, row.revision], members.get(row.id, [])
        observed = [observed_of(member, loads, row.now.timestamp()) for member in own]
        desired = desired_of(row, spec)
        plan = _refused_for_good(row, desired) or planner.plan(desired, observed, row.now.timestamp())
        found.append(Seen(row, spec, own, open_tasks.get(row.id, []), plan))
    return found


def _refused_for_good(row: Any, desired: Desired) -> Plan | None:
    """The way back from an update of which no replica could even be made in its time; else None."""
    refused, since, good = refusals(row.rollout).get(desired.revision), desired.rollout_since, desired.good_revision
    goes_back = desired.running and not desired.paused and desired.update.auto_rollback
    if refused is None or since is None or good is None or good == desired.revision or not goes_back:
        return None
    deadline_s = desired.update.progress_deadline_s
    # asked for again once before it is believed
    if refused.tries < 2 or row.now.timestamp() < since + deadline_s:
        return None
    why = f"no replica of revision {desired.revision} could be made in {deadline_s:g} s: {refused.message}"
    return Plan((RollBack(good, why),), waits_for=f"the way back to revision {good}")
