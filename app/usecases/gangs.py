"""Gangs: members of a service that must start together get their capacity in one transaction, or none of them does.

Each member's create carries the service's id (``arguments.gang``). Whichever of them a worker would claim first stands
for all: their attempts are opened with their leases at once, on that worker's host, and from then on each is a launch
that holds its capacity already. That holds until all of the service were ready for the first time; later creates go by
themselves.

Who waits for whom: the queue stays strict, and a gang waits in it at the place of its best member. A gang that has no
room yet lets what is behind it pass for ``PATIENCE_S``; after that it holds up those behind it like any other head of a
queue, until it has room. So neither smaller work nor another gang can starve it, and a gang that came later waits.

Locks: the service, then its tasks by id, then replicas, as reconciling and stops do. Units are never waited for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from app.db.repos import gangs as repo
from app.db.repos import replicas, tasks
from app.db.repos.replicas import Move
from app.domain.lifecycle import Reason, State
from app.domain.placement import Place, costs_nothing, gpus_wanted, most_room, never_fits, short_of
from app.domain.tasks import TaskKind, TaskState
from app.doorbell.queues import queue_for
from app.errors import Collided
from app.usecases import capacity
from app.usecases.capacity import SCARCE, NoGpus, NoRoom, Overtaking
from app.usecases.context import Context

#: For so long smaller work may pass a gang that has no room yet.
PATIENCE_S = 15.0
#: Gangs that one sweep judges.
BATCH = 500


class OfGang(Exception):
    """The best row is of a gang: its capacity comes with that of the others."""

    def __init__(self, gang: str, task_id: str) -> None:
        super().__init__(gang)
        self.gang, self.task_id = gang, task_id


@dataclass(frozen=True)
class Waiting:
    """A gang as it waits: ``short`` says what it lacks, ``members`` when some of them are not there yet, None nothing.
    ``free`` is how much of that there is (of GPUs and ports on the host that has most)."""

    size: int
    gpus: int
    short: str | None
    free: int


class StepsAside(NoRoom):
    """A gang that cannot be launched now and does not hold up what is behind it."""

    def __init__(self, task_ids: Sequence[str]) -> None:
        super().__init__()
        self.task_ids = tuple(task_ids)


class RoomCame(NoRoom):
    """A gang has room, and others that stepped aside before it may have it too by now: they come first."""


def take(ctx: Context, gang: str, task_id: str, worker: str, aside: Sequence[str] = (), *, anew: bool = True) -> bool:
    """Take the capacity of all that wait in the gang of ``task_id`` for this node. False when they were ended as failed
    instead, because no place could ever hold them.

    ``anew``: those ``aside`` were judged a second time. Raises what says that nothing was taken: StepsAside, RoomCame,
    NoGpus, NoRoom, Overtaking.
    """
    node = ctx.settings.node_name

    def act(connection: Connection) -> tuple[list[Any], list[str]]:
        members, complete = _lock(connection, gang, task_id)
        if not members:
            # somebody was faster; what is best now is another one
            raise Overtaking
        ids = [member.task_id for member in members]
        if not complete:
            raise StepsAside(ids)
        place = repo.place(connection, members[0].pool, host_bound=members[0].host_bound)
        ended = _end_if_hopeless(connection, members, place)
        if not ended:
            _wait_or_go(connection, members, place, node, aside)
            if aside and not anew:
                raise RoomCame
            _lease(ctx, connection, members, node)
            repo.record_taken(connection, ids, worker)
        return members, ended

    members, ended = ctx.database.change(act)
    _tell(ctx, members, ended)
    if ended:
        return False
    if members[0].host_bound:
        # those that this worker does not carry out itself are for others of this host
        ctx.doorbell.ring(TaskKind.CREATE, queue_for(TaskKind.CREATE, members[0].pool, node), node=node)
    return True


def end_hopeless(ctx: Context) -> int:
    """End the gangs that no place could ever hold, also where a full pool keeps everybody from looking at them."""
    with ctx.database.read() as connection:
        waiting = repo.waiting(connection, BATCH)
    return sum(_end_one_if_hopeless(ctx, gang, task_id) for gang, task_id in waiting)


def waiting_with(connection: Connection, gang: str, task_id: str) -> Waiting | None:
    """What the create waits for together with others of its service; None when it goes by itself."""
    service = repo.read_service(connection, gang)
    if service is None or service.good_revision is not None:
        return None
    members = repo.read_waiting(connection, gang, task_id)
    if not members:
        return None
    size, gpus = len(members), _gpus(members)
    missing = service.count - repo.count_alive(connection, gang)
    if missing > 0 or service.desired_state != "running":
        return Waiting(size, gpus, "members", missing)
    place = repo.place(connection, members[0].pool, host_bound=members[0].host_bound)
    short, free = most_room(size, gpus, place)
    return Waiting(size, gpus, short, free)


def _end_one_if_hopeless(ctx: Context, gang: str, task_id: str) -> int:
    def act(connection: Connection) -> tuple[list[Any], list[str]]:
        members, complete = _lock(connection, gang, task_id)
        if not members or not complete:
            return [], []
        place = repo.place(connection, members[0].pool, host_bound=members[0].host_bound)
        return members, _end_if_hopeless(connection, members, place)

    members, ended = ctx.database.change(act)
    if ended:
        _tell(ctx, members, ended)
    return len(ended)


def _lock(connection: Connection, gang: str, task_id: str) -> tuple[list[Any], bool]:
    """(what waits together with the task, whether nobody of its service is missing)."""
    service = repo.lock_service(connection, gang)
    if service is None or service.good_revision is not None:
        # they were together once: from then on each goes by itself
        return repo.lock_waiting(connection, None, task_id), True
    members = repo.lock_waiting(connection, gang, task_id)
    if service.desired_state != "running":
        return members, False
    return members, repo.count_alive(connection, gang) >= service.count


def _wait_or_go(connection: Connection, members: list[Any], place: Place, node: str, aside: Sequence[str]) -> None:
    """Returns when they have room here and it is their turn."""
    count, gpus, ids = len(members), _gpus(members), [member.task_id for member in members]
    short = short_of(count, gpus, place, node)
    if short:
        young = max(member.waited_s for member in members) < PATIENCE_S and count > 1
        if young or costs_nothing(count, gpus, place, node, SCARCE):
            raise StepsAside(ids)
        raise NoGpus(count) if short == "gpus" else NoRoom
    first = min(members, key=lambda member: (member.task_priority, member.seq))
    if tasks.is_overtaking(connection, first.task_id, first.pool, aside):
        raise Overtaking


def _lease(ctx: Context, connection: Connection, members: list[Any], node: str) -> None:
    moves = []
    for member in members:
        name = capacity.attempt_name(ctx, member.id, member.number)
        opened = capacity.open_attempt(
            connection, member, task_id=member.task_id, number=member.number, name=name, node=node
        )
        if not opened.slots:
            # of what was free somebody takes a part this moment
            raise Overtaking
        try:
            capacity.take_gpus(connection, member, opened, name, node)
        except NoRoom as taken:
            raise Overtaking from taken
        moves.append(capacity.claimed(ctx, member, _Unheld(member), opened.port, beside=len(members) - 1))
    if len(replicas.record_moves(connection, moves)) < len(moves):
        raise Collided(retry_after_s=1)


class _Unheld:
    """The task of a member as nobody holds it yet."""

    lease_token = None

    def __init__(self, member: Any) -> None:
        self.id, self.attempt, self.request_id = member.task_id, member.number, member.request_id


def _end_if_hopeless(connection: Connection, members: list[Any], place: Place) -> list[str]:
    message = never_fits(len(members), _gpus(members), place)
    if message is None:
        return []
    moves = [
        Move(
            member.id,
            member.number,
            (State.PENDING, State.FAILED),
            cause="can never fit",
            reason=Reason.NO_CAPACITY,
            message=message,
            task_id=member.task_id,
        )
        for member in members
    ]
    if len(replicas.record_moves(connection, moves)) < len(moves):
        raise Collided(retry_after_s=1)
    ids = [member.task_id for member in members]
    tasks.finish(connection, ids, TaskState.FAILED, reason=Reason.NO_CAPACITY, message=message)
    for member in members:
        replicas.record_released(connection, member.id, member.number)
    return ids


def _gpus(members: list[Any]) -> int:
    return sum(gpus_wanted(member.spec) for member in members)


def _tell(ctx: Context, members: list[Any], ended: list[str]) -> None:
    ctx.notify("events", *(f"replica:{member.id}" for member in members), *(f"task:{one}" for one in ended))
