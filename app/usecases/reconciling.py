"""From what a service should be to what it is: one transaction looks, plans and acts; any number may try at once.

A service's row is locked by whoever acts on it, so that each step is taken once. Hints say that a replica of it
changed; they are taken away before its replicas are read, so that what comes meanwhile leaves a hint again. Whatever is
not hinted at is looked at by the clock: no service is left alone for longer than ``LOOK_S``.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

from sqlalchemy import Connection

from app.db.engine import Database
from app.db.repos import events, tasks
from app.db.repos import services as repo
from app.domain import services as planner
from app.domain.lifecycle import Reason, State
from app.domain.routing import SERVICE_LABEL
from app.domain.services import Action, CancelAll, Create, Desired, GiveUp, Good, Plan, RollBack, Stop
from app.domain.tasks import LIFECYCLE_KINDS, Phase, TaskKind, TaskState
from app.doorbell.queues import queue_for
from app.errors import Collided, HostlerError, NotFound, Unavailable, UnknownPool
from app.usecases import creates, stops
from app.usecases.context import Actor, Context
from app.usecases.gateway_load import GatewayLoad
from app.usecases.plans import Plan as Resolved
from app.usecases.plans import resolve
from app.usecases.refusals import Refusal, refusals, stored
from app.usecases.service_revisions import body_of, columns_of
from app.usecases.service_rows import by_service, desired_of, observed_of

log = logging.getLogger(__name__)

T = TypeVar("T")

#: No running service is left alone for longer, hints or not.
LOOK_S = 30.0
#: A look further ahead than this was set by a clock that was set back since.
AHEAD_S = LOOK_S + 5.0
#: Services that one transaction looks at.
BATCH = 200
#: How long one sweep may take: other repairs wait behind it.
BUDGET_S = 5.0
#: Replicas that one transaction makes; the next one goes on at once.
MOST_CREATES = 200
#: Plans that follow from each other in one transaction: a good revision, then what that allows.
PASSES = 8
#: Who acts when nobody asked.
HOSTLER = "hostler"


@dataclass
class Effects:
    """What is to be told after the commit."""

    rings: set[tuple[TaskKind, str, str | None]] = field(default_factory=set)
    topics: set[str] = field(default_factory=set)
    #: replicas that were made or asked to end
    made: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)

    def add(self, other: Effects) -> None:
        """These too."""
        self.rings |= other.rings
        self.topics |= other.topics
        self.made += other.made
        self.stopped += other.stopped

    def tell(self, ctx: Context) -> None:
        """Ring and wake whoever waits. Call it after the commit."""
        for kind, pool, node in self.rings:
            scope = {"node": node} if node else {"pool": pool}
            ctx.doorbell.ring(kind, queue_for(kind, pool, node), **scope)
        if self.topics:
            ctx.notify(*sorted(self.topics))


@dataclass
class _Seen:
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


def turn(ctx: Context, limit: int = BATCH, until: float = float("inf")) -> int:
    """Look at what is due and act where something is to be done; how many were due. Raises Collided, Unavailable.

    What somebody else is at is left to them, and what is not begun at ``until`` (monotonic) to the next turn. Those
    where nothing is to be done cost a share of a few statements.
    """
    with ctx.database.read() as connection:
        if not repo.is_there(connection):
            return 0
        due = repo.due(connection, limit, AHEAD_S)
    if not due:
        return 0
    acting, effects = ctx.database.change(partial(_look, ctx, due))
    effects.tell(ctx)
    # how busy each is decides who is stopped, and nothing else
    loads = load_of(ctx) if any(acting.values()) else {}
    for service_id in acting:
        if time.monotonic() >= until:
            break
        _carry_out(ctx, service_id, loads)
    return len(due)


def sweep(ctx: Context) -> int:
    """``turn`` until little is left that is due, or for ``BUDGET_S``: the rest is the next one's. How many were looked
    at. Raises Collided, Unavailable."""
    looked = 0
    until = time.monotonic() + BUDGET_S
    while True:
        found = turn(ctx, until=until)
        looked += found
        if found < BATCH or time.monotonic() >= until:
            return looked


def reconcile(
    ctx: Context,
    connection: Connection,
    service_id: str,
    *,
    who: Actor | None = None,
    loads: Mapping[str, int] | None = None,
    known: Mapping[int, Resolved] = MappingProxyType({}),
) -> Effects:
    """Bring one service on in this transaction, with its row locked. ``who`` asked for it, None: nobody. ``known`` is
    what its revisions were just resolved to.

    Raises Collided when one of its replicas is being changed beside: begin anew.
    """
    effects = Effects()
    for _ in range(PASSES):
        # before the members are read: what changes after this leaves another hint
        repo.take_hints(connection, repo.hints_of(connection, [service_id]).get(service_id, ()))
        [seen] = _see(connection, [service_id], [repo.read(connection, service_id)], loads or {})
        if not _act(ctx, connection, seen, who, effects, known):
            return effects
    # the next transaction goes on
    repo.look_again(connection, {service_id: 0.0})
    return effects


def finish(
    connection: Connection,
    open_tasks: Sequence[Any],
    state: TaskState,
    effects: Effects,
    *,
    reason: Reason | None = None,
    message: str = "",
    actor: str = HOSTLER,
) -> None:
    """End a service's tasks; whoever waits for them is woken after the commit."""
    ended = tasks.finish(
        connection, [task.id for task in open_tasks], state, actor=actor, reason=reason, message=message
    )
    effects.topics |= {"events", *(f"task:{one}" for one in ended)}


