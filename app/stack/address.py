"""The address of this host as the rest of the stack knows it: looked up once, at the start of a process."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterable
from dataclasses import replace
from urllib.parse import urlsplit

from app.domain.endpoints import Address, forbidden_kind, parse_host, preferred
from app.settings import BadSetting, Settings, env_name

VARIABLE = env_name("node_address")


def with_node_address(settings: Settings) -> Settings:
    """``settings`` with an address of this host instead of its name. Raises BadSetting for one that is not its own."""
    wanted = parse_host(settings.node_address)
    addresses = _addresses(wanted)
    own = [one for one in addresses if forbidden_kind(one) is None and is_own(str(one))]
    if not own:
        what = f" (it is at {', '.join(map(str, addresses))})" if str(addresses[0]) != wanted else ""
        raise BadSetting(f"{VARIABLE}={wanted}{what}: no address of this host; `ip address` shows those it has")
    if wanted != "localhost" and str(addresses[0]) != wanted and all(one.is_loopback for one in own):
        # Debian's /etc/hosts has the host's own name at 127.0.1.1
        raise BadSetting(f"{VARIABLE}={wanted} is {own[0]} here, which no other host reaches; give the address itself")
    return replace(settings, node_address=str(own[0]))


def tell_children(settings: Settings) -> None:
    """What this process forks or starts reads the address that was found, and looks nothing up again."""
    os.environ[VARIABLE] = settings.node_address


def address_towards(urls: Iterable[str]) -> str:
    """This host's address as the servers of ``urls`` see it; loopback where all of them are on this host."""
    for url in urls:
        parts = urlsplit(url)
        try:
            host, port = parts.hostname or "", parts.port or 1
        except ValueError:
            # several hosts in one URL
            continue
        found = _source(host, port) if host else None
        if found is not None and not ipaddress.ip_address(found).is_loopback:
            return found
    return "127.0.0.1"


def is_own(address: str) -> bool:
    """Whether something of this host can listen there."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _addresses(wanted: str) -> list[Address]:
    try:
        found = socket.getaddrinfo(wanted, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise BadSetting(f"{VARIABLE}={wanted}: cannot be looked up ({error}); give the address itself") from error
    return preferred(ipaddress.ip_address(str(one[4][0]).partition("%")[0]) for one in found)


def _source(host: str, port: int) -> str | None:
    """From which address a connection to there would come. Nothing is sent: it is a datagram's socket."""
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM):
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(address)
                return str(probe.getsockname()[0]).partition("%")[0]
    except OSError:
        return None
    return None
