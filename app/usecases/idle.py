"""Which replicas have nothing to do, as this host's gateway counts."""

from __future__ import annotations

from datetime import UTC, datetime

from app.domain.routing import RouteKind
from app.errors import GatewayDown
from app.settings import Settings
from app.usecases.routes import figures_of, read_table, single_requests
from app.usecases.served import Target


def count_idle(settings: Settings, target: Target) -> int:
    """Replicas of a service, or of a model's route, that get requests and are answering none; 0 while HAProxy does not
    answer.

    A replica may stand in several routes: what comes through any of them, or to it alone, keeps it busy.
    """
    try:
        table = read_table(settings)
        routes = [route for route in table["routes"] if route["slot"] and route["members"]]
        asked = {
            server
            for route in routes
            if (route["kind"] == RouteKind.SERVICE, route["name"])
            == (bool(target.service_id), target.service_id or target.route)
            for server in route["members"]
        }
        slots = {route["slot"] for route in routes if asked.intersection(route["members"])}
        up: set[str] = set()
        busy: set[str] = set()
        for (_slot, server), seen in figures_of(settings, slots, datetime.now(UTC)):
            if server in asked and seen.state == "up":
                up.add(server)
            if server in asked and seen.in_flight + seen.queued:
                busy.add(server)
        if up - busy:
            alone = single_requests(settings)
            busy |= {server for server in up if alone.get(table["members"][server]["id"])}
    except GatewayDown:
        return 0
    return len({table["members"][server]["id"] for server in up - busy})