def tell(
    connection: Connection,
    row: Any,
    kind: str,
    message: str,
    who: Actor | None,
    *,
    cause: str = "reconciled",
    reason: str | None = None,
    replica_id: str | None = None,
    task_id: str | None = None,
    **data: Any,
) -> None:
    """Write an event of a service, in the transaction of what it tells."""
    events.insert(
        connection,
        kind=kind,
        actor=who.name if who else HOSTLER,
        cause=cause if who is None else "request",
        message=message,
        reason=reason,
        replica_id=replica_id,
        task_id=task_id,
        pool=row.pool,
        request_id=who.request_id if who else "",
        data={"service_id": row.id, **data},
    )


def load_of(ctx: Context) -> Mapping[str, int]:
    """Requests in flight by replica at this host's gateway; empty where there is none. Never inside a transaction."""
    with _making:
        found = _loads.get(ctx.database)
        if found is None:
            found = _loads[ctx.database] = (GatewayLoad(ctx.settings), threading.Lock())
    load, lock = found
    with lock:
        return load.read()


def _look(ctx: Context, due: Sequence[str], connection: Connection) -> tuple[dict[str, bool], Effects]:
    """Put off those of ``due`` about which nothing is to be done, and write what concerns no replica. Returns those
    about whose replicas something is to be done, unless somebody is at them, and whether that is a stop."""
    rows = repo.lock_free(connection, due)
    ids = [row.id for row in rows]
    hints = repo.hints_of(connection, ids)
    effects, waits, acting = Effects(), dict[str, float | None](), dict[str, bool]()
    for one in _see(connection, ids, rows, {}):
        if not _has_work(one):
            waits[one.row.id] = _look_in(one)
        elif bool(one.of(Create)) or bool(one.of(Stop)) or _act(ctx, connection, one, None, effects):
            # several replicas are locked in one order only: that of one service
            acting[one.row.id] = bool(one.of(Stop))
    repo.take_hints(connection, [hint for one in ids if one not in acting for hint in hints.get(one, ())])
    repo.look_again(connection, waits)
    repo.drop_ownerless_hints(connection, sorted(set(due) - set(ids)))
    return acting, effects


def _carry_out(ctx: Context, service_id: str, loads: Mapping[str, int]) -> None:
    def act(connection: Connection) -> Effects:
        if not repo.lock_free(connection, [service_id]):
            # whoever is at it sees what we would
            return Effects()
        return reconcile(ctx, connection, service_id, loads=loads)

    try:
        ctx.database.change(act).tell(ctx)
    except (Collided, Unavailable) as error:
        # its hints are still there, and it must not hold up the others
        log.warning("service %s is looked at again: %s", service_id, error)


def _see(connection: Connection, ids: Sequence[str], rows: Sequence[Any], loads: Mapping[str, int]) -> list[_Seen]:
    members = by_service(repo.members(connection, ids))
    specs = repo.specs(connection, [(row.id, row.revision) for row in rows])
    open_tasks: dict[str, list[Any]] = {}
    for task in repo.open_tasks(connection, ids):
        open_tasks.setdefault(task.arguments["service_id"], []).append(task)
    found = []
    for row in rows:
        spec, own = specs[row.id, row.revision], members.get(row.id, [])
        observed = [observed_of(member, loads, row.now.timestamp()) for member in own]
        desired = desired_of(row, spec)
        plan = _refused_for_good(row, desired) or planner.plan(desired, observed, row.now.timestamp())
        found.append(_Seen(row, spec, own, open_tasks.get(row.id, []), plan))
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


def _has_work(seen: _Seen) -> bool:
    """Whether anything but the next look is to be written."""
    return bool(seen.actions or seen.past or _changes(seen, _rollout(seen)) or _task_ends(seen) or _progress(seen))


