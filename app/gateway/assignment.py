"""Which route has which slot. Backends are pre-made in HAProxy's file, so that a new route needs no reload. Pure.

A slot stays with its route as long as anything is behind that. Routes with the same members share one, so that a
server's limit and load are counted once; where they come to differ, one of them moves. An emptied slot rests until
nothing can be in it any more: a request that queues in it, or is tried again, must not meet another route's servers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from app.domain.routing import Member, Route, RouteKind, RouteTable

#: A route's identity: its kind and name.
Name = tuple[RouteKind, str]


@dataclass(frozen=True)
class Assignment:
    """``slots`` has the slot of each route that has members; ``homeless`` are those for which none is left."""

    slots: Mapping[Name, str] = field(default_factory=dict)
    homeless: tuple[Name, ...] = ()


@dataclass(frozen=True)
class Picture:
    """What HAProxy should hold: servers by (slot, server), and maps by file name."""

    servers: Mapping[tuple[str, str], Member] = field(default_factory=dict)
    maps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def slot_names(count: int) -> list[str]:
    """``route_0001``..., as the file has them."""
    return [f"route_{number:04d}" for number in range(1, count + 1)]


def assign(
    table: RouteTable, before: Mapping[Name, str], names: Collection[str], resting: Collection[str] = ()
) -> Assignment:
    """A slot for every route that has members.

    ``before`` is who has which slot now, ``names`` are all slots, ``resting`` those that nobody new may have yet.
    """
    slots: dict[Name, str] = {}
    homeless: list[Name] = []
    owner: dict[str, tuple[str, ...]] = {}
    by_members: dict[tuple[str, ...], str] = {}
    routes = [route for route in table.routes if route.members]
    # first who has one already: of those that shared it and now differ, the first keeps it
    for route in routes:
        slot = before.get(_name(route))
        if slot in names and slot is not None and owner.get(slot, route.members) == route.members:
            slots[_name(route)] = slot
            owner[slot] = route.members
            by_members.setdefault(route.members, slot)
    free = [slot for slot in names if slot not in owner and slot not in resting]
    for route in routes:
        if _name(route) in slots:
            continue
        slot = by_members.get(route.members) or (free.pop(0) if free else None)
        if slot is None:
            homeless.append(_name(route))
            continue
        slots[_name(route)] = by_members[route.members] = slot
    return Assignment(slots, tuple(homeless))


def servers_of(table: RouteTable, assignment: Assignment) -> dict[tuple[str, str], Member]:
    """Every server in every slot."""
    found = {}
    for route in table.routes:
        slot = assignment.slots.get(_name(route))
        if slot is None:
            continue
        for server in route.members:
            found[slot, server] = table.members[server]
    return found


def is_asked(table: RouteTable, route: Route) -> bool:
    """Whether anything behind the route takes new requests."""
    return any(table.members[server].standing.takes_requests for server in route.members)


def _name(route: Route) -> Name:
    return route.kind, route.name
