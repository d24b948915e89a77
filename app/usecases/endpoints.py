"""Which endpoints may be registered here, and what their names mean: resolved once, and pinned.

A name that meant an allowed address when it was registered may mean another one later. So nothing of ours asks the
resolver again: probes and the gateway go to the addresses that were found here.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

import psutil

from app.domain.endpoints import Address, Endpoint, parse_allowance, parse_endpoint, plain, preferred, refusal
from app.errors import EndpointRefused, InvalidConfig, Unavailable
from app.settings import Settings
from app.usecases.context import Context

#: A resolver that takes longer is not waited for.
RESOLVE_S = 5.0
#: Names that are looked up at one time: a resolver that hangs holds no more threads than these.
LOOKUPS = 8
#: How long a list of this host's own addresses is good.
_INTERFACES_S = 30.0

_lookups = threading.BoundedSemaphore(LOOKUPS)


@dataclass(frozen=True)
class Pinned:
    """An endpoint with the addresses that its host has, best first. ``local``: one of them is this host's."""

    endpoint: Endpoint
    addresses: tuple[str, ...]
    local: bool


def pin(ctx: Context, text: str) -> Pinned:
    """The endpoint that ``text`` names. Raises InvalidConfig (422), EndpointRefused (403) and Unavailable (503)."""
    try:
        endpoint = parse_endpoint(text)
    except ValueError as error:
        raise _invalid(f"endpoint: {error}. Send HOST:PORT, like localhost:50051.") from error
    addresses = [endpoint.address] if endpoint.address else _resolve(endpoint.host)
    why = refusal(endpoint, addresses, parse_allowance(ctx.settings.register_allow))
    if why:
        raise EndpointRefused(f"endpoint: {why}. HOSTLER_REGISTER_ALLOW names the hosts that are allowed.")
    ours = own_addresses(int(time.monotonic() / _INTERFACES_S))
    local = any(address.is_loopback or address in ours for address in addresses)
    if any((str(address), endpoint.port) in _parts_elsewhere(ctx.settings) for address in addresses) or (
        local and endpoint.port in own_ports(ctx.settings)
    ):
        raise own_port_refused(endpoint)
    return Pinned(endpoint, tuple(map(str, addresses)), local)


def own_port_refused(endpoint: Endpoint) -> EndpointRefused:
    return EndpointRefused(
        f"endpoint: {endpoint} is Hostler's own; a server that Hostler runs is in the registry anyway."
    )


def own_ports(settings: Settings) -> set[int]:
    """Ports of this host at which parts of ours listen or might, whatever address they are bound to."""
    found = {settings.port, settings.flower_port} - {0}
    for host, port in _urls(settings):
        if host in ("", "localhost") or _is_loopback(host):
            found.add(port)
    return found


@lru_cache(maxsize=2)
def own_addresses(_moment: int) -> frozenset[Address]:
    """The addresses of this host's interfaces; read again for another ``_moment``."""
    found = set()
    for addresses in psutil.net_if_addrs().values():
        for one in addresses:
            if one.family in (socket.AF_INET, socket.AF_INET6):
                found.add(plain(ipaddress.ip_address(one.address.partition("%")[0])))
    return frozenset(found)


@lru_cache(maxsize=8)
def _parts_elsewhere(settings: Settings) -> frozenset[tuple[str, int]]:
    """(address, port) of the database and the broker, wherever they are; a name of theirs is looked up once."""
    found = set()
    for host, port in _urls(settings):
        try:
            found |= {(str(address), port) for address in _resolve(host)} if host else set()
        except (InvalidConfig, Unavailable):
            continue
    return frozenset(found)


def _urls(settings: Settings) -> list[tuple[str, int]]:
    broker_port = 6379 if settings.broker_url.startswith("redis") else 5672
    found = []
    for url, usual in ((settings.database_url, 5432), (settings.broker_url, broker_port)):
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            # several hosts in one URL, as sentinels have it
            continue
        if parts.hostname:
            found.append((parts.hostname, port or usual))
    return found


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _resolve(host: str) -> list[Address]:
    """Every address that the name has now, in a thread that is given up when it takes too long."""
    found: list[Address] = []
    errors: list[OSError] = []

    def look_up() -> None:
        try:
            entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            found.extend(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in entries)
        except OSError as error:
            errors.append(error)
        except UnicodeError as error:
            errors.append(OSError(str(error)))
        finally:
            _lookups.release()

    if not _lookups.acquire(timeout=RESOLVE_S):
        raise Unavailable("The resolver of names is busy. Try again, or register an address.", retry_after_s=5)
    thread = threading.Thread(target=look_up, name="resolve", daemon=True)
    thread.start()
    thread.join(RESOLVE_S)
    if not found:
        why = (errors[0].strerror or str(errors[0])) if errors else f"no answer within {RESOLVE_S:g} s"
        raise _invalid(f"endpoint: the name {host} cannot be resolved: {why}. Register an address, or mend the name.")
    return preferred(found)


def _invalid(detail: str) -> InvalidConfig:
    return InvalidConfig(detail, errors={"endpoint": [detail.removeprefix("endpoint: ")]})