def _act(
    ctx: Context,
    connection: Connection,
    seen: _Seen,
    who: Actor | None,
    effects: Effects,
    known: Mapping[int, Resolved] = MappingProxyType({}),
) -> bool:
    """Carry out one plan. True when another one follows from it."""
    row, rollout = seen.row, _rollout(seen)
    wishes: dict[str, Any] = {}
    for action in seen.actions:
        if isinstance(action, Good):
            wishes["good_revision"] = action.revision
            message = f"all replicas of revision {action.revision} were ready"
            tell(connection, row, "service_good", message, None, revision=action.revision)
        elif isinstance(action, RollBack):
            wishes |= _roll_back(ctx, connection, seen, action, rollout, effects)
        elif isinstance(action, CancelAll):
            # with the replica's own words: of a gang without room they say what is missing where
            said = next((one.message for one in seen.members if one.replica_id == action.replica_id), "")
            why = f"{action.why}: {said}" if said else action.why
            wishes |= {"desired_state": "cancelled", "reason": action.reason, "message": why}
            tell(connection, row, "service_cancelled", why, None, reason=action.reason, replica_id=action.replica_id)
            finish(connection, seen.open_tasks, TaskState.FAILED, effects, reason=action.reason, message=why)
        elif isinstance(action, GiveUp):
            failed = [one for one in seen.members if one.replica_id == action.replica_id]
            reason = failed[0].reason if failed else None
            tell(connection, row, "service_gave_up", action.why, None, reason=reason, replica_id=action.replica_id)
    repo.mark_past(connection, seen.past)
    _stop(ctx, connection, seen, who, effects)
    made = _create(ctx, connection, seen, who, rollout, effects, known)
    changes = {**_changes(seen, rollout), **wishes}
    if "ended_at" in changes:
        tell(connection, row, "service_ended", "every replica was seen gone", None)
    for task, state, reason, message in _task_ends(seen):
        finish(connection, [task], state, effects, reason=reason, message=message)
    for task, phase, done, of in _progress(seen):
        repo.note_progress(connection, task.id, phase, done, of)
    if changes:
        repo.change(connection, row.id, **changes)
        effects.topics |= {"events", f"service:{row.id}"}
    # what is left to be made is made by the next transaction
    more = made == MOST_CREATES and len(seen.of(Create)) > made
    repo.look_again(connection, {row.id: 0.0 if more else _look_in(seen, rollout)})
    return seen.plan.again


def _roll_back(
    ctx: Context, connection: Connection, seen: _Seen, action: RollBack, rollout: dict[str, Any], effects: Effects
) -> dict[str, Any]:
    row = seen.row
    reason = _why_failed(seen, row.revision)
    rollout |= {"state": "failed", "from": action.to, "to": row.revision, "why": action.why, "reason": reason}
    tell(
        connection, row, "service_rolled_back", action.why, None, reason=reason, before=row.revision, revision=action.to
    )
    ended = [task for task in seen.open_tasks if task.kind == TaskKind.SERVICE_UPDATE]
    message = f"{action.why}; back to revision {action.to}"
    finish(connection, ended, TaskState.FAILED, effects, reason=reason, message=message)
    spec = _revision(connection, row.id, action.to).spec
    return {"revision": action.to, **columns_of(ctx, spec)}


def _revision(connection: Connection, service_id: str, number: int) -> Any:
    found = repo.read_revision(connection, service_id, number)
    if found is None:
        # members and rows refer to it, so it is kept
        raise LookupError(f"revision {number} of service {service_id} is gone")
    return found


def _why_failed(seen: _Seen, revision: int) -> Reason:
    """The typed reason of a failed update: why none could be made, or its last replica failed, else that none got ready
    in time."""
    refused = refusals(seen.row.rollout).get(revision)
    if refused is not None:
        return _REASONS.get(refused.code, Reason.INVALID_CONFIG)
    failed = [one for one in seen.members if one.revision == revision and one.state == State.FAILED and one.reason]
    failed.sort(key=lambda one: one.state_since)
    return Reason(failed[-1].reason) if failed else Reason.READINESS_TIMEOUT


