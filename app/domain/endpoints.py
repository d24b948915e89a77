"""Endpoints that others may register: how one is written, and which addresses none may ever have.

An endpoint is sent to by HAProxy, by the probes of our agents and by clients who trust us. So nobody may register what
only this host or its network is meant to reach: what is not on the list of allowed hosts is refused, and some addresses
are refused whatever the list says, in every form that IPv6 has for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address

_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
#: A last label that resolvers take for a number makes the name an IPv4 address: ``127.1``, ``0x7f000001``.
_NUMERIC = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_THIS_NETWORK = ip_network("0.0.0.0/8")
_RESERVED = ip_network("240.0.0.0/4")
#: Networks whose last 32 bits are an IPv4 address that a gateway sends to.
_TRANSLATED = tuple(ip_network(one) for one in ("64:ff9b::/96", "64:ff9b:1::/48", "::/96"))


@dataclass(frozen=True)
class Endpoint:
    """``host`` is an address as Python writes it, or a name in lower case without its last dot."""

    host: str
    port: int

    @property
    def address(self) -> Address | None:
        """The address that the host is; None for a name."""
        try:
            return plain(ip_address(self.host))
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Allowance:
    """What HOSTLER_REGISTER_ALLOW says: names, and networks."""

    names: frozenset[str]
    networks: tuple[IPv4Network | IPv6Network, ...]

    def covers(self, host: str, address: Address) -> bool:
        """Whether an endpoint of that host, which is at ``address``, may be registered as far as the list goes."""
        return host in self.names or any(address in network for network in self.networks)


def parse_endpoint(text: str) -> Endpoint:
    """``HOST:PORT`` or ``[IPv6]:PORT``. Raises ValueError, whose words say what is wrong."""
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise ValueError("not HOST:PORT")
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise ValueError("the port is not a number from 1 to 65535")
    if host.startswith("[") and host.endswith("]"):
        try:
            return Endpoint(str(plain(IPv6Address(_without_zone(host[1:-1])))), int(port))
        except ValueError as error:
            raise ValueError("what stands in the brackets is not an IPv6 address without a zone") from error
    if ":" in host:
        raise ValueError("an IPv6 address stands in brackets: [::1]:8000; and nothing stands before the host")
    try:
        return Endpoint(str(IPv4Address(host)), int(port))
    except ValueError:
        return Endpoint(_name(host), int(port))


def parse_host(text: str) -> str:
    """An address or a name, as an Endpoint has it. Raises ValueError, also for an address that no host has alone."""
    try:
        address = plain(ip_address(text))
    except ValueError:
        return _name(text)
    kind = forbidden_kind(address)
    if kind:
        raise ValueError(f"{address} is {kind}, and not one that others reach this host by")
    return str(address)


def parse_allowance(text: str) -> Allowance:
    """The list: names, addresses and CIDRs between commas. Raises ValueError for an entry that is none of them."""
    names, networks = set(), []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        try:
            networks.append(ip_network(entry.strip("[]")))
        except ValueError as error:
            if "/" in entry:
                raise ValueError(f"{entry!r}: {error}") from error
            names.add(_name(entry))
    return Allowance(frozenset(names), tuple(networks))


def refusal(endpoint: Endpoint, addresses: Sequence[Address], allowance: Allowance) -> str | None:
    """Why the endpoint, whose host is at ``addresses``, may not be registered; None when it may.

    Every address of a name counts: whoever resolves it himself may get any of them.
    """
    for address in addresses:
        kind = forbidden_kind(address)
        if kind:
            return f"{address} is {kind}, which is never allowed"
        if not allowance.covers(endpoint.host, address):
            return f"{endpoint.host} is not in HOSTLER_REGISTER_ALLOW"
    return None


def forbidden_kind(address: Address) -> str | None:
    """What kind of address it is that nothing may ever be registered at, or None."""
    kinds = (_kind(one) for one in (address, *_embedded(address)))
    return next((kind for kind in kinds if kind), None)


def plain(address: Address) -> Address:
    """The IPv4 address that an IPv6 address merely spells, else the address itself."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def preferred(addresses: Iterable[Address]) -> list[Address]:
    """Each once, IPv4 first: of a name that has both most servers listen there."""
    return sorted(dict.fromkeys(map(plain, addresses)), key=lambda one: one.version)


def _kind(address: Address) -> str | None:
    if address.is_unspecified or address in _THIS_NETWORK:
        return "no host's address"
    if address.is_link_local or (isinstance(address, IPv6Address) and address.is_site_local):
        return "a link-local address"
    if address.is_multicast:
        return "a multicast address"
    if address in _RESERVED:
        return "a reserved address"
    return None


def _embedded(address: Address) -> list[IPv4Address]:
    """IPv4 addresses that something on the way may send to instead."""
    if not isinstance(address, IPv6Address):
        return []
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    low = int(address) & 0xFFFFFFFF
    # ::1 is loopback, and the first of them is no host's either way
    if low > 1 and any(address in network for network in _TRANSLATED):
        found.append(IPv4Address(low))
    return [one for one in found if one is not None]


def _without_zone(text: str) -> str:
    if "%" in text:
        raise ValueError("a zone")
    return text


def _name(host: str) -> str:
    name = host.removesuffix(".").lower()
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("the host is neither an address nor a name")
    if _NUMERIC.fullmatch(labels[-1]):
        raise ValueError("the host looks like an address and is not one as it is written")
    return name
