"""Which servers of others a replica may forward to: never one of ours, and for most users only those on the list."""

from __future__ import annotations

import ipaddress
import socket

import psutil

from app.domain.endpoints import Address, Endpoint, forbidden_kind, parse_allowance, plain, preferred
from app.errors import Forbidden
from app.settings import Settings

FIELD = "replica_config.base_url"


def check_allowed(settings: Settings, endpoint: Endpoint, *, admin: bool) -> None:
    """What can be said before it is looked up. Raises Forbidden."""
    if endpoint.address is not None:
        _check_address(settings, endpoint, endpoint.address)
    if admin:
        return
    allowance = parse_allowance(settings.external_allow)
    # of a name only the name counts: what it means is its owner's business, and may change
    listed = endpoint.host in allowance.names
    if not listed and not (endpoint.address and allowance.covers(endpoint.host, endpoint.address)):
        raise _forbidden(f"{endpoint.host} is not in HOSTLER_EXTERNAL_ALLOW; others need a key of role admin.")


def look_up(settings: Settings, endpoint: Endpoint) -> tuple[str, ...]:
    """Where it is now, IPv4 first; empty while nobody knows. Asks the network: nothing may be held meanwhile.

    Raises Forbidden for an address that may never be.
    """
    try:
        found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except OSError:
        return ()
    addresses = preferred(ipaddress.ip_address(str(one[4][0]).partition("%")[0]) for one in found)
    for address in addresses:
        _check_address(settings, endpoint, address)
    return tuple(map(str, addresses))


def _check_address(settings: Settings, endpoint: Endpoint, address: Address) -> None:
    kind = forbidden_kind(address)
    if kind:
        raise _forbidden(f"{endpoint.host} is at {address}, {kind}: that is never allowed.")
    first, last = settings.ports
    ours = endpoint.port == settings.port or first <= endpoint.port <= last
    if ours and (plain(address).is_loopback or plain(address) in _own_addresses()):
        raise _forbidden(f"{endpoint} is one of Hostler's own ports.")


def _own_addresses() -> set[Address]:
    found = set()
    for addresses in psutil.net_if_addrs().values():
        for one in addresses:
            if one.family in (socket.AF_INET, socket.AF_INET6):
                found.add(plain(ipaddress.ip_address(one.address.partition("%")[0])))
    return found


def _forbidden(words: str) -> Forbidden:
    return Forbidden(f"base_url: {words}", errors={FIELD: [words]})