def _stop(ctx: Context, connection: Connection, seen: _Seen, who: Actor | None, effects: Effects) -> None:
    wanted = seen.of(Stop)
    if not wanted:
        return
    tasks.lock_all(connection, [one.replica_id for one in wanted], LIFECYCLE_KINDS)
    for one in sorted(wanted, key=lambda action: action.replica_id):
        actor = _actor(seen, who)
        drain_s = None if one.drain else 0.0
        try:
            outcome, node, pool = stops.stop(
                ctx, connection, actor, one.replica_id, force=False, grace_s=None, drain_s=drain_s, cause=one.why
            )
        except NotFound as error:
            # it ended and was deleted since it was read
            raise Collided(retry_after_s=1) from error
        effects.stopped.append(one.replica_id)
        effects.rings.add((TaskKind.STOP, pool, node))
        effects.topics |= {"events", f"replica:{one.replica_id}", f"task:{outcome.task_id}", f"due:{node or ''}"}


def _create(
    ctx: Context,
    connection: Connection,
    seen: _Seen,
    who: Actor | None,
    rollout: dict[str, Any],
    effects: Effects,
    known: Mapping[int, Resolved],
) -> int:
    """Make what is to be made. What is refused is told, and tried again later; of another revision it keeps nothing
    from being made. How many were made."""
    wanted = seen.of(Create)[:MOST_CREATES]
    found = refusals(rollout)
    made: list[tuple[Create, dict[str, Any]]] = []
    for revision in sorted({one.revision for one in wanted}):
        try:
            maker = _Maker(ctx, connection, seen, revision, who, known.get(revision))
            for one in wanted:
                if one.revision == revision:
                    made.append((one, maker.make(one, effects)))
            found.pop(revision, None)
        except HostlerError as error:
            if isinstance(error, Collided | Unavailable):
                raise
            before = found.get(revision)
            found[revision] = Refusal.after(before, error.code, error.detail, seen.now)
    rollout["refused"] = stored(found)
    repo.insert_members(connection, [member for _, member in made])
    for one, member in made:
        if one.replaces:
            tell(
                connection, seen.row, "service_replacing", one.why, who, replica_id=member["replica_id"],
                ordinal=one.ordinal, revision=one.revision, tries=one.tries, replaces=one.replaces,
            )  # fmt: skip
    return len(made)


class _Maker:
    """Makes replicas of one revision."""

    def __init__(
        self,
        ctx: Context,
        connection: Connection,
        seen: _Seen,
        revision: int,
        who: Actor | None,
        known: Resolved | None,
    ) -> None:
        self._ctx, self._connection, self._row = ctx, connection, seen.row
        found = _revision(connection, seen.row.id, revision)
        spec = found.spec
        self._body = body_of(ctx, found)
        if spec.get("all_or_nothing") and seen.row.good_revision is None:
            self._body["gang"] = seen.row.id
        self._labels = {**seen.row.labels, SERVICE_LABEL: seen.row.id}
        self._actor = _actor(seen, who, role=spec.get("granted_role"))
        if known is None:
            self._refresh()
        else:
            self._hold(known)

    def make(self, wanted: Create, effects: Effects) -> dict[str, Any]:
        """Write one; returns its member's row. Raises QueueFull and what the request's own check raises."""
        outcome = creates.new_ids()
        if not self._insert(outcome, wanted.why):
            # the pool changed since it was looked at, or its queue is full
            self._refresh()
            if not self._insert(outcome, wanted.why):
                raise creates.queue_full(self._ctx, self._plan.pool)
        effects.made.append(outcome.replica_id)
        effects.rings.add((TaskKind.CREATE, self._plan.pool, None))
        effects.topics |= {"events", f"replica:{outcome.replica_id}"}
        return {
            "replica_id": outcome.replica_id,
            "service_id": self._row.id,
            "revision": wanted.revision,
            "ordinal": wanted.ordinal,
            "tries": wanted.tries,
            "replaces": wanted.replaces,
        }

    def _refresh(self) -> None:
        self._ctx.pools.clear()
        self._hold(resolve(self._ctx, self._connection, self._actor, self._body))

    def _hold(self, plan: Resolved) -> None:
        self._plan = plan
        if not repo.lock_pool(self._connection, self._plan.pool):
            raise UnknownPool(f"The pool {self._plan.pool!r} was deleted. See `hostler pool list`.")

    def _insert(self, outcome: creates.CreateOutcome, why: str) -> bool:
        return creates.insert(
            self._ctx, self._connection, self._actor, self._body, self._plan, outcome, labels=self._labels, cause=why
        )


def _actor(seen: _Seen, who: Actor | None, role: str | None = None) -> Actor:
    """Replicas of a service are its owner's, whoever scales it."""
    granted = role or seen.spec.get("granted_role") or "operate"
    return Actor(seen.row.owner, who.name if who else HOSTLER, granted, None, who.request_id if who else "")


