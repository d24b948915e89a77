"""What the replicas of a service wrote, each line named: those that run and those that ended."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import text

from app.errors import LogAway, NotFound
from app.usecases import logs
from app.usecases.context import Context

#: Between two looks at the files, and for each beyond so many a little longer.
LOOK_S, LOOK_MORE_S = 0.2, 0.001
#: Between two looks at which replicas there are: when some service changed, and when nothing is known of it.
MEMBERS_SOON_S, MEMBERS_S = 0.5, 2.0
#: How long a host may be silent that a log lies on, once another one was.
IMPATIENT_S = 1.0
#: A place longer than this is not sent: what comes back with a request must fit its headers.
LONGEST_PLACE = 2000
_PLACE = re.compile(r"([0-9a-f]{12}):([A-Za-z0-9_.-]{1,800})", re.ASCII)


@dataclass(frozen=True)
class Line:
    """One line of one replica. ``place`` is where a broken stream goes on, in all logs; None when it is too long."""

    replica_id: str
    text: str
    place: str | None = None

    @property
    def named(self) -> str:
        """The line with its replica before it."""
        return f"{self.replica_id} | {self.text}"


def read(ctx: Context, service_id: str, replica: str | None = None, tail: int | None = None) -> Iterator[Line]:
    """The lines of each replica, by ordinal and then by age; of each the last ``tail`` when given.

    ``replica`` is an id or an ordinal. Raises NotFound when no replica of the service is meant.
    """
    return _read(ctx, check(ctx, service_id, replica), tail)


def check(ctx: Context, service_id: str, replica: str | None) -> list[Any]:
    """The replicas that are meant. Raises NotFound when none is."""
    found = _members(ctx, service_id, replica)
    if replica is not None and not found:
        raise NotFound(f"Service {service_id} has no replica {replica}. `hostler service get {service_id}` shows them.")
    return found


def follow(
    ctx: Context, service_id: str, replica: str | None = None, tail: int | None = None, behind: str | None = None
) -> Iterator[Line | None]:
    """What is there, then what is written, also by replicas that are made meanwhile; None now and then while quiet.

    It ends when the service has ended and everything was read. ``behind`` is the ``place`` of the last line seen.
    """
    with (
        closing(_Following(ctx, service_id, replica, tail, _parsed(behind))) as following,
        ctx.signals.subscribe("services") as changed,
    ):
        quiet_since = looked_at = time.monotonic()
        over = following.look()
        while True:
            wrote = False
            for line in following.news():
                wrote = True
                yield line
            if over and not wrote and not len(following):
                return
            now = time.monotonic()
            if wrote:
                quiet_since = now
            elif now - quiet_since >= logs.QUIET_S:
                quiet_since = now
                yield None
            signalled = changed.wait(LOOK_S + LOOK_MORE_S * len(following))
            if now - looked_at >= (MEMBERS_SOON_S if signalled else MEMBERS_S):
                looked_at = now
                over = following.look()


@dataclass
class _Following:
    ctx: Context
    service_id: str
    replica: str | None
    tail: int | None
    places: dict[str, str]
    _followers: dict[str, logs.Follower] = field(default_factory=dict)
    _over: set[str] = field(default_factory=set)
    #: how each replica stood when it was looked at: who did not change is not asked again
    _stood: dict[str, Any] = field(default_factory=dict)
    _first: bool = True

    def __len__(self) -> int:
        return len(self._followers) - len(self._over)

    def close(self) -> None:
        """Give back what reading them holds."""
        for follower in self._followers.values():
            follower.close()

    def look(self) -> bool:
        """See which replicas there are now, and which of them have ended; whether nothing more can come."""
        members = _members(self.ctx, self.service_id, self.replica)
        for forgotten in self._followers.keys() - {row.id for row in members} - self._over:
            # nothing more comes of it
            self._followers[forgotten].look()
        for row in members:
            stands = row.state, row.attempt, row.released_at
            if self._stood.get(row.id) == stands:
                continue
            try:
                follower = self._followers.get(row.id) or logs.Follower(self.ctx, row.id, None)
            except NotFound:
                # its record was deleted meanwhile
                continue
            self._stood[row.id], self._followers[row.id] = stands, follower
            follower.look()
            # a restart makes it write again
            self._over.discard(row.id)
        with self.ctx.database.read() as connection:
            ended = text("SELECT ended_at IS NOT NULL FROM services WHERE id = :id")
            # forgotten: nothing more can come either
            return bool(connection.execute(ended, {"id": self.service_id}).scalar() in (True, None))

    def news(self) -> Iterator[Line]:
        """Lines written since the last time."""
        for replica_id, follower in self._followers.items():
            if replica_id in self._over:
                continue
            for line in follower.begin(self.tail if self._first else None, self.places.get(replica_id)):
                yield self._line(replica_id, line)
            for line in follower.new_lines():
                yield self._line(replica_id, line)
            if follower.is_done:
                self._over.add(replica_id)
                follower.close()
        # of those that come later every line is new
        self._first = False

    def _line(self, replica_id: str, line: logs.Line) -> Line:
        if line.place:
            self.places[replica_id] = line.place
        place = ",".join(f"{name}:{at}" for name, at in self.places.items())
        return Line(replica_id, line.text, place if len(place) <= LONGEST_PLACE else None)


def _read(ctx: Context, members: Sequence[Any], tail: int | None) -> Iterator[Line]:
    patience_s: float | None = None
    for member in members:
        try:
            for line in logs.read(ctx, member.id, None, tail, patience_s):
                yield Line(member.id, line)
        except NotFound:
            # its record was deleted meanwhile
            continue
        except LogAway as error:
            # the others are read all the same, and not each waited for as long
            patience_s = IMPATIENT_S
            yield Line(member.id, f"({error.detail})\n")


def _members(ctx: Context, service_id: str, replica: str | None) -> list[Any]:
    query = text(
        "SELECT r.id, r.state, r.attempt, r.released_at FROM service_members m JOIN replicas r ON r.id = m.replica_id"
        " WHERE m.service_id = :service_id AND (CAST(:replica AS text) IS NULL OR r.id = :replica"
        " OR CAST(m.ordinal AS text) = :replica) ORDER BY m.ordinal, m.created_at, r.id"
    )
    with ctx.database.read() as connection:
        return list(connection.execute(query, {"service_id": service_id, "replica": replica}))


def _parsed(behind: str | None) -> dict[str, str]:
    pairs = (_PLACE.fullmatch(one) for one in (behind or "")[: 2 * LONGEST_PLACE].split(","))
    return {pair[1]: pair[2] for pair in pairs if pair}
