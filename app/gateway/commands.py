"""From what HAProxy shows and what it should hold to runtime commands. Pure, and so the same for every origin of a
difference: a replica that came or went, a foreign hand, a HAProxy that was started from an older file.

A server that is not wanted any more goes in two steps, because HAProxy lets go of none that has a connection: at once
it gets nothing new (maintenance), and it is deleted when it is idle, now or in a later pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from app.domain.routing import Member, MemberKind
from app.gateway.assignment import Picture
from app.gateway.servers import WEIGHT, arguments
from app.haproxy.shown import ShownServer


@dataclass(frozen=True)
class Place:
    """Where this gateway's files and sockets are, as HAProxy names them, and the words of every server's checks."""

    maps: str
    relay: str
    checks: str = ""

    def map(self, name: str) -> str:
        """The name of a map as the file has it; the runtime knows it by no other."""
        return f"{self.maps}/{name}"


@dataclass(frozen=True)
class Shown:
    """What HAProxy holds. Maps as lists, because a foreign hand may have put a key there twice."""

    servers: Mapping[tuple[str, str], ShownServer]
    maps: Mapping[str, Sequence[tuple[str, str]]]


@dataclass(frozen=True)
class Command:
    """One line for the runtime socket. ``ok`` are the beginnings of answers that mean it was done or need not be."""

    line: str
    ok: tuple[str, ...] = ()
    #: (slot, server) that it deletes; it is refused while connections are left
    deletes: tuple[str, str] | None = None

    def succeeded(self, answer: str) -> bool:
        return answer == "" if not self.ok else any(answer.startswith(word) for word in self.ok)


_ADDED = ("New server registered",)
_DELETED = ("Server deleted", "No such server")


def plan_commands(shown: Shown, wanted: Picture, place: Place) -> list[Command]:
    """What must be said, in this order: out with what may take nothing more, in with new servers, then the names that
    lead to them, and last what is emptied by that."""
    leaving = [key for key in shown.servers if key not in wanted.servers]
    kept = {server for _slot, server in wanted.servers}
    found: list[Command] = []
    for key, member in wanted.servers.items():
        if key in shown.servers and not member.standing.takes_requests:
            found += _adjust(key, shown.servers[key], member, place)
    # a server that is wanted in another slot leaves this one after the names have moved
    found += _silence(shown, [key for key in leaving if key[1] not in kept])
    for key, member in wanted.servers.items():
        if not member.standing.takes_requests:
            continue
        if key in shown.servers:
            found += _adjust(key, shown.servers[key], member, place)
        else:
            found += _add(key, member, place)
    for name, entries in wanted.maps.items():
        found += _change_map(place.map(name), shown.maps.get(name, ()), entries)
    found += _silence(shown, [key for key in leaving if key[1] in kept])
    return found + [_delete(key) for key in leaving]


def _add(key: tuple[str, str], member: Member, place: Place) -> list[Command]:
    name = "/".join(key)
    return [
        Command(f"add server {name} {arguments(member, place.relay, place.checks)}", _ADDED),
        *([Command(f"enable health {name}")] if "check" in place.checks.split() else []),
        Command(f"set server {name} state ready"),
    ]


def _adjust(key: tuple[str, str], shown: ShownServer, member: Member, place: Place) -> list[Command]:
    name = "/".join(key)
    if _is_elsewhere(shown, member):
        # never ours: a name is used once. Somebody made or moved it; it goes, and comes back as it should be
        gone = [Command(f"set server {name} state maint"), _delete(key)]
        return gone if not member.standing.takes_requests else gone + _add(key, member, place)
    drains = not member.standing.takes_requests
    found = []
    if drains != shown.draining or shown.maintenance:
        found.append(Command(f"set server {name} state {'drain' if drains else 'ready'}"))
    if not drains and shown.weight != WEIGHT:
        found.append(Command(f"set server {name} weight {WEIGHT}"))
    return found


def _is_elsewhere(shown: ShownServer, member: Member) -> bool:
    if member.kind is MemberKind.REGISTERED:
        return shown.ip != "-"
    return (shown.ip, shown.port) != (member.ip, member.port)


def _silence(shown: Shown, keys: Iterable[tuple[str, str]]) -> list[Command]:
    return [
        Command(f"set server {'/'.join(key)} state maint", ("", "No such server"))
        for key in keys
        if not shown.servers[key].maintenance
    ]


def _delete(key: tuple[str, str]) -> Command:
    return Command(f"del server {'/'.join(key)}", _DELETED, deletes=key)


def _change_map(path: str, shown: Sequence[tuple[str, str]], wanted: Mapping[str, str]) -> list[Command]:
    has: dict[str, list[str]] = {}
    for key, value in shown:
        has.setdefault(key, []).append(value)
    found = []
    for key, values in has.items():
        if key not in wanted:
            found.append(Command(f"del map {path} {key}"))
        elif len(values) > 1:
            # the first one counts, so what is right must be the only one
            found += [Command(f"del map {path} {key}"), Command(f"add map {path} {key} {wanted[key]}")]
        elif values[0] != wanted[key]:
            found.append(Command(f"set map {path} {key} {wanted[key]}"))
    return found + [Command(f"add map {path} {key} {value}") for key, value in wanted.items() if key not in has]
