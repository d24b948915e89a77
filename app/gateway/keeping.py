"""Keeping HAProxy as the database says: one turn reads, compares and says what is missing. It keeps nothing that the
next turn, or another agent, could not find again.

In this order, so that death at any line does no harm:

1. The table is read in one snapshot, with the rows of what this gateway may be routing to; then what HAProxy holds.
2. A row for every server that is new. One whose attempt is gone by now gets none, and is not routed.
3. The files, the snapshot first: from here on HAProxy is started with the new table.
4. The commands.
5. Rows go of what neither HAProxy nor its file holds any more, as a look after the commands shows.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from app.domain.routing import MemberKind, RouteKind, RouteTable, Standing
from app.gateway.assignment import Assignment, Name, Picture, assign, servers_of
from app.gateway.commands import Place, Shown, plan_commands
from app.gateway.files import read_file
from app.gateway.haproxy import Haproxy
from app.gateway.maps import NAMES, ROUTES, SERVICES, make_maps
from app.gateway.places import Places
from app.gateway.snapshot import Snapshot, from_json
from app.gateway.writing import Files
from app.haproxy.runtime import HaproxyAway
from app.usecases import drains, gateways
from app.usecases.context import Context
from app.usecases.tables import Read, TableReader

#: A turn that took longer than this before it acts was frozen: what it read is old.
STALE_S = 5.0
#: What still has connections so long after it was taken out has them to nobody: its attempt is gone.
CUT_AFTER_S = 5.0
TELL_AGAIN_S = 60.0

log = logging.getLogger(__name__)

#: More maps that follow from what was read (keys and what they may ask), by file name.
MoreMaps = Callable[[Read], Mapping[str, Mapping[str, str]]]


@dataclass(frozen=True)
class Outcome:
    """What a turn came to. ``draining``: servers asked to end, with their slots. ``unfinished``: again soon."""

    haproxy_up: bool = True
    unfinished: bool = False
    draining: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    commands: int = 0


class Keeper:
    """One per agent, used by one thread."""

    def __init__(
        self,
        ctx: Context,
        places: Places,
        haproxy: Haproxy,
        files: Files,
        place: Place,
        slots: list[str],
        *,
        rest_s: float,
        more_maps: MoreMaps | None = None,
    ) -> None:
        """``rest_s``: no other route gets an emptied slot for so long. Longer than a request may queue and be tried."""
        self._ctx = ctx
        self._reader = TableReader(ctx)
        self._haproxy = haproxy
        self._files = files
        self._place = place
        self._slots = slots
        self._known_slots = frozenset(slots)
        self._rest_s = rest_s
        self._more_maps: MoreMaps = more_maps or (lambda _read: {})
        self._before = from_json(read_file(places.table)).assignment
        #: when each slot was last seen in use; None until HAProxy was asked which ever were
        self._used_at: dict[str, float] | None = None
        self._leaving_since: dict[tuple[str, str], float] = {}
        self._told_at: dict[str, float] = {}
        #: servers that were seen idle once: only the second look counts, because a request is on its way for a moment
        self._seen_idle: frozenset[str] = frozenset()

    def turn(self) -> Outcome:
        """Once all of it. Raises Unavailable or Collided when the database cannot be asked: then all stays as it is."""
        begun = time.monotonic()
        read = self._reader.read()
        shown = self._look()
        table, assignment = self._settle(read, shown)
        picture = Picture(servers_of(table, assignment), {**make_maps(table, assignment), **self._more_maps(read)})
        if time.monotonic() - begun > STALE_S:
            return Outcome(shown is not None, unfinished=True)
        self._files.write(Snapshot(table, assignment), picture)
        self._before = assignment
        try:
            return self._apply(read, shown, picture, begun) if shown is not None else Outcome(haproxy_up=False)
        except HaproxyAway as error:
            log.warning("HAProxy went away: %s", error)
            return Outcome(haproxy_up=False, unfinished=True)
        finally:
            self._files.reach_disk()

    def confirm_idle(self, draining: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
        """Tell of which of ``draining`` nothing is in flight any more, at two looks in a row; returns those.

        Raises as ``turn``.
        """
        try:
            busy = self._haproxy.in_flight({slot for slots in draining.values() for slot in slots})
        except HaproxyAway:
            return frozenset()
        # both by its name as a server, and by its own where it alone was asked for
        names = {server: (server, server.rpartition("-")[0]) for server in draining}
        now_idle = frozenset(server for server in draining if not any(busy.get(name) for name in names[server]))
        idle, self._seen_idle = now_idle & self._seen_idle, now_idle
        if idle:
            drains.record_idle(self._ctx, gateways.gateway_id(self._ctx.settings), sorted(idle))
        return idle

    def _look(self) -> Shown | None:
        try:
            shown = self._haproxy.look([*NAMES, *self._more_names()])
            if self._used_at is None:
                now = time.monotonic()
                self._used_at = dict.fromkeys(self._haproxy.used_slots(), now)
        except HaproxyAway as error:
            self._tell(f"HAProxy does not answer; its file is kept up to date: {error}")
            return None
        return shown

    def _more_names(self) -> list[str]:
        return list(self._more_maps(Read(RouteTable(), frozenset())))

    def _settle(self, read: Read, shown: Shown | None) -> tuple[RouteTable, Assignment]:
        """The table with slots, every server of it held."""
        present = {server for _slot, server in shown.servers} if shown else set()
        table = read.table
        new = [
            one
            for one in table.members.values()
            if one.kind is MemberKind.OWN
            and one.server not in read.held
            and (one.standing.takes_requests or one.server in present)
        ]
        if new:
            table = table.without({one.server for one in new} - gateways.hold(self._ctx, new))
        assignment = self._assign(table, shown)
        return table, assignment

    def _assign(self, table: RouteTable, shown: Shown | None) -> Assignment:
        before = self._slots_before(table, shown)
        resting = self._resting(shown, before)
        while True:
            found = assign(table, before, self._slots, resting)
            fresh = set(found.slots.values()) - set(before.values())
            unsure = fresh & set(self._used_at or ())
            busy = self._busy(unsure) if unsure else set()
            if not busy:
                break
            resting |= busy
        now = time.monotonic()
        if self._used_at is not None:
            self._used_at.update(dict.fromkeys({slot for slot, _server in shown.servers} if shown else (), now))
            self._used_at.update(dict.fromkeys(found.slots.values(), now))
        if found.homeless and shown is not None:
            names = ", ".join(name for _kind, name in found.homeless[:5])
            self._tell(f"{len(found.homeless)} routes have no slot ({names}); raise HOSTLER_GATEWAY_ROUTES")
        return found

    def _busy(self, slots: set[str]) -> set[str]:
        try:
            return self._haproxy.busy_slots(slots)
        except HaproxyAway:
            return set(slots)

    def _slots_before(self, table: RouteTable, shown: Shown | None) -> dict[Name, str]:
        """Who has which slot: as was written last, unless HAProxy has somebody else there; else as HAProxy says."""
        written = dict(self._before.slots)
        if shown is None:
            return written
        live: dict[Name, str] = {}
        users: dict[str, set[Name]] = {}
        names, services = (dict(shown.maps.get(name, ())) for name in (ROUTES, SERVICES))
        for route in table.routes:
            entries = services if route.kind is RouteKind.SERVICE else names
            slot = entries.get(route.key, "").partition("|")[0]
            if slot in self._known_slots:
                live[route.kind, route.name] = slot
                users.setdefault(slot, set()).add((route.kind, route.name))
        kept = {name: slot for name, slot in written.items() if name in users.get(slot, {name})}
        taken = set(kept.values())
        return {name: slot for name, slot in live.items() if name not in kept and slot not in taken} | kept

    def _resting(self, shown: Shown | None, before: Mapping[Name, str]) -> set[str]:
        """Slots that nobody new may have: in use by what is leaving, or a moment ago."""
        if self._used_at is None:
            # which ever were in use is not known yet
            return set(self._slots)
        limit = time.monotonic() - self._rest_s
        resting = {slot for slot, at in self._used_at.items() if at > limit}
        return resting | ({slot for slot, _server in shown.servers} if shown else set())

    def _apply(self, read: Read, shown: Shown, picture: Picture, begun: float) -> Outcome:
        # a map that its file does not name is known to it after its next start
        known = Picture(picture.servers, {name: one for name, one in picture.maps.items() if name in shown.maps})
        commands = plan_commands(shown, known, self._place)
        if time.monotonic() - begun > STALE_S:
            return Outcome(unfinished=True)
        carried = self._haproxy.carry_out(commands) if commands else None
        failed = carried.failed if carried else ()
        for line, answer in failed:
            self._tell(f"HAProxy refused {line!r}: {answer}")
        self._cut(set(carried.refused) if carried else set())
        leaving = read.held - {server for _slot, server in picture.servers}
        if leaving:
            present = {server for _slot, server in self._haproxy.look(()).servers}
            gone = sorted(leaving - present)
            if gone:
                self._files.reach_disk()
                gateways.let_go(self._ctx, gone)
        missing = len(known.maps) < len(picture.maps)
        unsaid = {line.split(" ")[2].rpartition("/")[2] for line, _answer in failed if line.startswith("set server")}
        draining = {server: at for server, at in _draining(picture).items() if server not in unsaid}
        return Outcome(
            unfinished=bool(failed) or bool(carried and carried.refused) or missing,
            draining=draining,
            commands=len(commands),
        )

    def _cut(self, refused: set[tuple[str, str]]) -> None:
        now = time.monotonic()
        self._leaving_since = {key: self._leaving_since.get(key, now) for key in refused}
        if refused:
            self._haproxy.close_idle(refused)
        overdue = [key for key, since in self._leaving_since.items() if now - since > CUT_AFTER_S]
        if overdue:
            self._haproxy.cut(overdue)

    def _tell(self, message: str) -> None:
        """Once in a while, as long as it is so."""
        now = time.monotonic()
        self._told_at = {told: at for told, at in self._told_at.items() if now - at < TELL_AGAIN_S}
        if message not in self._told_at:
            self._told_at[message] = now
            log.warning("%s", message)


def _draining(picture: Picture) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for (slot, server), member in picture.servers.items():
        if member.standing is Standing.DRAINING and member.kind is MemberKind.OWN:
            found[server] = (*found.get(server, ()), slot)
    return found
