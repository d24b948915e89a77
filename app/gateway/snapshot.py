"""``table.json``: what is routed where, for who has no database. Pure: to JSON and back.

Written before HAProxy's own files, which can be made from it anew; so whoever starts HAProxy starts it with this table.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from app.domain.routing import Member, MemberKind, Route, RouteKind, RouteTable, Standing
from app.gateway.assignment import Assignment

_VERSION = 1


@dataclass(frozen=True)
class Snapshot:
    """A table and its slots."""

    table: RouteTable = field(default_factory=RouteTable)
    assignment: Assignment = field(default_factory=Assignment)


def to_json(snapshot: Snapshot) -> str:
    """The file."""
    table, slots = snapshot.table, snapshot.assignment.slots
    body = {
        "version": _VERSION,
        "routes": [
            {
                "kind": route.kind,
                "name": route.name,
                "key": route.key,
                "model": route.model,
                "members": list(route.members),
                "slot": slots.get((route.kind, route.name)),
            }
            for route in table.routes
        ],
        "members": {server: asdict(member) for server, member in table.members.items()},
    }
    return json.dumps(body, ensure_ascii=False, indent=1)


def from_json(text: str | None) -> Snapshot:
    """What ``to_json`` made; empty for None, and for what is not whole or of another version."""
    try:
        body = json.loads(text or "")
        if body["version"] != _VERSION:
            return Snapshot()
        members = {
            server: Member(**{**one, "kind": MemberKind(one["kind"]), "standing": Standing(one["standing"])})
            for server, one in body["members"].items()
        }
        routes = tuple(
            Route(RouteKind(one["kind"]), one["name"], tuple(one["members"]), one["model"]) for one in body["routes"]
        )
        slots = {(RouteKind(one["kind"]), one["name"]): one["slot"] for one in body["routes"] if one["slot"]}
    except (ValueError, KeyError, TypeError):
        return Snapshot()
    return Snapshot(RouteTable(routes, members), Assignment(slots))
