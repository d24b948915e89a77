"""What a replica asks of the place where it runs, and whether a gang of them has room there together. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Hosts that a refusal names; the rest is counted.
_NAMED = 5


@dataclass(frozen=True)
class Units:
    """Slots, ports or GPUs of one place: how many there are, and how many of them are free."""

    total: int
    free: int


@dataclass(frozen=True)
class Host:
    """A worker host's GPUs and ports."""

    name: str
    gpus: Units
    ports: Units


@dataclass(frozen=True)
class Place:
    """Where a gang may go. ``gpus`` is None where the pool counts none, ``hosts`` None where no host is bound."""

    pool: str
    slots: Units
    gpus: Units | None
    hosts: Sequence[Host] | None


def gpus_wanted(spec: Mapping[str, Any]) -> int:
    """GPUs that ``resources.gpus`` (or ``gpu``) asks for; 0 is CPU only. The request was checked when it came."""
    resources = spec.get("resources") or {}
    return int(resources.get("gpus", resources.get("gpu")) or 0)


def never_fits(members: int, gpus: int, place: Place) -> str | None:
    """Why ``members`` replicas that want ``gpus`` GPUs in all can never be there at once; None when they can be."""
    wanted = f"its {members} replicas start together or not at all and want" if members > 1 else "it wants"
    see_pool = f"see `hostler pool get {place.pool}`"
    if members > place.slots.total:
        missing = members - place.slots.total
        return f"{wanted} {members} slots; pool {place.pool} has {place.slots.total}, {missing} missing; {see_pool}"
    if place.gpus is not None and gpus > place.gpus.total:
        missing = gpus - place.gpus.total
        return f"{wanted} {gpus} GPUs and pool {place.pool} has {place.gpus.total}, {missing} missing; {see_pool}"
    # none has said yet what it has: its agent is about to
    if not place.hosts or any(_lacking(members, gpus, host) == (0, 0) for host in place.hosts):
        return None
    things = f"{gpus} GPUs and {members} ports" if gpus else f"{members} ports"
    return f"{wanted} {things} of one host: {_told(members, gpus, place.hosts)}; see `hostler node list`"


def short_of(members: int, gpus: int, place: Place, host: str) -> str | None:
    """Which units are not free now on ``host`` for all of them: ``slots``, ``ports``, ``gpus``; None: there is room."""
    here = next((one for one in place.hosts or () if one.name == host), None)
    if members > place.slots.free:
        return "slots"
    if place.hosts is not None and (here is None or members > here.ports.free):
        return "ports"
    limits = [units.free for units in (place.gpus, here.gpus if here else None) if units is not None]
    return "gpus" if gpus > min(limits, default=gpus) else None


def most_room(members: int, gpus: int, place: Place) -> tuple[str | None, int]:
    """(what no host has free for all of them, as ``short_of`` says it; how much of that is free where most is)."""
    if place.hosts is None:
        short = short_of(members, gpus, place, "")
        return short, place.slots.free if short == "slots" else place.gpus.free if place.gpus else 0
    shorts = {host.name: short_of(members, gpus, place, host.name) for host in place.hosts}
    if None in shorts.values():
        return None, 0
    if "slots" in shorts.values():
        return "slots", place.slots.free
    if "gpus" not in shorts.values():
        return "ports", max((host.ports.free for host in place.hosts), default=0)
    most = max(host.gpus.free for host in place.hosts if shorts[host.name] == "gpus")
    return "gpus", min(most, place.gpus.free) if place.gpus else most


def costs_nothing(members: int, gpus: int, place: Place, host: str, spare: int) -> bool:
    """Whether those behind may use ``host`` meanwhile: it can never hold the gang, and the pool has ``spare`` slots
    more than the gang wants."""
    if place.hosts is None or place.gpus is not None or place.slots.free < members + spare:
        return False
    return all(_lacking(members, gpus, one) != (0, 0) for one in place.hosts if one.name == host)


def _lacking(members: int, gpus: int, host: Host) -> tuple[int, int]:
    """(GPUs, ports) that the host would need more, were it empty."""
    return max(0, gpus - host.gpus.total), max(0, members - host.ports.total)


def _told(members: int, gpus: int, hosts: Sequence[Host]) -> str:
    nearest = sorted(hosts, key=lambda host: (*_lacking(members, gpus, host), host.name))
    told = []
    for host in nearest[:_NAMED]:
        few_gpus, few_ports = _lacking(members, gpus, host)
        parts = [f"{host.gpus.total} GPUs, {few_gpus} missing"] if few_gpus else []
        parts += [f"{host.ports.total} ports, {few_ports} missing"] if few_ports else []
        told.append(f"{host.name} has {' and '.join(parts)}")
    if len(nearest) > _NAMED:
        told.append(f"{len(nearest) - _NAMED} more hosts have less")
    return "; ".join(told)
