"""This gateway's HAProxy as the agent sees it: what it holds of ours, carrying out commands, what is in flight."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.gateway.commands import Command, Place, Shown
from app.haproxy.runtime import HaproxyAway, Session
from app.haproxy.shown import ONE_REPLICA, number, parse_figures, parse_map, parse_servers, parse_table

#: A HAProxy that answers at all answers within milliseconds.
TIMEOUT_S = 3.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Carried:
    """What came of commands: deletions that were refused, and what failed otherwise, as (line, answer)."""

    refused: tuple[tuple[str, str], ...] = ()
    failed: tuple[tuple[str, str], ...] = ()


class Haproxy:
    """Each call is a session of its own. Raises HaproxyAway."""

    def __init__(self, socket: Path, place: Place, slots: Collection[str]) -> None:
        self._socket = socket
        self._place = place
        self._slots = frozenset(slots)

    def look(self, maps: Iterable[str]) -> Shown:
        """Every server of a slot, and the entries of ``maps``. Maps that its file does not name are left out."""
        with self._session() as session:
            servers = parse_servers(_complete(session.ask("show servers state")))
            entries = {}
            for name in maps:
                answer = session.ask(f"show map {self._place.map(name)}")
                if not answer.startswith("Unknown map"):
                    entries[name] = parse_map(answer)
        return Shown({key: server for key, server in servers.items() if key[0] in self._slots}, entries)

    def carry_out(self, commands: Sequence[Command]) -> Carried:
        """In their order; one that fails keeps no other from being said: the next look tells what is left to do."""
        refused, failed = [], []
        with self._session() as session:
            for command in commands:
                answer = session.ask(command.line)
                if command.succeeded(answer.strip()):
                    continue
                if command.deletes is not None:
                    refused.append(command.deletes)
                else:
                    failed.append((command.line, answer.strip()))
        return Carried(tuple(refused), tuple(failed))

    def close_idle(self, keys: Iterable[tuple[str, str]]) -> None:
        """Close the kept connections of servers that are to be deleted: one that is open still keeps its server.

        Maintenance closes those of one thread; another address, to which nothing is ever sent, closes all of them.
        """
        with self._session() as session:
            session.ask_all(f"set server {slot}/{server} addr 127.0.0.1 port 1" for slot, server in keys)

    def cut(self, keys: Iterable[tuple[str, str]]) -> None:
        """End what is left on servers that are to be deleted."""
        with self._session() as session:
            session.ask_all(f"shutdown sessions server {slot}/{server}" for slot, server in keys)

    def in_flight(self, slots: Iterable[str]) -> dict[str, int]:
        """Requests under way or queued, by server, over ``slots``; by replica what was asked of it alone."""
        with self._session() as session:
            found = parse_table(session.ask(f"show table {ONE_REPLICA}"))
            for slot in slots:
                for row in parse_figures(session.ask(f"show stat {slot} 4 -1")):
                    busy = number(row["scur"]) + number(row["qcur"])
                    found[row["svname"]] = found.get(row["svname"], 0) + busy
        return found

    def used_slots(self) -> set[str]:
        """Slots in which something was or is."""
        with self._session() as session:
            rows = list(parse_figures(session.ask("show stat -1 2 -1")))
        return {row["pxname"] for row in rows if row["pxname"] in self._slots and number(row["stot"]) > 0}

    def busy_slots(self, slots: Iterable[str]) -> set[str]:
        """Of ``slots`` those in which something is queued or being answered."""
        found = set()
        with self._session() as session:
            for slot in slots:
                for row in parse_figures(session.ask(f"show stat {slot} 2 -1")):
                    if number(row["scur"]) + number(row["qcur"]):
                        found.add(slot)
        return found

    def _session(self) -> Session:
        return Session(self._socket, TIMEOUT_S)


def _complete(answer: str) -> str:
    if not answer.startswith("1\n"):
        raise HaproxyAway(f"it shows no servers: {answer[:80]!r}")
    return answer