def _rollout(seen: _Seen) -> dict[str, Any]:
    """How the update stands after what was seen, before anything is done."""
    rollout = dict(seen.row.rollout)
    if seen.plan.settled and rollout.get("state") == "under_way":
        rollout["state"] = "complete"
    wanted = {one.revision for one in seen.plan.actions if isinstance(one, Create)}
    refused = {revision: one for revision, one in refusals(rollout).items() if revision in wanted}
    rollout["refused"] = stored(refused)
    rollout["given_up"] = sorted(seen.plan.given_up)
    return rollout


def _changes(seen: _Seen, rollout: Mapping[str, Any]) -> dict[str, Any]:
    """What of the service's row is other than it was."""
    found: dict[str, Any] = {}
    kept = {name: value for name, value in rollout.items() if value not in (None, [], {})}
    if kept != seen.row.rollout:
        found["rollout"] = kept
    if seen.running:
        reason, message = _words(seen, rollout)
        if (reason, message[:4000]) != (seen.row.reason, seen.row.message):
            found |= {"reason": reason, "message": message}
    elif seen.gone and seen.row.ended_at is None:
        found["ended_at"] = True
    return found


def _words(seen: _Seen, rollout: Mapping[str, Any]) -> tuple[Reason | None, str]:
    """Why it is not as wanted, when that is more than a matter of time."""
    refused = refusals(rollout)
    if refused:
        newest = refused[max(refused)]
        return _REASONS.get(newest.code, Reason.INVALID_CONFIG), f"replicas cannot be made: {newest.message}"
    given_up = [one for one in seen.members if one.replica_id in seen.plan.given_up]
    if given_up:
        last = max(given_up, key=lambda one: one.state_since)
        return Reason(last.reason) if last.reason else None, (
            f"{len(given_up)} of {seen.row.count} replicas failed too often and are not replaced; the last,"
            f" {last.replica_id}: {last.reason}: {last.message}. Mend it, then scale or update the service."
        )
    if rollout.get("state") == "failed":
        why, back, tried = rollout["why"], rollout["from"], rollout["to"]
        return rollout.get("reason"), f"the update to revision {tried} failed, and revision {back} is back: {why}"
    return None, ""


def _task_ends(seen: _Seen) -> list[tuple[Any, TaskState, Reason | None, str]]:
    """Of its open tasks those that have come to their end, with state, reason and message."""
    found: list[tuple[Any, TaskState, Reason | None, str]] = []
    row = seen.row
    for task in seen.open_tasks:
        if not seen.running:
            if task.kind != TaskKind.SERVICE_STOP:
                found.append((task, TaskState.CANCELLED, Reason.CANCELLED, "the service was cancelled"))
            elif seen.gone:
                found.append((task, TaskState.SUCCEEDED, None, f"service {row.name} has ended; nothing is left of it"))
        elif seen.plan.settled:
            found.append((task, TaskState.SUCCEEDED, None, f"{row.count} of {row.count} replicas are ready"))
        elif seen.plan.given_up:
            reason, message = _words(seen, {})
            found.append((task, TaskState.FAILED, reason, message))
    return found


def _progress(seen: _Seen) -> list[tuple[Any, Phase, int, int]]:
    """Of its open tasks those that stand otherwise than was written: (task, phase, done, of)."""
    if seen.running:
        ready = sum(one.state == State.READY and one.revision == seen.row.revision for one in seen.members)
        phase, done, of = Phase.WAITING_FOR_READY, min(ready, seen.row.count), seen.row.count
    else:
        gone = sum(one.released_at is not None for one in seen.members)
        phase, done, of = Phase.STOPPING, gone, len(seen.members)
    return [
        (task, phase, done, of)
        for task in seen.open_tasks
        if (task.phase, task.arguments.get("done"), task.arguments.get("of")) != (phase, done, of)
    ]


def _look_in(seen: _Seen, rollout: Mapping[str, Any] | None = None) -> float | None:
    """Seconds until it is looked at though nothing hints at it; None: it has ended."""
    if not seen.running and seen.gone:
        return None
    waits = [LOOK_S]
    if seen.plan.look_in_s is not None:
        waits.append(seen.plan.look_in_s)
    refused = refusals(seen.row.rollout if rollout is None else rollout).values()
    waits += [wait_s for one in refused if (wait_s := one.wait_s(seen.now)) > 0]
    return max(0.0, min(waits))


#: What a refusal is in a replica's words.
_REASONS = {"queue_full": Reason.NO_CAPACITY, "unknown_pool": Reason.INVALID_CONFIG}
_loads: weakref.WeakKeyDictionary[Database, tuple[GatewayLoad, threading.Lock]] = weakref.WeakKeyDictionary()
_making = threading.Lock()
