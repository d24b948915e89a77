"""What the gateway of this host routes where, as its HAProxy tells it: who is in, who is out and since when, how busy.

Names and members are the agent's snapshot, figures are HAProxy's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from app.domain.endpoints import Endpoint
from app.errors import GatewayDown
from app.haproxy.runtime import HaproxyAway, Session
from app.haproxy.shown import ONE_REPLICA, number, parse_figures, parse_table
from app.settings import Settings
from app.stack.layout import Layout
from app.usecases import paging
from app.usecases.gateways import gateway_id

#: A HAProxy that answers at all answers within milliseconds; a reader should not wait long for one that does not.
TIMEOUT_S = 2.0
#: ``show stat`` of one backend: its own line and those of its servers.
_BACKEND_AND_SERVERS = 6
_AWAY = "HAProxy does not answer on its socket; see `hostler status`."

#: HAProxy's words for a server, by their beginning, and ours.
_STATES = (("MAINT", "leaving"), ("DRAIN", "draining"), ("DOWN", "down"), ("NOLB", "draining"))


@dataclass(frozen=True)
class Figures:
    """One server in one slot."""

    state: str
    since: datetime
    in_flight: int
    queued: int
    limit: int
    requests: int
    check: str
    row: Mapping[str, str]


def list_routes(
    settings: Settings, filters: Mapping[str, Any], limit: int, cursor: str | None, now: datetime | None = None
) -> tuple[list[dict[str, Any]], int, str | None]:
    """(routes, total, next cursor) by kind and name; filters ``kind``, ``name`` and ``model``. Raises GatewayDown."""
    after = paging.decode(cursor, (str, str))
    table = read_table(settings)
    rows = sorted(table["routes"], key=lambda route: (route["kind"], route["name"]))
    found = [row for row in rows if all(row[name] == value for name, value in filters.items() if value is not None)]
    rest = [row for row in found if after is None or [row["kind"], row["name"]] > after]
    page = rest[:limit]
    figures = dict(figures_of(settings, {row["slot"] for row in page if row["slot"]}, now or datetime.now(UTC)))
    more = paging.encode((page[-1]["kind"], page[-1]["name"])) if len(rest) > limit else None
    shown = [_body(row, table["members"], figures) for row in page]
    return shown, len(found), more


def this_gateway(settings: Settings) -> str:
    """Whose routes these are."""
    return gateway_id(settings)


def read_table(settings: Settings) -> dict[str, Any]:
    """The agent's snapshot, empty before it made one. Raises GatewayDown for one that cannot be read."""
    path: Path = Layout(settings.state_dir).route_table
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"routes": [], "members": {}}
    except (OSError, ValueError) as error:
        raise GatewayDown(f"{path} cannot be read: {error}. The gateway's agent writes it anew.") from error
    return {"routes": found["routes"], "members": found["members"]}


def all_figures(settings: Settings) -> list[Mapping[str, str]]:
    """Every line of ``show stat``. Raises GatewayDown."""
    with _session(settings) as session:
        return list(parse_figures(_ask(session, "show stat")))


def figures_of(settings: Settings, slots: Iterable[str], now: datetime) -> Iterator[tuple[tuple[str, str], Figures]]:
    """Figures by (slot, server), and of each slot as a whole. Raises GatewayDown."""
    with _session(settings) as session:
        for slot in sorted(slots):
            for row in parse_figures(_ask(session, f"show stat {slot} {_BACKEND_AND_SERVERS} -1")):
                yield (slot, row["svname"]), _read(row, now)


def single_requests(settings: Settings) -> dict[str, int]:
    """Requests in flight that asked for one replica by its name, by replica. Raises GatewayDown."""
    with _session(settings) as session:
        return parse_table(_ask(session, f"show table {ONE_REPLICA}"))


def _session(settings: Settings) -> Session:
    try:
        return Session(Layout(settings.state_dir).haproxy_socket, TIMEOUT_S)
    except HaproxyAway as error:
        raise GatewayDown(_AWAY, retry_after_s=2) from error


def _ask(session: Session, command: str) -> str:
    try:
        return session.ask(command)
    except HaproxyAway as error:
        raise GatewayDown(_AWAY, retry_after_s=2) from error


def _read(row: Mapping[str, str], now: datetime) -> Figures:
    status = row["status"]
    return Figures(
        state=next((ours for theirs, ours in _STATES if status.startswith(theirs)), "up"),
        since=(now - timedelta(seconds=number(row["lastchg"]))).replace(microsecond=0),
        in_flight=number(row["scur"]),
        queued=number(row["qcur"]),
        limit=number(row["slim"]),
        requests=number(row["stot"]),
        check=" ".join(word for word in (row["check_status"], row["check_desc"]) if word),
        row=row,
    )


def _body(
    route: Mapping[str, Any], members: Mapping[str, Any], figures: Mapping[tuple[str, str], Figures]
) -> dict[str, Any]:
    slot = route["slot"]
    replicas = [_member(members[server], figures.get((slot, server))) for server in route["members"]]
    whole = figures.get((slot, "BACKEND"))
    return {
        "name": route["name"],
        "kind": route["kind"],
        "model": route["model"] or None,
        "state": "ready" if any(one["state"] == "up" for one in replicas) else "no_slot" if _homeless(route) else "out",
        "slot": slot,
        "replicas_up": sum(one["state"] == "up" for one in replicas),
        "in_flight": sum(one["in_flight"] for one in replicas),
        "queued": (whole.queued if whole else 0) + sum(one["queued"] for one in replicas),
        "replicas": replicas,
    }


def _homeless(route: Mapping[str, Any]) -> bool:
    return bool(route["members"]) and not route["slot"]


def _member(member: Mapping[str, Any], seen: Figures | None) -> dict[str, Any]:
    # what drains is not added to a HAProxy that never had it
    state = seen.state if seen else "absent"
    return {
        "replica_id": member["id"],
        "attempt": member["attempt"],
        "kind": member["kind"],
        "server": member["server"],
        "address": str(Endpoint(member["ip"], member["port"])),
        "pool": member["pool"] or None,
        "node": member["node"] or None,
        "state": state,
        "since": seen.since if seen else None,
        "in_flight": seen.in_flight if seen else 0,
        "queued": seen.queued if seen else 0,
        "max_concurrency": (seen.limit if seen else member["max_concurrency"]) or None,
        "requests": seen.requests if seen else 0,
        "check": seen.check if seen else "",
    }
