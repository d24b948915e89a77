"""From the table to HAProxy's map files. Pure. Names are keys only as hashes: any name is possible, nothing to escape.

Values are fields between ``|``, which none of them can hold.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from app.domain.routing import MemberKind, RouteKind, RouteTable, hashed
from app.gateway.assignment import Assignment, is_asked

#: model or alias -> ``slot|model hash``; slot ``-``: known, and nothing of it is ready
ROUTES = "routes.map"
#: service -> ``slot|model hash``; the hash is ``-`` where more than one model is behind it
SERVICES = "services.map"
#: replica -> ``ip|port|model hash|server``
REPLICAS = "replicas.map"
#: registered server -> ``ip|port|id in the registry``, the id where it can stand in a map
REGISTERED = "registered.map"
#: server -> path of its check
CHECKS = "checks.map"
#: Every map that follows from the table, in the order in which they are changed.
NAMES = (CHECKS, REGISTERED, REPLICAS, ROUTES, SERVICES)

NO_SLOT = "-"
NO_MODEL = "-"
#: What may stand in the request line of a check; with anything else the check asks for ``/health``.
_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/?-]{0,500}")

#: Ids that a command of the runtime socket can carry as they are: all that the registry takes.
_SHOWN = re.compile(r"[A-Za-z0-9._:@/+=-]{1,128}")


def make_maps(table: RouteTable, assignment: Assignment) -> dict[str, dict[str, str]]:
    """Every map of ``NAMES`` as key -> value."""
    maps: dict[str, dict[str, str]] = {name: {} for name in NAMES}
    for route in table.routes:
        slot = assignment.slots.get((route.kind, route.name), NO_SLOT) if is_asked(table, route) else NO_SLOT
        model = hashed(route.model) if route.model else NO_MODEL
        maps[SERVICES if route.kind is RouteKind.SERVICE else ROUTES][route.key] = f"{slot}|{model}"
    for server, member in table.members.items():
        if member.kind is MemberKind.REGISTERED:
            shown = f"|{member.id}" if _SHOWN.fullmatch(member.id) else ""
            maps[REGISTERED][server] = f"{member.ip}|{member.port}{shown}"
        elif member.standing.takes_requests:
            maps[REPLICAS][member.id] = f"{member.ip}|{member.port}|{hashed(member.model)}|{server}"
        maps[CHECKS][server] = member.check_path if _PATH.fullmatch(member.check_path) else "/health"
    return maps


def render_map(entries: Mapping[str, str]) -> str:
    """The file."""
    return "".join(f"{key} {value}\n" for key, value in sorted(entries.items()))
