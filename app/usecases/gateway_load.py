"""How busy each server is with what came through this host's gateway, as HAProxy counts it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from app.errors import GatewayDown
from app.settings import Settings
from app.stack.layout import Layout
from app.usecases.routes import figures_of, read_table


@dataclass
class GatewayLoad:
    """Asked again and again; what the agent has not changed meanwhile is not read again."""

    settings: Settings
    _seen: tuple[int, int] = (0, 0)
    #: server -> (its slots, the replica or registration)
    _slots: dict[str, set[str]] = field(default_factory=dict)
    _ids: dict[str, str] = field(default_factory=dict)

    def read(self) -> dict[str, int]:
        """Requests in flight and queued by replica or registration; nothing while HAProxy does not answer."""
        try:
            self._read_table()
            found: dict[str, int] = {}
            for (slot, server), seen in figures_of(self.settings, self._slots, datetime.now(UTC)):
                if server in self._slots[slot] and seen.in_flight + seen.queued:
                    found[self._ids[server]] = found.get(self._ids[server], 0) + seen.in_flight + seen.queued
        except GatewayDown:
            return {}
        return found

    def _read_table(self) -> None:
        try:
            stat = Layout(self.settings.state_dir).route_table.stat()
        except OSError:
            self._slots, self._ids, self._seen = {}, {}, (0, 0)
            return
        seen = (stat.st_mtime_ns, stat.st_ino)
        if seen == self._seen:
            return
        table = read_table(self.settings)
        slots: dict[str, set[str]] = {}
        for route in table["routes"]:
            if route["slot"] and route["members"]:
                slots.setdefault(route["slot"], set()).update(route["members"])
        self._slots = slots
        self._ids = {server: member["id"] for server, member in table["members"].items()}
        self._seen = seen
